"""How well boundaries are met: precision and recall of boundary pixels, class by class."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from hubel.data.masks.record import IGNORE

TOLERANCE = 0.0075  # of the image's diagonal (Csurka et al. 2013): 4.5 pixels of 480x360
NEAR = 6  # pixels: up to here every place around is looked at, 3 to 9 times faster than trees
SLACK = 1e-6  # squared distances are whole numbers; "within" includes the reach itself


def boundary_sums(
    truth: NDArray[np.uint8], said: NDArray[np.uint8], classes: int
) -> NDArray[np.float64]:
    """One image's part in the boundary scores: float64 (K, 4).

    A class's columns: precision (of its predicted boundary pixels, the share that lie within
    `TOLERANCE` of a true one), 1 if it has predicted ones, recall (the same, the other way
    round), 1 if it has true ones. Where there are none, the share is 0 and so is the mark.

    Args:
        truth: (H, W), 0..K-1 or IGNORE.
        said: (H, W), 0..K-1; counts as IGNORE where the truth is.
    """
    reach = TOLERANCE * math.hypot(*truth.shape)
    said = np.where(truth == IGNORE, IGNORE, said)
    lines = [_lines(labels, min(math.floor(reach), NEAR)) for labels in (said, truth)]
    precision = _met(lines[0], lines[1], reach, classes)
    recall = _met(lines[1], lines[0], reach, classes)
    return np.stack([*precision, *recall], axis=1)


def edges(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pixels (H, W) lie on their class's boundary: they and one of their four neighbours
    are labelled, and not alike. The image's border is no boundary, nor is that of the unlabelled.
    """
    known = labels != IGNORE
    found = np.zeros(labels.shape, dtype=bool)
    for one, other in (
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[1:], np.s_[:-1]),
    ):
        apart = (labels[one] != labels[other]) & known[one] & known[other]
        found[one] |= apart
        found[other] |= apart
    return found


def boundary_f(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Harmonic mean of mean precision and mean recall per class, (K,), from summed
    `boundary_sums` (K, 4); 0 where nothing was met, NaN where a class has no boundary at all."""
    precision = sums[:, 0] / np.maximum(sums[:, 1], 1)
    recall = sums[:, 2] / np.maximum(sums[:, 3], 1)
    f = 2 * precision * recall / np.where(precision + recall > 0, precision + recall, 1)
    return np.where(sums[:, 1] + sums[:, 3] > 0, f, np.nan)


def _lines(labels: NDArray[np.uint8], margin: int) -> NDArray[np.uint8]:
    """The class of boundary pixels, IGNORE elsewhere and in a margin: (H + 2 m, W + 2 m)."""
    return np.pad(np.where(edges(labels), labels, IGNORE), margin, constant_values=IGNORE)


def _met(
    lines: NDArray[np.uint8], others: NDArray[np.uint8], reach: float, classes: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Of a class's pixels in `lines`, the share with one of its own in `others` within reach;
    and whether it has any. Both (K,)."""
    places = np.flatnonzero(lines != IGNORE)
    owners = lines.ravel()[places]
    count = np.bincount(owners, minlength=classes)
    for ring in _rings(min(reach, NEAR), lines.shape[1]):
        places, owners = _unmet(places, owners, others.ravel(), ring)
    missed = np.bincount(owners, minlength=classes)
    if reach > NEAR:
        missed = _far(places, owners, others, reach, missed)
    return (count - missed) / np.maximum(count, 1), count > 0


def _rings(reach: float, width: int) -> list[NDArray[np.intp]]:
    """Steps to the places within reach in a flattened map, by distance: a list for each."""
    most = math.floor(reach)
    rows, columns = np.mgrid[-most : most + 1, -most : most + 1]
    squares = rows**2 + columns**2
    inside = squares <= reach**2 + SLACK
    order = np.argsort(squares[inside], kind="stable")
    steps = (rows * width + columns)[inside][order]
    ends = np.flatnonzero(np.diff(squares[inside][order])) + 1
    return np.split(steps, ends)


def _unmet(
    places: NDArray[np.intp],
    owners: NDArray[np.uint8],
    others: NDArray[np.uint8],
    ring: NDArray[np.intp],
) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """The places (n,), with their classes, that meet their class at no step of the ring."""
    left = np.ones(len(places), dtype=bool)
    for step in ring:
        left &= others[places + step] != owners
    return places[left], owners[left]


def _far(
    places: NDArray[np.intp],
    owners: NDArray[np.uint8],
    others: NDArray[np.uint8],
    reach: float,
    missed: NDArray[np.intp],
) -> NDArray[np.intp]:
    """How many of the places of each class miss their class in `others`, (K,), by search trees:
    rings grow with the square of the reach."""
    missed = missed.copy()
    points = np.stack(np.unravel_index(places, others.shape), axis=1)
    for k in np.unique(owners):
        targets = np.argwhere(others == k)
        if len(targets):
            near, _ = cKDTree(targets).query(
                points[owners == k], distance_upper_bound=reach + SLACK
            )
            missed[k] = np.isinf(near).sum()
    return missed
