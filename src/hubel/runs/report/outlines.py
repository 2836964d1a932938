"""What the sections are called and how to read them: one table of contents for each task.

Adding a section is one line here, one function that fills it, and one macro in the template.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hubel.runs.report import answers, areas, inside, origin
from hubel.runs.report.findings import findings
from hubel.runs.report.folder import RunFiles


@dataclass(frozen=True, slots=True)
class Outline:
    """One section before it is filled. `fill` answers None where there is nothing to show."""

    id: str
    nav: str
    title: str
    reading: str
    fill: Callable[[RunFiles], Any]
    piece: str = ""  # the field of the evidence that it is made of


READING = Outline(
    "reading",
    "In short",
    "What to make of it",
    "Computed from this run’s own numbers, the most important first.",
    lambda files: findings(files) or None,
)
FILTERS = Outline(
    "filters",
    "Filters",
    "What the first layer looks for",
    "Each square is one filter, slid over the whole picture. It answers strongly where the "
    "picture is light under its light cells and dark under its dark ones; mid-grey counts for "
    "nothing. Look for edges and blobs; pure noise means little was learned.",
    inside.filters,
    "filters",
)
FEATURES = Outline(
    "features",
    "Features",
    "What the layers make of a picture",
    "Each small map is one filter’s answer across the picture: white is strong, black is "
    "nothing. Early maps trace edges; later ones are coarser and answer to parts. A map that "
    "is black for every picture does no work.",
    inside.features,
    "features",
)
COSTS = Outline(
    "costs",
    "Cost",
    "What each layer costs",
    "For one image, forward. Parameters are the numbers that were learned; a MAC is one "
    "multiplication and one addition. The place to save is where the time goes.",
    inside.costs,
    "costs",
)
DATA = Outline(
    "data",
    "Data",
    "What the data check found",
    "A model is as good as its data: broken files, copies that stand in two parts, and "
    "classes with few images show here before they show in the score.",
    origin.data_check,
)
REPRODUCE = Outline(
    "reproduce",
    "Repeat",
    "How to repeat this run",
    "The same command, seed and versions on the same machine give the same weights, bit for bit.",
    origin.reproduce,
)

LABELS = (
    READING,
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
    FILTERS,
    FEATURES,
    COSTS,
    DATA,
    REPRODUCE,
)

MASKS = (
    READING,
    Outline(
        "curves",
        "Curves",
        "Learning curves",
        "One epoch is one pass over the training windows. Loss should fall and the scores rise; "
        "where the dashed validation line parts from the solid training line, the net has begun "
        "to memorise. (Windows are varied as they are learned from, so training may look worse.)",
        origin.curves,
    ),
    Outline(
        "overlays",
        "Pictures",
        "What it saw and what it said",
        "Each row is one image with its own mean IoU: the image, the true classes, the answer, its "
        "wrong pixels in red, and its uncertainty: dark where one class has all the probability, "
        "bright where several share it (their entropy). Good doubts are bright where the red is. "
        "Hatched pixels have no label and count for nothing.",
        areas.overlays,
        "cases",
    ),
    Outline(
        "areas",
        "Classes",
        "Class by class",
        "IoU: of all pixels that are the class or are called so, the share that are both. "
        "Accuracy: of the pixels that are, how many were found. Precision: of those called so, "
        "how many are. Boundary F: how much of its outline is met, to within 0.75 % of the "
        "picture’s diagonal. The weakest class stands first.",
        areas.area_table,
        "confusion",
    ),
    Outline(
        "confusion",
        "Confusion",
        "Which classes are taken for which",
        "A row is what a pixel is, a column what the model said, in percent of the row. The green "
        "diagonal is right; a red cell is a mistake, and a strong one names two classes that the "
        "model mixes up.",
        answers.confusion_matrix,
        "confusion",
    ),
    Outline(
        "confidence",
        "Confidence",
        "Can its confidence be believed?",
        "When an honest model says “80 % sure” of a pixel, it is right 80 % of the time, and its "
        "bars end on the dashed line. Bars below the line: it claims too much. Above: too little. "
        "The small chart counts the pixels behind each bar.",
        answers.confidence,
        "calibration",
    ),
    Outline(
        "batch",
        "Batch",
        "A training batch, as the net sees it",
        "After cutting and augmentation: just what goes in, tinted by the classes it is told; "
        "pixels without a label keep their own colours. Where a tint leaves its object, image and "
        "mask do not fit.",
        inside.batch,
        "batch",
    ),
    FILTERS,
    FEATURES,
    COSTS,
    DATA,
    REPRODUCE,
)

OUTLINES = {"classify": LABELS, "segment": MASKS}
