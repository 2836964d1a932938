"""One window, one pixel: a classifier of patches, moved over every pixel of the image.

Ciresan, Giusti, Gambardella, Schmidhuber 2012, "Deep neural networks segment neuronal membranes in
electron microscopy images": convolutions of 48 maps and 2x2 pools, a fully connected layer of 200,
and the classes; the window's middle pixel gets the answer, and images are mirrored at their
borders. With window 95 the stages are the paper's largest net's (4x4, 5x5, 4x4, 4x4; maps of 46,
21, 9, 3). For other windows the first kernel that lets the pool divide its map, 4 or 5, up to four
times. Non-linearities are ReLUs.

`by_windows` cuts every window out and classifies it. `forward` gives the same numbers from the
whole image at once: where a pool of stride 2 would skip every second place, the pool moves by one
and all that follows looks twice as far apart ("dilation"; Giusti et al. 2013 compute the same by
fragments of maps).

Foveation (section 2.3 of the paper, there with a random net of the retina; here by bells alone):
the window is sharp in its middle and ever smoother towards its corners, so that the net sees
context without its details. The smoothing differs from window to window, so there is nothing to
share and `forward` goes window by window, in pieces of bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hubel.errors import ModelError
from hubel.models.check import whole, yes_no
from hubel.models.dense import DenseConv2d, DensePool2d
from hubel.models.initialise import he
from hubel.models.margin import Pair, framed, size_of
from hubel.models.smoothing import bell, smoothed

STAGES = 4
CHUNK = 1 << 24  # numbers in the windows of one piece: 64 MiB in float32
BELLS = (0.0, 1.0, 2.0, 4.0)  # deviations in pixels, from the middle of the window to its corners
FIRST = 0.01  # deviation of the score layer's first weights
SHARP = 0.25  # of the way to the corners, the middle stays as it is


class SlidingWindow(nn.Module):
    """float (N, C, H, W) of any size -> logits (N, classes, H, W).

    Args:
        window: pixels a side of what a pixel's class is decided from; odd, at least 5.
        width: maps of every convolution.
        hidden: units of the fully connected layer.
        foveation: smoother towards the corners.
    """

    def __init__(
        self, *, classes: int, channels: int, window: int, width: int, hidden: int, foveation: bool
    ) -> None:
        super().__init__()
        self.window, self.foveation = window, foveation
        kernels = _kernels(window)
        before = [channels] + [width] * (len(kernels) - 1)
        self.convs = nn.ModuleList(
            DenseConv2d(maps, width, k) for maps, k in zip(before, kernels, strict=True)
        )
        self.relus = nn.ModuleList(nn.ReLU() for _ in kernels)
        self.pools = nn.ModuleList(DensePool2d() for _ in kernels)
        self.fc = DenseConv2d(width, hidden, _left(window, kernels))
        self.relu = nn.ReLU()
        self.score = nn.Conv2d(hidden, classes, 1)

    def initialise(self) -> None:
        """Draw new weights: He's rule; scores small, for pools of maxima have made them large."""
        he(self)
        nn.init.normal_(self.score.weight, std=FIRST)

    def forward(self, images: Tensor) -> Tensor:
        """float (N, C, H, W) -> logits (N, classes, H, W)."""
        if self.foveation:
            return self.by_windows(images)
        x, rate = framed(images, self.window // 2), 1
        for conv, relu, pool in zip(self.convs, self.relus, self.pools, strict=True):
            x = pool(relu(conv(x, rate)), rate)
            rate *= 2
        return self.score(self.relu(self.fc(x, rate)))  # type: ignore[no-any-return]

    def by_windows(self, images: Tensor) -> Tensor:
        """The same, window by window: (N, C, H, W) -> (N, classes, H, W)."""
        height, width = size_of(images)
        pieces = [
            checkpoint(self.classify, windows, use_reentrant=False)
            if torch.is_grad_enabled()
            else self.classify(windows)
            for windows in self._windows(images)
        ]
        flat = torch.cat(pieces).view(len(images), height, width, -1)
        return flat.permute(0, 3, 1, 2).contiguous()

    def classify(self, windows: Tensor) -> Tensor:
        """The classifier of patches by itself: (M, C, window, window) -> logits (M, classes)."""
        x = windows
        for conv, relu in zip(self.convs, self.relus, strict=True):
            x = F.max_pool2d(relu(conv(x)), 2)
        return self.score(self.relu(self.fc(x))).flatten(1)  # type: ignore[no-any-return]

    def _windows(self, images: Tensor) -> Iterator[Tensor]:
        """Every window, image by image and row by row, in pieces (M, C, window, window)."""
        levels = [smoothed(images, bell(b)) for b in BELLS] if self.foveation else [images]
        wide = [framed(level, self.window // 2) for level in levels]
        shares = self._shares(images) if self.foveation else [torch.ones_like(images[0, 0, 0, 0])]
        height, width = size_of(images)
        piece = max(1, CHUNK // (images.shape[1] * self.window**2))
        places = [(n, y) for n in range(len(images)) for y in range(height)]
        for n, y in places:
            for x in range(0, width, piece):
                last = min(x + piece, width)
                cuts = (
                    level[n, :, y : y + self.window, x : last + self.window - 1]
                    .unfold(2, self.window, 1)
                    .permute(2, 0, 1, 3)
                    for level in wide
                )
                yield torch.stack([c * s for c, s in zip(cuts, shares, strict=True)]).sum(0)

    def _shares(self, like: Tensor) -> list[Tensor]:
        """How much of each smoothed image every pixel of a window shows: (window, window) each."""
        middle = self.window // 2
        line = (torch.arange(self.window, device=like.device) - middle).to(like) / middle
        far = (line[:, None].square() + line.square()).sqrt() / 2**0.5  # 1 in the corners
        level = ((far - SHARP) / (1 - SHARP)).clamp(min=0) * (len(BELLS) - 1)
        return [(1 - (level - number).abs()).clamp(min=0) for number in range(len(BELLS))]


def _kernels(window: int) -> list[int]:
    """The kernel of every stage: 4 on maps of odd sides, 5 on even ones, so that pools divide."""
    kernels: list[int] = []
    side = window
    while side > 4 and len(kernels) < STAGES:
        kernels.append(4 if side % 2 else 5)
        side = (side - kernels[-1] + 1) // 2
    return kernels


def _left(window: int, kernels: list[int]) -> int:
    """The side of the last map."""
    for kernel in kernels:
        window = (window - kernel + 1) // 2
    return window


def sliding_window(
    *,
    classes: int,
    channels: int,
    size: Pair,
    window: int = 65,
    width: int = 48,
    hidden: int = 200,
    foveation: bool = False,
) -> SlidingWindow:
    """A classifier of windows over every pixel. Raises `ModelError` for an even window."""
    if whole("window", window, 5) % 2 == 0:
        raise ModelError(f"window must be odd, so that it has a middle pixel, given {window}")
    return SlidingWindow(
        classes=classes,
        channels=channels,
        window=window,
        width=whole("width", width),
        hidden=whole("hidden", hidden),
        foveation=yes_no("foveation", foveation),
    )
