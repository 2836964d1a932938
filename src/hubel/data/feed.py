"""Batches: from rows of a source to what the net is fed, in an order that (seed, epoch) decides.

Images wait in a store (`data/store.py`). Everything random about a batch has an address
(`data/order.py`), so any batch of any epoch can be made again at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from hubel.data.augment import Augment
from hubel.data.cores import one_thread
from hubel.data.order import derive_seed, epoch_order, generator
from hubel.data.record import Batch
from hubel.data.store import MemoryStore, Store

STACKED_PIXELS = 1 << 20  # pixels, and batches, that are made ready at a time at most
STACKED_BATCHES = 256
Mover = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (images, rows, moves, values) -> views


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
        mover: makes views of images in one go, see `engine/native/views.py`; else PyTorch's
            operators do, to the same last bit.
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
    mover: Mover | None = None

    def __len__(self) -> int:
        """Batches in an epoch. A shuffled feed drops an incomplete last batch once there are eight
        full ones (every image is then still seen, in other epochs), and never makes one that gives
        a process fewer than two images, which batch norm could not digest."""
        full, rest = divmod(self._visits(), self.batch)
        if self.shuffle and full and (full >= 8 or rest < 2 * self.world):
            return full
        return math.ceil(self._visits() / self.batch)

    def batches(self, epoch: int = 0, skip: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from number `skip` on."""
        together = self._together()
        if together:
            yield from self._by_stacks(epoch, skip, together)
            return
        order = self._order(epoch)[skip:]
        for number, (images, rows) in enumerate(self.store.fetch(order), start=skip):
            if len(rows):
                yield self._batch(images, rows, order[number - skip], epoch, number)

    def seen(self, batch: Batch) -> Tensor:
        """The batch's images as a person would look at them: uint8 (N, C, H, W) on the CPU."""
        return self.store.preprocess.denormalise(batch.images).cpu()

    def _visits(self) -> int:
        """Images in an epoch."""
        return len(self.rows)

    def _order(self, epoch: int) -> list[Tensor]:
        return self._grouped(self._visited(epoch))

    def _visited(self, epoch: int) -> Tensor:
        """An epoch's rows one after the other, of all processes."""
        rows = self.rows
        if self.shuffle:
            rows = rows[epoch_order(self._visits(), self.seed, epoch) % max(len(rows), 1)]
        return rows[: len(self) * self.batch]

    def _grouped(self, rows: Tensor) -> list[Tensor]:
        """Those in batches, of which this process has its share."""
        groups = torch.split(rows, self.batch)
        return [group[self.rank :: self.world] for group in groups] if self.world > 1 else [*groups]

    def _together(self) -> int:
        """How many batches are made at a time, by one thread; 0: each by itself, by all. Batches of
        small images cost PyTorch more in calls than in pixels; where the result is the same to the
        last bit, many are made in one."""
        if self.device.type != "cpu" or not self.augment.exact or self.store.broken:
            return 0
        if not isinstance(self.store, MemoryStore) or not len(self.store.images):
            return 0
        numbers = self.store.images[0].numel() * self.batch
        least = 0 if self._mover() is None else 1
        return min(max(STACKED_PIXELS // numbers, least), STACKED_BATCHES)

    def _by_stacks(self, epoch: int, skip: int, together: int) -> Iterator[Batch]:
        visited = self._visited(epoch)
        for start in range(skip, len(self), together):
            rows = visited[start * self.batch : (start + together) * self.batch]
            sizes: int | list[int] = self.batch
            chances = None
            if self.augment != Augment():
                first = start * self.batch
                chances = self._chances(epoch, range(first, first + len(rows)))
            if self.world > 1:
                groups = self._grouped(torch.arange(len(rows)))
                sizes, mine = [len(group) for group in groups], torch.cat(groups)
                rows = rows[mine]
                chances = None if chances is None else chances[:, mine]
            with one_thread():
                stack = self._stack(rows, chances), self.targets.index_select(0, rows), rows
            cut = (torch.split(tensor, sizes) for tensor in stack)
            for number, (images, targets, own) in enumerate(zip(*cut, strict=True), start):
                if len(own):
                    yield Batch(images, targets, own, number)

    def _stack(self, rows: Tensor, chances: Tensor | None) -> Tensor:
        """Many batches' images, as `Batch` has them."""
        assert isinstance(self.store, MemoryStore)
        mover = self._mover()
        if mover is not None:
            still = torch.zeros(4, len(rows), dtype=torch.int64)
            moves = still if chances is None else self.augment.moves(chances)
            return mover(self.store.images, rows, moves, self._values)
        [(images, _)] = self.store.fetch([rows])
        if chances is not None:
            images = self.augment.moved(images, chances, self._fill())
        return self.store.preprocess.normalise(images)

    def _mover(self) -> Mover | None:
        """The mover, where it can make what these batches ask for."""
        whole = isinstance(self.store, MemoryStore) and self.store.images.is_contiguous()
        return self.mover if whole and self.augment.steps_alone else None

    @cached_property
    def _values(self) -> Tensor:
        """What becomes of each byte, and what stands outside the images: float32 (C, 257)."""
        fill = self._fill()
        every = torch.arange(256, dtype=torch.uint8).expand(len(fill), 256)
        both = torch.cat([every, fill[:, None]], dim=1)
        return self.store.preprocess.normalise(both.T[:, :, None, None])[:, :, 0, 0].T

    def _places(self, number: int, count: int) -> range:
        """Where in an epoch the `count` images of this process's share of a batch stand."""
        first = number * self.batch + self.rank
        return range(first, first + count * self.world, self.world)

    def _chances(self, epoch: int, places: range) -> Tensor:
        return self.augment.chances(places, derive_seed(self.seed, "augment", epoch))

    def _fill(self) -> Tensor:
        means = self.store.preprocess.mean
        return torch.tensor([round(255 * mean) for mean in means], dtype=torch.uint8)

    def _batch(self, images: Tensor, rows: Tensor, asked: Tensor, epoch: int, number: int) -> Batch:
        """Of the rows that were asked for, those that came."""
        images = images.to(self.device, non_blocking=True)
        targets = self.targets[rows].to(self.device, non_blocking=True)
        preprocess = self.store.preprocess
        if self.augment != Augment(mixup=self.augment.mixup):
            chances = self._chances(epoch, self._places(number, len(asked)))
            if len(rows) < len(asked):  # a broken image leaves the others in their places
                chances = chances[:, torch.isin(asked, rows)]
            images = self.augment.moved(images, chances, self._fill())
        floats = preprocess.normalise(images)
        if self.augment.mixup:
            chance = generator(self.seed, "mixup", epoch, number, self.rank)
            floats, targets = self.augment.mix(floats, targets, self.classes, chance)
        return Batch(floats, targets, rows, number)
