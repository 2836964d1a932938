"""Stores of images with masks: as `data/store.py`, but pairs, and of any size each.

In memory they are two lists of byte tensors (and weight maps, where pixels are weighed); streamed,
worker processes decode them one by one, a few ahead, so that whole photographs stay few.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hubel.data.ahead import read_ahead
from hubel.data.cores import cores
from hubel.data.masks.record import MaskSource
from hubel.data.preprocess import Preprocess
from hubel.data.store import MEMORY_LIMIT, Store
from hubel.errors import BrokenImage, DataError

SIZES_READ = 256  # headers, evenly spread, that tell how much memory all images need

Size = tuple[int, int]  # height, width
Weigh = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Pair:
    """A prepared image and what is known of its pixels.

    Attributes:
        row: its position in the source.
        image: uint8 (C, H, W).
        mask: uint8 (H, W), class indices or IGNORE.
        weight: float32 (H, W), how much each pixel counts; None: all alike.
    """

    row: int
    image: Tensor
    mask: Tensor
    weight: Tensor | None = None

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.mask.shape[0], self.mask.shape[1]

    def to(self, device: torch.device) -> Pair:
        """The pair on another device."""
        weight = None if self.weight is None else self.weight.to(device)
        return Pair(self.row, self.image.to(device), self.mask.to(device), weight)


class MaskStore(Store):
    """Where prepared pairs come from. `broken` fills as they are met.

    Raises `OptionError` for fit "crop".
    """

    source: MaskSource

    def __init__(
        self, source: MaskSource, preprocess: Preprocess, weigh: Weigh | None = None
    ) -> None:
        preprocess.check_masks()
        super().__init__(source, preprocess)
        self.weighed = weigh is not None
        self._sizes: dict[int, Size | None] = {}

    @abstractmethod
    def pairs(self, rows: Sequence[int]) -> Iterator[Pair | None]:
        """The pair of each row, in order, as they are asked for; None where it is broken."""

    def size(self, row: int) -> Size | None:
        """Height and width of a prepared image, without decoding it; None where its header is
        broken. What decoding has found out changes nothing: other processes do not know of it."""
        if row not in self._sizes:
            try:
                _, height, width = self.source.size(row)
                self._sizes[row] = self.preprocess.target(height, width)
            except BrokenImage as error:
                self.broken[row] = error.bare()
                self._sizes[row] = None
        return self._sizes[row]

    def fetch(self, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Store.fetch`, the images alone. Raises `DataError` where sizes differ."""
        for asked in order:
            found = [pair for pair in self.pairs(asked.tolist()) if pair is not None]
            sizes = sorted({pair.size for pair in found})
            if len(sizes) > 1:
                raise DataError(f"images of one size make a batch, these are of {sizes}")
            empty = torch.empty(0, self.preprocess.channels, 0, 0, dtype=torch.uint8)
            images = torch.stack([pair.image for pair in found]) if found else empty
            yield images, torch.tensor([pair.row for pair in found], dtype=torch.int64)


class MemoryMaskStore(MaskStore):
    """All pairs at once, on the training device."""

    def __init__(
        self,
        source: MaskSource,
        preprocess: Preprocess,
        device: torch.device,
        weigh: Weigh | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__(source, preprocess, weigh)
        self._pairs: dict[int, Pair] = {}
        read = partial(_read, source, preprocess, weigh)
        with ThreadPoolExecutor(cores()) as pool:
            for row, found in enumerate(pool.map(read, range(len(source)))):
                if isinstance(found, BrokenImage):
                    self.broken[row] = found
                else:
                    self._pairs[row] = found.to(device)
                    self._sizes[row] = found.size
                if progress is not None:
                    progress(row + 1, len(source))

    def pairs(self, rows: Sequence[int]) -> Iterator[Pair | None]:
        return (self._pairs.get(row) for row in rows)


class StreamMaskStore(MaskStore):
    """Pairs decoded, and weighed, by worker processes."""

    def __init__(
        self,
        source: MaskSource,
        preprocess: Preprocess,
        workers: int,
        weigh: Weigh | None = None,
    ) -> None:
        super().__init__(source, preprocess, weigh)
        self._asked = _Asked()
        self._loader: DataLoader[Pair | BrokenImage] = read_ahead(
            self, _Pairs(source, preprocess, weigh), workers, batch_size=None, sampler=self._asked
        )

    def pairs(self, rows: Sequence[int]) -> Iterator[Pair | None]:
        self._asked.rows = rows
        for row, found in zip(rows, self._loader, strict=True):
            if isinstance(found, BrokenImage):
                self.broken[row] = found
                yield None
            else:
                yield found


class _Asked:
    """The rows to come, as DataLoader wants them; set anew for every epoch."""

    def __init__(self) -> None:
        self.rows: Sequence[int] = ()

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


class _Pairs(Dataset["Pair | BrokenImage"]):
    """Runs in the workers."""

    def __init__(self, source: MaskSource, preprocess: Preprocess, weigh: Weigh | None) -> None:
        self._read = partial(_read, source, preprocess, weigh)

    def __getitem__(self, row: int) -> Pair | BrokenImage:
        return self._read(row)


def _read(
    source: MaskSource, preprocess: Preprocess, weigh: Weigh | None, row: int
) -> Pair | BrokenImage:
    try:
        sample = source[row]
    except BrokenImage as error:
        return error.bare()
    mask = preprocess.mask(sample.target)
    weight = None if weigh is None else _tensor(weigh(mask))
    return Pair(row, _tensor(preprocess.image(sample.image)), _tensor(mask), weight)


def _tensor(array: NDArray[Any]) -> Tensor:
    """Shares the array's memory where that may be written to, as PyTorch wants it."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def open_mask_store(
    source: MaskSource,
    preprocess: Preprocess,
    device: torch.device,
    *,
    weigh: Weigh | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> MaskStore:
    """Memory where the prepared pairs fit (1 GiB, a quarter of what is free), else a stream.

    Args:
        weigh: uint8 (H, W) prepared mask to float32 (H, W), how much each pixel counts.
        workers: of a stream; None: one per core.
        progress: told (read, of how many) while memory fills.

    Raises:
        OptionError: for fit "crop".
    """
    preprocess.check_masks()
    each = preprocess.channels + 1 + (4 if weigh is not None else 0)  # bytes of a pixel
    needed = each * _pixels(source, preprocess)
    if needed <= min(MEMORY_LIMIT, psutil.virtual_memory().available // 4):
        return MemoryMaskStore(source, preprocess, device, weigh, progress)
    return StreamMaskStore(source, preprocess, cores() if workers is None else workers, weigh)


def _pixels(source: MaskSource, preprocess: Preprocess) -> float:
    """About how many pixels all prepared images have together."""
    if preprocess.fit != "same":
        return len(source) * preprocess.height * preprocess.width
    counts = []
    for row in np.linspace(0, len(source) - 1, min(len(source), SIZES_READ)).astype(int).tolist():
        try:
            counts.append(int(np.prod(source.size(row)[1:])))
        except BrokenImage:
            continue  # the store will say so
    return len(source) * float(np.mean(counts)) if counts else 0.0
