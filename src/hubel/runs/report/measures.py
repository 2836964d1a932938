"""The report's arithmetic: intervals, scores of each class, confusions, calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054  # a standard normal lies within +-Z95 95 % of the time


def wilson(right: float, total: float) -> tuple[float, float]:
    """Wilson's 95 % interval for a share of `right` out of `total`: (low, high), within 0..1.

    Unlike the textbook p +- 1.96 sqrt(p (1 - p) / n), it stays inside 0..1 and does not
    collapse to nothing at 0 or 100 %. E. B. Wilson, JASA 22 (1927) 209-212.

    >>> low, high = wilson(9, 10)
    >>> round(low, 4), round(high, 4)
    (0.5958, 0.9821)
    """
    if total <= 0:
        return 0.0, 1.0
    share, z2 = right / total, Z95 * Z95
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    spread = share * (1 - share) / total + z2 / (4 * total * total)
    half = Z95 / (1 + z2 / total) * math.sqrt(max(0.0, spread))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Scores of every class, float (K,): NaN where nothing can be said (no such image).

    precision: of the images called so, the share that are so. recall: of the images that are
    so, the share called so. f1: their harmonic mean. support: images of the class.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]


def class_scores(confusion: NDArray[np.int64]) -> ClassScores:
    """Scores from counts [true, predicted], int64 (K, K)."""
    right = np.diagonal(confusion).astype(np.float64)
    support, called = confusion.sum(axis=1), confusion.sum(axis=0)
    return ClassScores(
        precision=_share(right, called),
        recall=_share(right, support),
        f1=_share(2 * right, support + called),
        support=support,
    )


@dataclass(frozen=True, slots=True)
class AreaScores:
    """Scores of every class of a mask, float (K,): NaN where there is nothing to divide by.

    iou: pixels that are so and are called so, of those that are or are called so. accuracy: of
    the pixels that are so, the share called so. precision: of the pixels called so, the share
    that are. share: of all labelled pixels, those that are so.
    """

    iou: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    precision: NDArray[np.float64]
    share: NDArray[np.float64]


def area_scores(confusion: NDArray[np.int64]) -> AreaScores:
    """Scores from pixel counts [true, predicted], int64 (K, K)."""
    scores = class_scores(confusion)
    right = np.diagonal(confusion)
    either = scores.support + confusion.sum(axis=0) - right
    whole = np.full(len(right), confusion.sum())
    return AreaScores(
        iou=_share(right.astype(np.float64), either),
        accuracy=scores.recall,
        precision=scores.precision,
        share=_share(scores.support.astype(np.float64), whole),
    )


def mean_iou(confusion: NDArray[np.int64]) -> float:
    """The mean over the classes that occur or are called, from counts (K, K); NaN for none."""
    known = area_scores(confusion).iou
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else math.nan


def _share(part: NDArray[np.float64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    shares = np.full(len(part), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


@dataclass(frozen=True, slots=True)
class Confusion:
    """`count` images of class `true` called `predicted`; `share` of that class's images."""

    true: int
    predicted: int
    count: int
    share: float


def confusions(confusion: NDArray[np.int64], most: int) -> list[Confusion]:
    """The commonest mistakes, at most `most`, by count; counts of zero are left out."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    support = confusion.sum(axis=1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        Confusion(int(t), int(p), int(wrong[t, p]), float(wrong[t, p] / support[t]))
        for t, p in pairs
        if wrong[t, p] > 0
    ]


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far confidence can be believed.

    ece: expected calibration error, the mean over images of |confidence - accuracy| bin by bin.
    confidence, accuracy: means over all images. total: their number.
    """

    ece: float
    confidence: float
    accuracy: float
    total: int


def calibration(table: NDArray[np.float64]) -> Calibration | None:
    """From a table (bins, 3) of count, sum of confidence, number right. None for no images."""
    total = float(table[:, 0].sum())
    if not total > 0:
        return None
    confidence, right = float(table[:, 1].sum()), float(table[:, 2].sum())
    ece = float(np.abs(table[:, 1] - table[:, 2]).sum() / total)
    return Calibration(ece, confidence / total, right / total, round(total))
