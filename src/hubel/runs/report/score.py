"""The one number in the headline: how often the model is right, on which images, how surely."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hubel.runs.report.folder import RunFiles
from hubel.runs.report.measures import wilson
from hubel.runs.report.words import number


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy 0..1 on `part`; total, low and high are None where the part's size is unknown."""

    part: str
    accuracy: float
    total: int | None
    low: float | None
    high: float | None


def scores(files: RunFiles) -> dict[str, Score]:
    """The accuracy on every part that was measured: test first, then val, then train."""
    found = {part: _score(files, part) for part in ("test", "val", "train")}
    return {part: score for part, score in found.items() if score is not None}


def headline(files: RunFiles) -> Score | None:
    """The score to trust most: test, or else val, or else train."""
    return next(iter(scores(files).values()), None)


def guessing(files: RunFiles) -> float | None:
    """Accuracy of always naming the commonest class, from the confusion matrix's rows."""
    confusion = files.evidence.confusion
    if confusion is not None and confusion.sum() > 0:
        return float(confusion.sum(axis=1).max() / confusion.sum())
    return 1 / len(files.classes) if files.classes else None


def _score(files: RunFiles, part: str) -> Score | None:
    accuracy = number(files.metrics(part).get("accuracy"))
    total = files.size_of(part)
    confusion = files.evidence.confusion
    if files.evidence.part == part and confusion is not None and confusion.sum() > 0:
        total = int(confusion.sum())  # broken images were never judged: this is who was
        if math.isnan(accuracy):
            accuracy = float(np.trace(confusion) / total)
    if math.isnan(accuracy):
        accuracy = _from_history(files, part)
    if not math.isfinite(accuracy):
        return None
    low, high = wilson(accuracy * total, total) if total else (None, None)
    return Score(part, accuracy, total, low, high)


def _from_history(files: RunFiles, part: str) -> float:
    """A run that was cut short has no results: its log still knows the kept epoch's scores."""
    history = files.history
    if part == "test" or not len(history):
        return math.nan
    row = files.best if files.best is not None else len(history) - 1
    column = history.val_accuracy if part == "val" else history.train_accuracy
    return float(column[row])
