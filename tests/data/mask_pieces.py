"""Masks of several sizes for the tests of stores and feeds."""

import numpy as np

from hubel.data.masks.record import MaskSource
from hubel.data.record import Sample
from hubel.errors import BrokenImage


class Listed(MaskSource):
    """Pairs from a list; None is broken, and rows in `late` show it only when decoded."""

    def __init__(self, pairs, classes=("a", "b", "c"), late=()):
        self.pairs, self.late = pairs, late
        self.classes, self.name, self.origin = tuple(classes), "listed", "a list"
        self.colours = tuple((40 * k, 0, 0) for k in range(len(classes)))
        self.targets = np.zeros(len(pairs), np.int64)
        self.parts = np.full(len(pairs), "", "U5")
        self.ids = [f"{row:03d}" for row in range(len(pairs))]

    def __getitem__(self, row):
        if self.pairs[row] is None or row in self.late:
            raise BrokenImage(self.ids[row], "is broken")
        return Sample(*self.pairs[row], self.ids[row])

    def mask(self, row):
        return self[row].target

    def size(self, row):
        if self.pairs[row] is None:
            raise BrokenImage(self.ids[row], "is broken")
        return self.pairs[row][0].shape

    def hashes(self):
        raise NotImplementedError

    image_hashes = hashes


def placed(height, width, number=0):
    """Every pixel says where it is: red its row, green its column, blue `number`; its label is
    (row + 2 column + 3 number) modulo 3."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([y, x, np.full_like(y, number)]).astype(np.uint8)
    return image, ((y + 2 * x + 3 * number) % 3).astype(np.uint8)


def numbered(*sizes, late=()):
    """A source of `placed` pairs; a size of None is a broken one."""
    pairs = [None if size is None else placed(*size, row) for row, size in enumerate(sizes)]
    return Listed(pairs, late=late)
