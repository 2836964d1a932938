"""The page's table of contents: for each section its heading, how to read it, and what fills it.

Adding a section is one line here, one function that fills it, and one macro in the template.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hubel.runs.report import answers, inside, origin
from hubel.runs.report.findings import findings
from hubel.runs.report.folder import RunFiles

UNFINISHED = "This was not measured: the run ended before its evaluation."
UNRECORDED = "This was not recorded for this run."


@dataclass(frozen=True, slots=True)
class Outline:
    """One section before it is filled. `fill` answers None where there is nothing to show."""

    id: str
    nav: str
    title: str
    reading: str
    fill: Callable[[RunFiles], Any]
    piece: str = ""  # the field of the evidence that it is made of


@dataclass(frozen=True, slots=True)
class Section:
    """One section as the template takes it; `absent` says in a line why `body` is None."""

    id: str
    nav: str
    title: str
    reading: str
    body: Any
    absent: str


OUTLINES = (
    Outline(
        "reading",
        "In short",
        "What to make of it",
        "Computed from this run’s own numbers, the most important first.",
        lambda files: findings(files) or None,
    ),
    Outline(
        "curves",
        "Curves",
        "Learning curves",
        "One epoch is one pass over the training images. Loss should fall and accuracy rise; "
        "where the dashed validation line parts from the solid training line, the net has begun "
        "to memorise.",
        origin.curves,
    ),
    Outline(
        "confusion",
        "Confusion",
        "Which classes are taken for which",
        "A row is what an image is, a column what the model said. The green diagonal is right; "
        "a red cell is a mistake, and a strong one names two classes that the model mixes up.",
        answers.confusion_matrix,
        "confusion",
    ),
    Outline(
        "classes",
        "Classes",
        "Class by class",
        "Precision: of the images called so, how many are. Recall: of the images that are, how "
        "many were found. F1 is high only where both are. The weakest class stands first.",
        answers.class_table,
        "confusion",
    ),
    Outline(
        "confidence",
        "Confidence",
        "Can its confidence be believed?",
        "When an honest model says “80 % sure”, it is right 80 % of the time, and its bars end on "
        "the dashed line. Bars below the line: it claims too much. Above: too little. The small "
        "chart counts the images behind each bar, the whiskers are 95 % intervals.",
        answers.confidence,
        "calibration",
    ),
    Outline(
        "mistakes",
        "Mistakes",
        "Its most confident mistakes",
        "Where the model was surest, and wrong. Look for wrong labels, for cut-off or odd "
        "pictures, and for those that would fool you too.",
        answers.mistakes,
        "mistakes",
    ),
    Outline(
        "samples",
        "Samples",
        "A few images and its answers",
        "Not chosen for success or failure. The bars are the probabilities of the likeliest "
        "classes; the true class is green.",
        answers.samples,
        "samples",
    ),
    Outline(
        "batch",
        "Batch",
        "A training batch, as the net sees it",
        "After scaling and augmentation: just what goes in. If you could not name these pictures, "
        "do not expect it of the net.",
        inside.batch,
        "batch",
    ),
    Outline(
        "filters",
        "Filters",
        "What the first layer looks for",
        "Each square is one filter, slid over the whole picture. It answers strongly where the "
        "picture is light under its light cells and dark under its dark ones; mid-grey counts for "
        "nothing. Look for edges and blobs; pure noise means little was learned.",
        inside.filters,
        "filters",
    ),
    Outline(
        "features",
        "Features",
        "What the layers make of a picture",
        "Each small map is one filter’s answer across the picture: white is strong, black is "
        "nothing. Early maps trace edges; later ones are coarser and answer to parts. A map that "
        "is black for every picture does no work.",
        inside.features,
        "features",
    ),
    Outline(
        "costs",
        "Cost",
        "What each layer costs",
        "For one image, forward. Parameters are the numbers that were learned; a MAC is one "
        "multiplication and one addition. The place to save is where the time goes.",
        inside.costs,
        "costs",
    ),
    Outline(
        "data",
        "Data",
        "What the data check found",
        "A model is as good as its data: broken files, copies that stand in two parts, and "
        "classes with few images show here before they show in the score.",
        origin.data_check,
    ),
    Outline(
        "reproduce",
        "Repeat",
        "How to repeat this run",
        "The same command, seed and versions on the same machine give the same weights, bit for "
        "bit.",
        origin.reproduce,
    ),
)


def sections(files: RunFiles) -> list[Section]:
    """Every section, filled or with the reason why not."""
    return [_filled(outline, files) for outline in OUTLINES]


def _filled(outline: Outline, files: RunFiles) -> Section:
    body = outline.fill(files)
    absent = "" if body is not None else _why(outline, files)
    return Section(outline.id, outline.nav, outline.title, outline.reading, body, absent)


def _why(outline: Outline, files: RunFiles) -> str:
    given = files.evidence.absent.get(outline.piece)
    if given:
        return f"Left out: {given.rstrip('.')}."
    confusion = files.evidence.confusion
    if outline.id == "mistakes" and confusion is not None and not _off_diagonal(confusion):
        return "There is none: every image was named right."
    if outline.id == "reading":
        return "The run holds too few numbers to say anything yet."
    return UNRECORDED if files.results or not outline.piece else UNFINISHED


def _off_diagonal(confusion: Any) -> int:
    return int(confusion.sum() - confusion.trace())
