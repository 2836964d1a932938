"""The one number in the headline: how well the model does, on which images, how surely."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hubel.runs.headline import HEADLINES
from hubel.runs.report.folder import RunFiles
from hubel.runs.report.measures import mean_iou, wilson
from hubel.runs.report.words import number
from hubel.tasks.interval import Interval, interval


@dataclass(frozen=True, slots=True)
class Score:
    """A score 0..1 on the images of `part`; its name is the task's.

    Attributes:
        value: accuracy, or the mean IoU of masks.
        total: how many images were judged, None where unknown.
        low, high: the 95 % interval of an accuracy; None where the number of images is unknown,
            and for masks: their pixels are not independent.
    """

    part: str
    value: float
    total: int | None
    low: float | None
    high: float | None


def measure(files: RunFiles) -> str:
    """The key of the score that heads a run of this task."""
    return "miou" if files.task == "segment" else "accuracy"


def measured(files: RunFiles) -> str:
    """Its name in words."""
    return HEADLINES[measure(files)]


def scores(files: RunFiles) -> dict[str, Score]:
    """The score on every part that was measured: test first, then val, then train."""
    found = {part: _score(files, part) for part in ("test", "val", "train")}
    return {part: score for part, score in found.items() if score is not None}


def headline(files: RunFiles) -> Score | None:
    """The score to trust most: test, or else val, or else train."""
    return next(iter(scores(files).values()), None)


def spread(files: RunFiles) -> Interval | None:
    """How the mean IoU differs from image to image of the evidence's part: its mean over images,
    and what their number leaves open. None where images were not judged one by one."""
    each = files.evidence.each
    known = each[np.isfinite(each)] if each is not None else np.empty(0)
    return interval(known.tolist()) if len(known) else None


def guessing(files: RunFiles) -> float | None:
    """The score of always naming the commonest class, from the confusion matrix's rows."""
    confusion = files.evidence.confusion
    if confusion is not None and confusion.sum() > 0:
        share = float(confusion.sum(axis=1).max() / confusion.sum())
        present = int((confusion.sum(axis=1) > 0).sum())
        return share / present if files.task == "segment" else share
    return 1 / len(files.classes) if files.classes else None


def _score(files: RunFiles, part: str) -> Score | None:
    value = number(files.metrics(part).get(measure(files)))
    total, confusion = files.size_of(part), files.evidence.confusion
    if files.evidence.part == part and confusion is not None and confusion.sum() > 0:
        total = _judged(files, confusion.sum())
        if math.isnan(value):
            value = _from_confusion(files, confusion)
    if math.isnan(value):
        value = _from_history(files, part)
    if not math.isfinite(value):
        return None
    known = total and files.task != "segment"
    low, high = wilson(value * total, total) if known and total else (None, None)
    return Score(part, value, total, low, high)


def _judged(files: RunFiles, answers: int) -> int | None:
    """How many images were judged: broken ones never were."""
    if files.task != "segment":
        return int(answers)
    each = files.evidence.each
    return files.size_of(files.evidence.part or "") if each is None else len(each)


def _from_confusion(files: RunFiles, confusion: NDArray[np.int64]) -> float:
    if files.task == "segment":
        return mean_iou(confusion)
    return float(np.trace(confusion) / confusion.sum())


def _from_history(files: RunFiles, part: str) -> float:
    """A run that was cut short has no results: its log still knows the kept epoch's scores."""
    history = files.history
    if part == "test" or not len(history):
        return math.nan
    row = files.best if files.best is not None else len(history) - 1
    if files.task == "segment":  # the mean IoU of training images is not measured on the way
        return float(history.val_miou[row]) if part == "val" else math.nan
    column = history.val_accuracy if part == "val" else history.train_accuracy
    return float(column[row])
