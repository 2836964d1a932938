"""Batches of images with masks: windows to learn from, whole images to be judged by.

Image and mask go the same way (`data/warp.py`): windows are cut at random, then moved as `Augment`
says; colours change and squares are erased on the image alone, its labels stay. As in
`data/feed.py`, all chance has an address, and any batch of any epoch can be made again at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from hubel.data.augment import named
from hubel.data.feed import Feed
from hubel.data.mask_store import (
    MaskStore,
    MemoryMaskStore,
    Pair,
    Size,
    StreamMaskStore,
    open_mask_store,
)
from hubel.data.order import uniform
from hubel.data.record import Batch
from hubel.data.warp import (
    affine,
    corner,
    cut,
    cut_labels,
    flipped,
    margin,
    sampling_grid,
    warped,
)
from hubel.errors import OptionError

__all__ = ["MaskFeed", "MaskStore", "MemoryMaskStore", "StreamMaskStore", "open_mask_store"]


@dataclass
class MaskFeed(Feed):
    """Batches of some rows of a store of masks.

    Shuffled, for training: windows of the preprocessing's height x width, cut anywhere in the
    image with equal chance (of the whole prepared image where the fit brings all to that size).
    What lies outside the image is mirrored, labels too, unless the image is smaller than the
    window: then it has no label. Otherwise, for judging: whole images; neighbours of one size
    share a batch, of at most `batch` images and as many pixels as `batch` windows have, but for
    an image that has more by itself.

    Targets of its batches are int64 (N, h, w), or float32 (N, 2, h, w), label and weight, where
    the store weighs pixels.

    Attributes:
        windows: cut from each image in an epoch, in training.
        store, rows, batch, device, seed, shuffle, augment, rank, world: as a `Feed` has them.
        targets, classes: of the source; whole images have no class.

    Raises:
        OptionError: mixup, which has no meaning for labels of pixels; fewer windows than 1.
    """

    store: MaskStore
    targets: Tensor = field(init=False)
    classes: int = field(init=False)
    windows: int = 1

    def __post_init__(self) -> None:
        self.targets = torch.from_numpy(self.store.source.targets)
        self.classes = len(self.store.source.classes)
        if self.augment.mixup:
            raise OptionError(
                f"mixup blends labels of whole images, not masks: leave it out of "
                f"'{self.augment}'; all other augmentations are allowed"
            )
        if self.windows < 1:
            raise OptionError(f"windows must be 1 or more, given {self.windows}")

    def __len__(self) -> int:
        """Batches in an epoch: of a shuffled feed as `Feed` counts them."""
        return super().__len__() if self.shuffle else len(self._alike())

    def batches(self, epoch: int = 0, skip: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from number `skip` on."""
        order = self._order(epoch)[skip:]
        pairs = self.store.pairs([row for rows in order for row in rows.tolist()])
        for number, rows in enumerate(order, start=skip):
            asked = list(islice(pairs, len(rows)))
            found = [place for place, pair in enumerate(asked) if pair is not None]
            if found:
                if self.shuffle:
                    images, targets = self._windows(asked, found, epoch, number)
                else:
                    images, targets = self._stacked([pair for pair in asked if pair is not None])
                floats = self.store.preprocess.normalise(images)
                yield Batch(floats, _as_targets(targets), rows[found], number)

    def _visits(self) -> int:
        return len(self.rows) * self.windows

    def _order(self, epoch: int) -> list[Tensor]:
        if self.shuffle:
            return super()._order(epoch)
        return [group[self.rank :: self.world] for group in self._alike()]

    def _alike(self) -> list[Tensor]:
        """The rows as they stand, in groups of one size; without those whose header is broken."""
        groups: list[list[int]] = []
        last: Size | None = None
        pixels = self.batch * self.store.preprocess.height * self.store.preprocess.width
        for row in self.rows.tolist():
            size = self.store.size(row)
            if size is None:
                continue
            most = max(1, min(self.batch, pixels // (size[0] * size[1])))
            if size != last or len(groups[-1]) == most:
                groups.append([])
            groups[-1].append(row)
            last = size
        return [torch.tensor(group) for group in groups]

    @property
    def _window(self) -> Size:
        return self.store.preprocess.height, self.store.preprocess.width

    def _windows(
        self, asked: list[Pair | None], found: list[int], epoch: int, number: int
    ) -> tuple[Tensor, Tensor]:
        """A window of each pair that was found, as `_stacked` has them."""
        # Drawn for all that were asked for: a broken one leaves the others as they are.
        mine = self._places(number, len(asked))
        chances = self._chances(epoch, mine)[:, found]
        places = uniform(2, mine, self.seed, "window", epoch)[:, found]
        draws = named(chances)
        steps = torch.stack(self.augment.steps(draws), dim=1)
        border = (0, 0)
        if self.augment.warps:
            border = margin(self.augment.motion(draws), self._window)
        cuts = [
            self._cut(pair, place, step, border)
            for pair, place, step in zip(
                (pair for pair in asked if pair is not None),
                places.T.tolist(),
                steps.tolist(),
                strict=True,
            )
        ]
        images, targets = self._stacked(cuts)
        draws = named(chances.to(self.device))
        images, targets = self._moved(images, targets, draws)
        return self.augment.recoloured(images, draws, self._fill()), targets

    def _cut(self, pair: Pair, place: list[float], step: list[int], border: Size) -> Pair:
        """What a window is made from: the window and what may come in around it."""
        window = self._window
        wide = (window[0] + 2 * border[0], window[1] + 2 * border[1])
        top, left = (
            corner(pair.size[axis], window[axis], place[axis]) + step[axis] - border[axis]
            for axis in (0, 1)
        )
        mirrored = pair.size[0] >= window[0] and pair.size[1] >= window[1]
        return Pair(
            pair.row,
            cut(pair.image, top, left, wide),
            cut_labels(pair.mask, top, left, wide, mirrored=mirrored),
            None if pair.weight is None else cut(pair.weight, top, left, wide),
        )

    def _stacked(self, pairs: list[Pair]) -> tuple[Tensor, Tensor]:
        """Pairs of one size, on the feed's device: images uint8 (n, C, h, w), and what is said of
        their pixels, uint8 (n, 1, h, w), or float32 (n, 2, h, w) with weights."""
        images = torch.stack([pair.image for pair in pairs])
        targets = torch.stack([pair.mask for pair in pairs])[:, None]
        if self.store.weighed:
            weights = [pair.weight for pair in pairs if pair.weight is not None]
            targets = torch.cat([targets, torch.stack(weights)[:, None]], dim=1)
        return images.to(self.device), targets.to(self.device)

    def _moved(
        self, images: Tensor, targets: Tensor, draws: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The windows themselves, from all that may come into them."""
        if not self.augment.warps:  # nothing lies between pixels: they come through bit by bit
            down, across = self.augment.mirrors(draws)
            return flipped(images, down, across), flipped(targets, down, across)
        wide = (images.shape[-2], images.shape[-1])
        motion = self.augment.motion(draws)
        theta = affine(motion, self._window, wide)
        return warped(images, targets, sampling_grid(theta, motion.bend, self._window, wide))


def _as_targets(targets: Tensor) -> Tensor:
    """(n, 1, h, w) to int64 (n, h, w); (n, 2, h, w) as it is."""
    return targets[:, 0].long() if targets.shape[1] == 1 else targets
