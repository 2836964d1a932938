"""Batches: from rows of a source to what the net is fed, in an order that (seed, epoch) decides.

Images wait as uint8, already at the model's size: in memory (on the training device) where they
fit, else with worker processes that decode them as they are needed. Everything random about a
batch has an address (`data/order.py`), so any batch of any epoch can be made again at once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hubel.data.augment import Augment
from hubel.data.cores import cores
from hubel.data.order import epoch_order, generator
from hubel.data.preprocess import Preprocess
from hubel.data.record import ArraySource, Batch, Source
from hubel.errors import BrokenImage

STACKED_PIXELS = 1 << 20  # pixels, and batches, that are made ready at a time at most
STACKED_BATCHES = 64
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
            yield self.images[rows.to(self.images.device)], rows

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
        self._loader: DataLoader[_Fetched] = DataLoader(
            _Rows(source, preprocess),
            batch_sampler=self._order,
            collate_fn=_as_it_is,
            num_workers=workers,
            persistent_workers=workers > 0,
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


def _as_it_is(fetched: Any) -> Any:
    return fetched


def _read(source: Source, preprocess: Preprocess, row: int) -> NDArray[np.uint8] | BrokenImage:
    try:
        return preprocess.image(source[row].image)
    except BrokenImage as error:
        return error


def open_store(
    source: Source,
    preprocess: Preprocess,
    device: torch.device,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Store:
    """Memory where the prepared images fit (1 GiB, a quarter of what is free), else a stream."""
    needed = len(source) * preprocess.channels * preprocess.height * preprocess.width
    if needed <= min(MEMORY_LIMIT, psutil.virtual_memory().available // 4):
        return MemoryStore(source, preprocess, device, progress)
    return StreamStore(source, preprocess, cores() if workers is None else workers)


@dataclass
class Feed:
    """Batches of some rows of a store.

    Attributes:
        store: where the images are.
        rows: int64 (n,), the rows of this part.
        targets: int64 (len(source),), encoded targets of the whole source.
        classes: number of classes.
        batch: images per optimiser step, over all processes together.
        device: where batches go.
        seed: of the order and the augmentation.
        shuffle: a new order each epoch; else the rows as they stand.
        augment: what is done to the images on their way.
        rank, world: this process and how many there are; each takes its share of every batch.
    """

    store: Store
    rows: Tensor
    targets: Tensor
    classes: int
    batch: int
    device: torch.device
    seed: int = 0
    shuffle: bool = False
    augment: Augment = field(default_factory=Augment)
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        """Batches in an epoch. A shuffled feed drops an incomplete last batch once there are eight
        full ones (every image is then still seen, in other epochs), and never makes one that gives
        a process fewer than two images, which batch norm could not digest."""
        full, rest = divmod(len(self.rows), self.batch)
        if self.shuffle and full and (full >= 8 or rest < 2 * self.world):
            return full
        return math.ceil(len(self.rows) / self.batch)

    def batches(self, epoch: int = 0, skip: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from number `skip` on."""
        order = self._order(epoch)[skip:]
        together = self._together()
        if together > 1:
            yield from self._by_stacks(order, epoch, skip, together)
            return
        for number, (images, rows) in enumerate(self.store.fetch(order), start=skip):
            if len(rows):
                yield self._batch(images, rows, epoch, number)

    def seen(self, batch: Batch) -> Tensor:
        """The batch's images as a person would look at them: uint8 (N, C, H, W) on the CPU."""
        return self.store.preprocess.denormalise(batch.images).cpu()

    def _order(self, epoch: int) -> list[Tensor]:
        rows = self.rows
        if self.shuffle:
            rows = rows[epoch_order(len(rows), self.seed, epoch)]
        groups = torch.split(rows, self.batch)[: len(self)]
        return [group[self.rank :: self.world] for group in groups]

    def _together(self) -> int:
        """How many batches are made at a time. Batches of small images cost PyTorch more in calls
        than in pixels; where the result is the same to the last bit, many are made in one."""
        if self.device.type != "cpu" or not self.augment.exact or self.store.broken:
            return 1
        if not isinstance(self.store, MemoryStore):
            return 1
        pixels = self.store.images[0].numel() if len(self.store.images) else 1
        return min(STACKED_PIXELS // (pixels * self.batch), STACKED_BATCHES)

    def _by_stacks(
        self, order: list[Tensor], epoch: int, skip: int, together: int
    ) -> Iterator[Batch]:
        for start in range(0, len(order), together):
            stack = order[start : start + together]
            sizes = [len(rows) for rows in stack]
            [(images, rows)] = self.store.fetch([torch.cat(stack)])
            if self.augment != Augment():
                chances = [
                    self.augment.chances(size, self._chance(epoch, skip + start + place))
                    for place, size in enumerate(sizes)
                ]
                images = self.augment.moved(images, torch.cat(chances, dim=1), self._fill())
            floats = torch.split(self.store.preprocess.normalise(images), sizes)
            targets = torch.split(self.targets[rows], sizes)
            for place, whole in enumerate(zip(floats, targets, stack, strict=True)):
                if len(whole[0]):
                    yield Batch(*whole, skip + start + place)

    def _chance(self, epoch: int, number: int) -> torch.Generator:
        return generator(self.seed, "augment", epoch, number, self.rank)

    def _fill(self) -> Tensor:
        means = self.store.preprocess.mean
        return torch.tensor([round(255 * mean) for mean in means], dtype=torch.uint8)

    def _batch(self, images: Tensor, rows: Tensor, epoch: int, number: int) -> Batch:
        images = images.to(self.device, non_blocking=True)
        targets = self.targets[rows].to(self.device, non_blocking=True)
        preprocess, draw = self.store.preprocess, None
        if self.augment != Augment():
            draw = self._chance(epoch, number)
            images = self.augment.geometry_and_colour(images, draw, self._fill())
        floats = preprocess.normalise(images)
        if draw is not None and self.augment.mixup:
            floats, targets = self.augment.mix(floats, targets, self.classes, draw)
        return Batch(floats, targets, rows, number)
