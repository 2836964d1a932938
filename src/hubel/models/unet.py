"""U-Net: down to where it sees much, up to where it sees sharply, with the maps of every level
handed across.

Ronneberger, Fischer, Brox 2015, "U-Net: convolutional networks for biomedical image segmentation".

`unet` is the paper's net: 3x3 convolutions without padding, which give scores for 388 x 388 pixels
from 572 x 572; 2x2 pools; 2x2 up-convolutions that halve the maps; the maps of the way down,
cropped, joined to those of the way up; dropout at the end of the way down (behind its last two
levels). As no output has seen a border, an image is segmented whole or tile by tile with the same
result; what lies outside of an image is its mirrored self. 31,030,658 weights from one channel to
two classes. `unet_padded` is the form in common use: padded convolutions with batch norm, and any
classifier's body for the way down.

The paper draws from N(0, 2 / fan-in); here up-convolutions, which no ReLU follows, have 1 / fan-in.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from hubel.errors import ModelError
from hubel.models.body import Body
from hubel.models.check import share, whole, yes_no
from hubel.models.margin import Pair, cut, mirrored, size_of
from hubel.models.upsampling import Upsample

TILE = 24  # places a side of a tile's deepest map: 324 pixels of scores in the paper's net


def _two(maps_in: int, maps: int, padding: int, norm: bool) -> nn.Sequential:
    """Two 3x3 convolutions, each with ReLU; batch norm between, if wanted."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, before in (("1", maps_in), ("2", maps)):
        layers[f"conv{number}"] = nn.Conv2d(before, maps, 3, padding=padding, bias=not norm)
        if norm:
            layers[f"bn{number}"] = nn.BatchNorm2d(maps)
        layers[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(layers)


class UNet(nn.Module):
    """The paper's net: float (N, C, H, W) of any size -> logits (N, classes, H, W).

    Args:
        width: maps of the first level; they double on the way down.
        depth: pools.
        norm: batch norm behind every 3x3 convolution (the paper has none).
        dropout: share silenced behind the last two levels of the way down.

    Attributes:
        margin: pixels at each side that only serve as context: 92 for the paper's depth of 4.
        block: 2^depth pixels; tiles are the same as the whole where they begin at its multiples.
    """

    def __init__(
        self, *, classes: int, channels: int, width: int, depth: int, norm: bool, dropout: float
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        before = [channels, *widths]
        self.block = 2**depth
        self.shrinks = (4 * (2 * self.block - 1), 4 * (self.block - 1))  # on the ways down and up
        self.margin = sum(self.shrinks) // 2
        self.down = nn.ModuleList(_two(before[i], widths[i], 0, norm) for i in range(depth))
        self.pools = nn.ModuleList(nn.MaxPool2d(2) for _ in range(depth))
        self.bottom = _two(before[depth], widths[depth], 0, norm)
        self.dropout1, self.dropout2 = nn.Dropout(dropout), nn.Dropout(dropout)
        up = widths[::-1]
        self.up = nn.ModuleList(Upsample("transposed", 2, maps=(2 * w, w)) for w in up[1:])
        self.merge = nn.ModuleList(_two(2 * w, w, 0, norm) for w in up[1:])
        self.score = nn.Conv2d(width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """float (N, C, H, W) -> logits (N, classes, H, W)."""
        size = size_of(images)
        return cut(self.valid(self._framed(images, self._places(size))), size)

    def valid(self, images: Tensor) -> Tensor:
        """Without borders: float (N, C, H, W) -> logits (N, classes, H - 2 margin, W - 2 margin).

        Raises `ModelError` for a side that does not halve evenly at every pool: those that do are
        16 b + 124 for b = 4, 5, ... in the paper's net, 572 among them.
        """
        self._fits(size_of(images))
        handed, x = [], images
        for number, (level, pool) in enumerate(zip(self.down, self.pools, strict=True), start=1):
            x = level(x)
            x = self.dropout1(x) if number == len(self.down) else x
            handed.append(x)
            x = pool(x)
        x = self.dropout2(self.bottom(x))
        for up, merge, across in zip(self.up, self.merge, reversed(handed), strict=True):
            x = up(x)
            x = torch.cat([cut(across, size_of(x), (across.shape[2] - x.shape[2]) // 2), x], dim=1)
            x = merge(x)
        return self.score(x)  # type: ignore[no-any-return]

    def by_tiles(self, images: Tensor, tile: int = TILE) -> Tensor:
        """What `forward` gives, tile by tile (the paper's overlap-tile strategy): (N, C, H, W) ->
        (N, classes, H, W) in the memory of one tile.

        Args:
            tile: places a side of a tile's deepest map; as many as the net needs, at least.
        """
        height, width = size_of(images)
        needed = max(self._places((height, width)))
        tile = max(min(tile, needed), self._places((self.block, 1))[0])
        good = (self.block * tile - self.shrinks[1]) // self.block * self.block
        wide = self._framed(images, self._places((height + good, width + good)))
        side = self.block * tile + self.shrinks[0]
        rows = [
            torch.cat(
                [
                    cut(self.valid(wide[..., y : y + side, x : x + side]), (good, good))
                    for x in range(0, width, good)
                ],
                dim=3,
            )
            for y in range(0, height, good)
        ]
        return cut(torch.cat(rows, dim=2), (height, width))

    def _places(self, size: Pair) -> Pair:
        """The deepest map, (b, b'), that scores for at least `size` need."""
        rows, columns = (-(-(n + self.shrinks[1]) // self.block) for n in size)
        return rows, columns

    def _framed(self, images: Tensor, places: Pair) -> Tensor:
        """The image in its mirrored surroundings, as large as a deepest map of `places` needs."""
        more = [
            self.block * p + self.shrinks[0] - self.margin - n
            for p, n in zip(places, size_of(images), strict=True)
        ]
        return mirrored(images, self.margin, more[0], self.margin, more[1])

    def _fits(self, size: Pair) -> None:
        least = self._places((1, 1))[0]
        for side in size:
            places = (side - self.shrinks[0]) / self.block
            if places < least or places != int(places):
                below = self.block * max(least, int(places)) + self.shrinks[0]
                raise ModelError(
                    f"without borders a side must be one of {below}, {below + self.block}, ... "
                    f"({self.block} b + {self.shrinks[0]}), given {side}"
                )


class Encoder(nn.Module):
    """The way down with padding: float (N, C, H, W) -> maps at strides 1, 2, 4, ..., finest first.

    Attributes:
        strides, widths: of the maps.
    """

    def __init__(self, channels: int, width: int, depth: int, norm: bool) -> None:
        super().__init__()
        self.strides = tuple(2**level for level in range(depth + 1))
        self.widths = tuple(width * stride for stride in self.strides)
        before = (channels, *self.widths)
        self.levels = nn.ModuleList(_two(a, b, 1, norm) for a, b in zip(before, self.widths))  # noqa: B905
        self.pools = nn.ModuleList(nn.MaxPool2d(2, ceil_mode=True) for _ in range(depth))

    def forward(self, images: Tensor) -> list[Tensor]:
        """float (N, C, H, W) -> maps (N, widths[i], ceil(H / strides[i]), ...)."""
        maps = [self.levels[0](images)]
        for pool, level in zip(self.pools, list(self.levels)[1:], strict=True):
            maps.append(level(pool(maps[-1])))
        return maps


class Rise(nn.Module):
    """A level up: twice the size, the map of the way down joined to it, two 3x3 convolutions."""

    def __init__(self, maps_in: int, across: int, maps: int, norm: bool) -> None:
        super().__init__()
        self.up = Upsample("bilinear", 2)
        self.merge = _two(maps_in + across, maps, 1, norm)

    def forward(self, x: Tensor, across: Tensor | None, size: Pair) -> Tensor:
        """(N, C, h, w), and (N, C', *size) or None -> (N, maps, *size)."""
        x = self.up(x, size=size)
        joined = x if across is None else torch.cat([across, x], dim=1)
        return self.merge(joined)  # type: ignore[no-any-return]


class PaddedUNet(nn.Module):
    """float (N, C, H, W) of any size -> logits (N, classes, H, W).

    Args:
        body: what goes down: maps at rising strides, see `Body`.
        width: maps at full size; twice as many with every halving.
    """

    def __init__(self, body: Encoder | Body, *, classes: int, width: int, norm: bool) -> None:
        super().__init__()
        self.body = body
        below, rises = body.widths[-1], []
        across = dict(zip(body.strides, body.widths, strict=True))
        for stride in _halved(body.strides[-1]):
            rises.append(Rise(below, across.get(stride, 0), width * stride, norm))
            below = width * stride
        self.rises = nn.ModuleList(rises)
        self.score = nn.Conv2d(below, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """float (N, C, H, W) -> logits (N, classes, H, W)."""
        height, width = size_of(images)
        found = self.body(images)
        maps = dict(zip(self.body.strides, found, strict=True))
        x = found[-1]
        for stride, rise in zip(_halved(self.body.strides[-1]), self.rises, strict=True):
            x = rise(x, maps.get(stride), (-(-height // stride), -(-width // stride)))
        return self.score(x)  # type: ignore[no-any-return]


def _halved(stride: int) -> list[int]:
    """The strides below, down to 1."""
    return [stride >> step for step in range(1, stride.bit_length())]


def unet(
    *,
    classes: int,
    channels: int,
    size: Pair,
    width: int = 64,
    depth: int = 4,
    norm: bool = False,
    dropout: float = 0.5,
) -> UNet:
    """The paper's U-Net."""
    return UNet(
        classes=classes,
        channels=channels,
        width=whole("width", width),
        depth=whole("depth", depth),
        norm=yes_no("norm", norm),
        dropout=share("dropout", dropout),
    )


def unet_padded(
    *,
    classes: int,
    channels: int,
    size: Pair,
    body: str | None = None,
    width: int | None = None,
    depth: int = 4,
    norm: bool = True,
) -> PaddedUNet:
    """U-Net with padded convolutions and batch norm.

    Args:
        body: a classifier whose body goes down ("resnet18"); None: a way down like the way up.
        width: maps at full size; 32 unless said, 16 with a body.
        depth: pools, where there is no `body`.
    """
    usual = 32 if body is None else 16
    wide = whole("width", usual if width is None else width)
    with_norm = yes_no("norm", norm)
    own = Encoder(channels, wide, whole("depth", depth), with_norm) if body is None else None
    return PaddedUNet(own or Body(str(body), channels), classes=classes, width=wide, norm=with_norm)
