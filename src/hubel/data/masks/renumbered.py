"""`Renumbered`: masks whose classes stand in another order, or are only some of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hubel.data.masks.palette import Colour
from hubel.data.masks.record import MaskSource
from hubel.data.record import Sample


class Renumbered(MaskSource):
    """A source of masks with other numbers for its classes; all else is the source's.

    Args:
        source: the masks as they are.
        places: int64 (K,), where each class of `source` stands in `classes`.
        classes, colours: the new ones.
    """

    def __init__(
        self,
        source: MaskSource,
        places: NDArray[np.int64],
        classes: Sequence[str],
        colours: Sequence[Colour],
    ) -> None:
        self.source = source
        self.classes, self.colours = tuple(classes), tuple(colours)
        self.name, self.origin, self.where = source.name, source.origin, source.where
        self.targets, self.parts, self.ids = source.targets, source.parts, source.ids
        self.notice = source.notice
        self._table = np.arange(256, dtype=np.uint8)  # IGNORE stays what it is
        self._table[: len(places)] = places

    def __getitem__(self, row: int) -> Sample:
        sample = self.source[row]
        return Sample(sample.image, self._table[sample.target], sample.id)

    def mask(self, row: int) -> NDArray[np.uint8]:
        return self._table[self.source.mask(row)]

    def size(self, row: int) -> tuple[int, int, int]:
        return self.source.size(row)

    def hashes(self) -> NDArray[np.uint64]:
        return self.source.hashes()

    def image_hashes(self) -> NDArray[np.uint64]:
        return self.source.image_hashes()
