"""Large images through segmentation nets: window by window, blended, in bounded memory.

Windows overlap. In the middle half of the overlap probabilities are mixed, the weights falling
linearly from one window to the other; its outer quarters, where one of the two knew least of the
surroundings, are the other's alone. At the image's borders windows reach beyond it, over its own
reflection (the overlap-tile strategy of Ronneberger et al. 2015).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hubel.errors import ModelError, OptionError
from hubel.models.margin import mirrored

WHOLE = 1 << 20  # pixels up to which an image is taken whole: 1024 x 1024
TINY = torch.finfo(torch.float32).tiny  # keeps the logarithm of a vanished probability finite


@dataclass(frozen=True)
class Tiles:
    """How large images are cut.

    Attributes:
        window: pixels a side of what the net is shown at a time.
        overlap: pixels that neighbouring windows share at least. Four times as many as the net
            sees around a pixel, and no cut changes an answer; less, and cuts are smooth.
        mirror: pixels of reflection beyond the image's borders; 0 leaves borders to the net.

    Raises `OptionError` unless 0 <= overlap < window and mirror >= 0.
    """

    window: int = 1024
    overlap: int = 128
    mirror: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.window or self.mirror < 0:
            raise OptionError(
                "the overlap must be 0 or more and less than the window, the mirror 0 or more; "
                f"given {self.overlap}, {self.window} and {self.mirror}"
            )


@dataclass(frozen=True, eq=False)
class Piece:
    """One window along one axis.

    Attributes:
        start, stop: its pixels; they may lie beyond the image.
        first, last: those of them that are the image's.
        share: float32 (last - first,), its part in what is said of them; all pieces add up to 1.
    """

    start: int
    stop: int
    first: int
    last: int
    share: Tensor


def pieces(length: int, tiles: Tiles) -> list[Piece]:
    """The windows along an axis of `length` pixels, evenly spread.

    An axis that fits into one window gets one; with reflection where that fits in as well.
    """
    fits = length <= tiles.window
    mirror = 0 if fits and length + 2 * tiles.mirror > tiles.window else tiles.mirror
    room = length + 2 * mirror
    window = min(tiles.window, room)
    count = math.ceil((room - tiles.overlap) / (tiles.window - tiles.overlap))
    starts = [0] if room == window else [k * (room - window) // (count - 1) for k in range(count)]
    shares = torch.zeros(len(starts), room, dtype=torch.float64)
    for share, start in zip(shares, starts, strict=True):
        share[start : start + window] = _weights(window, tiles.overlap, start, room)
    shares = (shares / shares.sum(dim=0)).float()
    found = []
    for share, start in zip(shares, starts, strict=True):
        begin, end = start - mirror, start - mirror + window
        first, last = max(begin, 0), min(end, length)
        if first < last:  # a narrow window may lie in the reflection altogether
            found.append(Piece(begin, end, first, last, share[first + mirror : last + mirror]))
    return found


def _weights(window: int, overlap: int, start: int, room: int) -> Tensor:
    """How much is given on a window's pixels, float64 (window,): nothing on the outer quarter of
    an overlap, all from its inner quarter on; all at the ends of the room too."""
    outer = overlap // 4
    steps = torch.arange(window, dtype=torch.float64)
    rising = ((steps - outer + 1) / (overlap - 2 * outer + 1)).clamp(0, 1)
    whole = torch.ones(window, dtype=torch.float64)
    left = whole if start == 0 else rising
    right = whole if start + window == room else rising.flip(0)
    return torch.minimum(left, right)


def blocks(
    chances: Callable[[Tensor], Tensor], image: Tensor, tiles: Tiles
) -> Iterator[tuple[int, int, Tensor]]:
    """(row, column, probabilities (K, h, w)) of finished blocks: line by line, left to right.

    Of one line of windows no more is held than the part that the next line overlaps.

    Args:
        chances: (1, C, h, w) -> probabilities (1, K, h, w); as large as the window or less.
        image: (C, H, W), of whatever type and device `chances` takes.
    """
    lines, columns = (pieces(length, tiles) for length in image.shape[1:])
    above: Tensor | None = None  # what the line above said of pixels that this line sees as well
    for line, ready in zip(lines, _ends(lines), strict=True):
        below, left = [], None
        for column, done in zip(columns, _ends(columns), strict=True):
            said = _weighed(chances, image, line, column)
            if left is not None:
                said[:, :, : left.shape[2]] += left
            left = said[:, :, done - column.first :]
            part = said[:, :, : done - column.first]
            if above is not None:
                part[:, : above.shape[1]] += above[:, :, column.first : done]
            yield line.first, column.first, part[:, : ready - line.first]
            below.append(part[:, ready - line.first :].clone())  # lets go of the window
        above = torch.cat(below, dim=2)


def bands(
    chances: Callable[[Tensor], Tensor],
    image: Tensor,
    tiles: Tiles,
    read: Callable[[Tensor], Tensor],
) -> Iterator[Tensor]:
    """Finished bands (..., h, W) of an image (C, H, W), from top to bottom; together H rows.

    Args:
        chances: as `blocks` has it.
        read: what is kept of probabilities (K, h, w): (..., h, w), their labels for one. Nothing
            of the size K x H x W is held, nor K times a band where `read` drops the K.
    """
    line: list[Tensor] = []
    for _, column, block in blocks(chances, image, tiles):
        line.append(read(block))
        if column + block.shape[2] == image.shape[2]:
            if block.shape[1]:
                yield torch.cat(line, dim=-1)
            line = []


def probabilities(outputs: Any, size: tuple[int, int]) -> Tensor:
    """What a segmentation net returned, as float32 (N, K, *size).

    Args:
        outputs: logits (N, K, h, w), or a dict with them under "logits"; brought to `size`
            bilinearly, corners not aligned, where they are smaller.

    Raises `ModelError` for anything else.
    """
    z = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    if not isinstance(z, Tensor) or z.ndim != 4:
        given = f"shape {tuple(z.shape)}" if isinstance(z, Tensor) else f"a {type(z).__name__}"
        raise ModelError(
            f"a segmentation net must return logits (N, classes, H, W); it returned {given}"
        )
    z = z.float()
    if tuple(z.shape[2:]) != size:
        z = F.interpolate(z, size=size, mode="bilinear", align_corners=False)
    return z.softmax(dim=1)


def logarithm(chances: Tensor) -> Tensor:
    """float32 probabilities (N, K, H, W), or of any shape -> their logarithms, at least -87.3."""
    return chances.clamp_min(TINY).log()


class Tiled(nn.Module):
    """A segmentation net that takes images of any size: large ones by tiles.

    (N, C, H, W) -> logits (N, K, H, W): the net's own up to `whole` pixels, beyond them the
    logarithm of the blended probabilities, float32.
    """

    def __init__(self, model: nn.Module, tiles: Tiles = Tiles(), whole: int = WHOLE) -> None:
        super().__init__()
        self.model, self.tiles, self.whole = model, tiles, whole

    def forward(self, images: Tensor) -> Any:
        if images.shape[2] * images.shape[3] <= self.whole:
            return self.model(images)
        return torch.stack([self._one(image) for image in images])

    def chances(self, window: Tensor) -> Tensor:
        """Probabilities float32 (1, K, h, w) of a window (1, C, h, w)."""
        return probabilities(self.model(window), (window.shape[2], window.shape[3]))

    def _one(self, image: Tensor) -> Tensor:
        return torch.cat(list(bands(self.chances, image, self.tiles, logarithm)), dim=1)


def _ends(some: list[Piece]) -> list[int]:
    """Up to which pixel nothing more will be said, once each piece has been heard."""
    return [*(piece.first for piece in some[1:]), some[-1].last]


def _weighed(
    chances: Callable[[Tensor], Tensor], image: Tensor, line: Piece, column: Piece
) -> Tensor:
    """(K, h, w) of one window's image pixels, times its shares in them."""
    inner = image[None, :, line.first : line.last, column.first : column.last]
    top, left = line.first - line.start, column.first - column.start
    found = chances(mirrored(inner, top, line.stop - line.last, left, column.stop - column.last))
    height, width = inner.shape[2:]
    found = found[0, :, top : top + height, left : left + width]
    shares = line.share[:, None] * column.share
    return found * shares.to(found.device)
