"""Folds: the images cut into k parts of which each is held out once; copies stay together.

The images that the files set apart themselves (a test part, a validation part) are no part of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hubel.data.record import Sample, Source
from hubel.data.split import Split, make_split, strata
from hubel.errors import DataError


def make_folds(source: Source, folds: int, seed: int = 0) -> NDArray[np.int64]:
    """The fold of every row, (N,): 1..folds, or 0 where the files assign it to "val" or "test".

    Stratified: the folds' images of a class differ in number by no more than the largest group of
    equal images in it, which is by one where all differ; the folds as a whole then differ by one
    too. The cut depends on the images and the seed, not on their order or names.

    Args:
        source: any source; its content hashes are read.
        folds: how many, at least 2.
        seed: at least 0.

    Raises:
        DataError: fewer different images than folds.
    """
    pool = np.flatnonzero(~np.isin(source.parts, ("val", "test")))
    _, of_row, size = np.unique(source.pictures()[pool], return_inverse=True, return_counts=True)
    if not 2 <= folds <= len(size):
        raise DataError(
            f"{source.name} can be cut into 2 to {len(size)} folds (it has so many different "
            f"images to train on), given {folds}"
        )
    label = np.full(len(size), len(source.classes), np.int64)
    np.minimum.at(label, of_row, source.targets[pool])  # the lowest, where copies disagree
    numbers = np.zeros(len(source), np.int64)
    numbers[pool] = _deal(size, label, folds, seed)[of_row]
    return numbers


def fold_split(source: Source, fold: tuple[int, int], *, val: float, seed: int = 0) -> Split:
    """One fold held out as the test part; validation images are cut from the rest as usual.

    A validation part of the source's own stays what it is. A test part of its own is set `apart`:
    the held-out fold takes its place, so that nothing of it is ever trained on or chosen by.

    Args:
        fold: (number from 1, how many).
        val: share of the other folds' images that validate, below 1; 0 for none.
        seed: draws the folds and the validation images.

    Raises:
        DataError: a class that would be left without an image to train on (or to validate) when
            some fold is held out; as `make_folds`.
    """
    number, folds = fold
    numbers = make_folds(source, folds, seed)
    own = bool(len(source.rows("val")))
    _require_enough(source, numbers, folds, need=2 if val and not own else 1)
    apart = source.rows("test")
    held = np.flatnonzero(numbers == number)
    rest = np.setdiff1d(np.arange(len(source)), np.concatenate([apart, held]))
    cut = make_split(_Rows(source, rest), val=val, test=0.0, seed=seed)
    return Split(rest[cut.train], rest[cut.val], held, seed, apart)


class _Rows(Source):
    """Some rows of another source."""

    def __init__(self, source: Source, rows: NDArray[np.int64]) -> None:
        self.source, self.kept = source, rows
        self.name, self.origin, self.classes = source.name, source.origin, source.classes
        self.kind = source.kind
        self.targets, self.parts = source.targets[rows], source.parts[rows]
        self.ids = [source.ids[row] for row in rows.tolist()]

    def __getitem__(self, row: int) -> Sample:
        return self.source[int(self.kept[row])]

    def hashes(self) -> NDArray[np.uint64]:
        return self.source.hashes()[self.kept]

    def pictures(self) -> NDArray[np.uint64]:
        return self.source.pictures()[self.kept]


def _deal(
    size: NDArray[np.int64], label: NDArray[np.int64], folds: int, seed: int
) -> NDArray[np.int64]:
    """The fold of each group of equal images, (groups,): class by class, the largest group first,
    to the fold that has fewest of the class, of these to the one that has fewest in all."""
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(size))
    order = order[np.lexsort((-size[order], label[order]))]
    numbers = np.zeros(len(size), np.int64)
    in_all, of_class, last = [0] * folds, [0] * folds, -1
    for group in order.tolist():
        if label[group] != last:
            of_class, last = [0] * folds, label[group]
        fold = min(range(folds), key=lambda f: (of_class[f], in_all[f]))
        numbers[group] = fold + 1
        of_class[fold] += int(size[group])
        in_all[fold] += int(size[group])
    return numbers


def _require_enough(source: Source, numbers: NDArray[np.int64], folds: int, need: int) -> None:
    """Every class keeps `need` different images, whichever fold is held out."""
    pool = np.flatnonzero(numbers)
    _, first = np.unique(source.pictures()[pool], return_index=True)
    rows = pool[first]
    named = strata(source)
    counts = np.zeros((folds, len(named)), np.int64)
    np.add.at(counts, (numbers[rows] - 1, source.targets[rows]), 1)
    left = (counts.sum(axis=0) - counts).min(axis=0)
    few = np.flatnonzero(left < need).tolist()
    if few:
        has, others = int(counts[:, few[0]].sum()), len(few) - 1
        also = f" (and {others} more such)" if others else ""
        raise DataError(
            f"{named[few[0]]} has {has} different "
            f"{'image' if has == 1 else 'images'}{also}: with {folds} folds "
            f"{left[few[0]]} would be left to learn from, {need} or more are needed"
        )
