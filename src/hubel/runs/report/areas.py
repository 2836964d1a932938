"""Masks on the page: judged images with all their layers, the legend, the scores of every class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubel.data.masks.record import IGNORE
from hubel.runs.report.answers import TABLE_CLASSES, WEAKEST, part_of
from hubel.runs.report.evidence import Case
from hubel.runs.report.folder import RunFiles
from hubel.runs.report.measures import area_scores
from hubel.runs.report.pictures import WIDE, Picture, areas, doubt, photo, wrong

OPEN = 3  # rows of a group that stand open
GROUPS = {"worst": "The worst", "best": "The best", "random": "Drawn by lot"}


@dataclass(frozen=True, slots=True)
class Row:
    """One image as the page shows it: named layers, and its own score."""

    id: str
    score: float
    layers: tuple[tuple[str, Picture], ...]


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend: a class and its colour as CSS has it; "" for no label."""

    name: str
    colour: str


def overlays(files: RunFiles) -> dict[str, Any] | None:
    """The worst cases, the best and some drawn by lot, with the legend of what is in them."""
    cases = files.evidence.cases
    if not cases:
        return None
    groups = {
        title: [_row(files, case) for case in cases if case.why == why]
        for why, title in GROUPS.items()
    }
    shown = [mask for case in cases for mask in (case.truth, case.predicted)]
    return {
        "groups": {title: (r[:OPEN], r[OPEN:]) for title, r in groups.items() if r},
        "legend": legend(files, np.concatenate([mask.ravel() for mask in shown])),
        "part": part_of(files),
    }


def legend(files: RunFiles, labels: NDArray[np.uint8], unlabelled: bool = True) -> list[Key]:
    """An entry for each class in `labels` (any shape), and one for what has no label."""
    present = np.unique(labels).tolist()
    colours = files.colours
    found = [Key(files.name_of(k), _css(colours[k])) for k in present if k < len(colours)]
    return [*found, Key("no label", "")] if unlabelled and IGNORE in present else found


def area_table(files: RunFiles) -> dict[str, Any] | None:
    """IoU, accuracy, precision, boundary F and share of each class, the weakest first."""
    confusion = files.evidence.confusion
    if confusion is None or not confusion.sum():
        return None
    scores, boundary = area_scores(confusion), files.evidence.boundary
    met = np.full(len(confusion), np.nan) if boundary is None else boundary
    columns = (scores.iou, scores.accuracy, scores.precision, met, scores.share)
    rows = [
        (files.name_of(k), _css(files.colours[k]), *map(float, line))
        for k, line in enumerate(zip(*columns, strict=True))
    ]
    rows.sort(key=lambda row: (row[2] if row[2] == row[2] else 2.0, row[0]))  # unknown ones last
    split = WEAKEST if len(rows) > TABLE_CLASSES else len(rows)
    return {
        "rows": rows[:split],
        "rest": rows[split:],
        "part": part_of(files),
        "met": boundary is not None,
    }


def _css(colour: tuple[int, int, int]) -> str:
    return "rgb({} {} {})".format(*colour)


def _row(files: RunFiles, case: Case) -> Row:
    layers = (
        ("image", photo(case.image, WIDE)),
        ("truth", areas(case.truth, files.colours)),
        ("prediction", areas(case.predicted, files.colours)),
        ("where wrong", wrong(case.image, case.truth, case.predicted)),
        ("uncertainty", doubt(case.uncertainty)),
    )
    return Row(case.id, case.score, layers)
