"""Stores: where prepared images wait until a batch asks for them.

As uint8, already at the model's size: in memory (on the training device) where they fit, else with
worker processes that decode them as they are needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hubel.data.ahead import read_ahead
from hubel.data.cores import cores
from hubel.data.preprocess import Preprocess
from hubel.data.record import ArraySource, Source
from hubel.errors import BrokenImage, OptionError

MEMORY_LIMIT = 1 << 30  # bytes of uint8 images that may live in memory, if a quarter of it is free


class Store(ABC):
    """Where prepared images (uint8, model's size) come from. `broken` fills as they are met."""

    def __init__(self, source: Source, preprocess: Preprocess) -> None:
        self.source = source
        self.preprocess = preprocess
        self.broken: dict[int, BrokenImage] = {}

    @abstractmethod
    def fetch(self, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each int64 tensor of rows: (images uint8 (n, C, H, W), the rows that were whole)."""


class MemoryStore(Store):
    """All images at once, as one uint8 tensor on the training device."""

    def __init__(
        self,
        source: Source,
        preprocess: Preprocess,
        device: torch.device,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__(source, preprocess)
        images = self._load(progress)
        self.images = torch.from_numpy(images).to(device)
        self._whole = torch.ones(len(source), dtype=torch.bool)
        self._whole[list(self.broken)] = False

    def fetch(self, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for asked in order:
            rows = asked[self._whole[asked]] if self.broken else asked
            yield self.images.index_select(0, rows.to(self.images.device)), rows

    def _load(self, progress: Callable[[int, int], None] | None) -> NDArray[np.uint8]:
        shape = (self.preprocess.channels, self.preprocess.height, self.preprocess.width)
        if isinstance(self.source, ArraySource) and self.source.images.shape[1:] == shape:
            return self.source.images
        images = np.zeros((len(self.source), *shape), dtype=np.uint8)
        read = partial(_read, self.source, self.preprocess)
        with ThreadPoolExecutor(cores()) as pool:
            for row, found in enumerate(pool.map(read, range(len(self.source)))):
                if isinstance(found, BrokenImage):
                    self.broken[row] = found
                else:
                    images[row] = found
                if progress is not None:
                    progress(row + 1, len(self.source))
        return images


class StreamStore(Store):
    """Images decoded by worker processes, a few batches ahead."""

    def __init__(self, source: Source, preprocess: Preprocess, workers: int) -> None:
        super().__init__(source, preprocess)
        self._order = _Order()
        self._loader: DataLoader[_Fetched] = read_ahead(
            self,
            _Rows(source, preprocess),
            workers,
            batch_sampler=self._order,
            pin_memory=torch.cuda.is_available(),
        )

    def fetch(self, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        self._order.batches = order
        for images, rows, broken in self._loader:
            self.broken.update(broken)
            yield images, rows


_Fetched = tuple[Tensor, Tensor, list[tuple[int, BrokenImage]]]


class _Order:
    """The rows of the batches to come, as DataLoader wants them; set anew for every epoch."""

    def __init__(self) -> None:
        self.batches: Sequence[Tensor] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return (rows.tolist() for rows in self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Rows(Dataset[_Fetched]):
    """Runs in the workers: a whole batch of rows per call."""

    def __init__(self, source: Source, preprocess: Preprocess) -> None:
        self._read = partial(_read, source, preprocess)
        self._shape = (preprocess.channels, preprocess.height, preprocess.width)

    def __getitems__(self, rows: list[int]) -> _Fetched:
        found = [(row, self._read(row)) for row in rows]
        whole = [(row, image) for row, image in found if not isinstance(image, BrokenImage)]
        broken = [(row, error) for row, error in found if isinstance(error, BrokenImage)]
        images = np.empty((len(whole), *self._shape), dtype=np.uint8)
        for place, (_, image) in enumerate(whole):
            images[place] = image
        return torch.from_numpy(images), torch.tensor([row for row, _ in whole]).long(), broken


def _read(source: Source, preprocess: Preprocess, row: int) -> NDArray[np.uint8] | BrokenImage:
    try:
        return preprocess.image(source[row].image)
    except BrokenImage as error:
        return error.bare()


def open_store(
    source: Source,
    preprocess: Preprocess,
    device: torch.device,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Store:
    """Memory where the prepared images fit (1 GiB, a quarter of what is free), else a stream.

    Raises `OptionError` for fit "same": images of several sizes make no batch.
    """
    if preprocess.fit == "same":
        raise OptionError(
            "fit 'same' is for masks: images that are named as a whole must come to one size. "
            "allowed: stretch, crop, pad"
        )
    needed = len(source) * preprocess.channels * preprocess.height * preprocess.width
    if needed <= min(MEMORY_LIMIT, psutil.virtual_memory().available // 4):
        return MemoryStore(source, preprocess, device, progress)
    return StreamStore(source, preprocess, cores() if workers is None else workers)
