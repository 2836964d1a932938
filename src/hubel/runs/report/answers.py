"""What the model answered: confusions, scores of each class, confidence, judged pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubel.runs.report.evidence import Samples
from hubel.runs.report.figures import reliability
from hubel.runs.report.folder import PARTS, RunFiles
from hubel.runs.report.measures import Confusion, calibration, class_scores, confusions
from hubel.runs.report.pictures import Picture, photo, tinted
from hubel.runs.report.words import count, percent, short

TABLE_CLASSES = 24  # up to here the counts fit into cells; beyond, the matrix becomes a picture
NAMED_CLASSES = 120  # up to here the picture's rows are named
WEAKEST = 15  # a long table of classes opens with so many
MISTAKES, SAMPLES, BARS = 24, 12, 3
SHOWN = 0.005  # of a class: a smaller share of its pixels is left out of the matrix
HIT, MISS = (38, 145, 120), (208, 86, 44)  # mid-tones: they read on white and on black


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the matrix: what stands in it, what is told of it, how strongly it is coloured.

    `shade` is 0..1.
    """

    text: str
    title: str
    shade: float
    hit: bool


@dataclass(frozen=True, slots=True)
class Card:
    """One judged picture. `bars`: (class, probability, is it the true one), likeliest first."""

    picture: Picture
    true: str
    said: str
    right: bool
    confidence: float
    id: str
    bars: tuple[tuple[str, float, bool], ...] = ()


def confusion_matrix(files: RunFiles) -> dict[str, Any] | None:
    """The matrix as cells or, for many classes, as a picture; and the commonest confusions."""
    confusion = files.evidence.confusion
    if confusion is None or not len(confusion):
        return None
    classes = len(confusion)
    names = [files.name_of(k) for k in range(classes)]
    pairs = [_named(files, pair) for pair in confusions(confusion, 10)]
    body: dict[str, Any] = {
        "names": names, "pairs": pairs, "part": part_of(files), "unit": unit(files)
    }  # fmt: skip
    if classes <= TABLE_CLASSES:
        body["rows"] = [_cells(files, confusion, row) for row in range(classes)]
        body["caption"] = _caption(files, confusion)
    else:
        body["picture"] = _matrix_picture(confusion)
        body["named"] = classes <= NAMED_CLASSES
    return body


def class_table(files: RunFiles) -> dict[str, Any] | None:
    """Precision, recall, F1 and support of each class; of many classes, the weakest first."""
    confusion = files.evidence.confusion
    if confusion is None or not len(confusion):
        return None
    scores = class_scores(confusion)
    columns = zip(scores.precision, scores.recall, scores.f1, scores.support, strict=True)
    rows = [
        (files.name_of(k), float(precision), float(recall), float(f1), int(support))
        for k, (precision, recall, f1, support) in enumerate(columns)
    ]
    rows.sort(key=lambda row: (row[3] if row[3] == row[3] else 2.0, row[0]))  # unknown ones last
    split = WEAKEST if len(rows) > TABLE_CLASSES else len(rows)
    return {"rows": rows[:split], "rest": rows[split:], "part": part_of(files)}


def confidence(files: RunFiles) -> dict[str, Any] | None:
    """The reliability diagram and its numbers."""
    table = files.evidence.calibration
    found = calibration(table) if table is not None else None
    if table is None or found is None:
        return None
    figure = reliability(table, unit(files))
    return {"figure": figure, "found": found, "part": part_of(files), "unit": unit(files)}


def mistakes(files: RunFiles) -> dict[str, Any] | None:
    """The most confident mistakes."""
    wrong = files.evidence.mistakes
    if wrong is None or not len(wrong.images):
        return None
    cards = [
        Card(
            picture=photo(wrong.images[k]),
            true=files.name_of(int(wrong.true[k])),
            said=files.name_of(int(wrong.predicted[k])),
            right=False,
            confidence=float(wrong.confidence[k]),
            id=wrong.ids[k],
        )
        for k in np.argsort(-wrong.confidence, kind="stable")[:MISTAKES].tolist()
    ]
    return {"cards": cards, "part": part_of(files)}


def samples(files: RunFiles) -> dict[str, Any] | None:
    """Images as they come, with the likeliest classes and the true one."""
    shown = files.evidence.samples
    if shown is None or not len(shown.images):
        return None
    cards = [_sample(files, shown, k) for k in range(min(SAMPLES, len(shown.images)))]
    right = sum(card.right for card in cards)
    return {"cards": cards, "right": right, "part": part_of(files)}


def _sample(files: RunFiles, shown: Samples, row: int) -> Card:
    chances, true = shown.probabilities[row], int(shown.true[row])
    order = np.argsort(-chances, kind="stable").tolist()
    top = order[:BARS] if true in order[:BARS] else [*order[:BARS], true]
    return Card(
        picture=photo(shown.images[row]),
        true=files.name_of(true),
        said=files.name_of(order[0]),
        right=order[0] == true,
        confidence=float(chances[order[0]]),
        id=shown.ids[row],
        bars=tuple((files.name_of(k), float(chances[k]), k == true) for k in top),
    )


def part_of(files: RunFiles) -> str:
    """The evaluated part in words, fit to stand before "images"."""
    return PARTS.get(files.evidence.part or "", "evaluated")


def unit(files: RunFiles) -> str:
    """What one answer is about."""
    return "pixel" if files.task == "segment" else "image"


def _caption(files: RunFiles, confusion: NDArray[np.int64]) -> str:
    if unit(files) == "image":
        return f"Counts of {part_of(files)} images"
    return (
        f"Of the pixels of each true class, how many percent were called what: "
        f"{short(confusion.sum())} labelled pixels of {part_of(files)} images"
    )


def _named(files: RunFiles, pair: Confusion) -> tuple[str, str, str, float]:
    form = short if unit(files) == "pixel" else count
    return files.name_of(pair.true), files.name_of(pair.predicted), form(pair.count), pair.share


def _cells(files: RunFiles, confusion: NDArray[np.int64], row: int) -> list[Cell]:
    """One true class. Mistakes are shaded by the root of their share, so that small ones show."""
    total = int(confusion[row].sum())
    cells = []
    pixels = unit(files) == "pixel"
    for column, times in enumerate(confusion[row].tolist()):
        share = times / total if total else 0.0
        hit = column == row
        shade = round(0.55 * share if hit else 0.75 * share**0.5, 3) if times else 0.0
        text, title = str(times or ""), percent(share)
        if pixels:  # seven digits would fit no cell
            text = f"{100 * share:.0f}" if share >= SHOWN else ""
            title = f"{short(times)} pixels, {percent(share)}"
        cells.append(Cell(text, title, shade if text else 0.0, hit))
    return cells


def _matrix_picture(confusion: NDArray[np.int64]) -> Picture:
    """One pixel a cell, shaded like the cells of the small matrix."""
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    hits = np.eye(len(confusion), dtype=bool)
    shade = np.where(hits, 0.15 + 0.85 * shares, shares**0.5)
    colours = np.where(hits[..., None], HIT, MISS).astype(np.uint8)
    return tinted(np.where(confusion > 0, shade, 0.0), colours)
