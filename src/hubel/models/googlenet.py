"""GoogLeNet twice: as its paper prints it, and in torchvision's form.

Szegedy et al. 2014, "Going deeper with convolutions", table 1: `googlenet_2014`. Nine inception
blocks of four branches (1x1; 3x3; 5x5; pool), response normalisation behind the first pool and
behind the third convolution, pools that round up, the mean of each map and dropout of 0.4 in front
of the classifier. While it trains, two auxiliary heads on blocks 4a and 4d (mean over 5x5 windows,
stride 3; 128 1x1 convolutions; 1024 units; dropout of 0.7) send gradient into the middle; their
losses count 0.3 (`tasks/classify.py`). 6,998,552 weights for 1000 classes, 13,378,280 with the
heads. The paper is silent about the normalisation's constants: these are Caffe's.

`googlenet` has torchvision's names and numbers (6,624,904; 13,004,888 with the heads): batch norm
and no biases in the convolutions, no response normalisation, 3x3 kernels where the paper has 5x5
(a mistake once made and kept for the trained weights' sake), dropout of 0.2, a last pool of 2x2,
and heads that any image size fits. Its trained weights want images scaled to -1..1.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hubel.models.check import share, yes_no
from hubel.models.geometry import map_size


class Maps(NamedTuple):
    """A row of the paper's table 1: how many maps each convolution of a block makes."""

    one: int
    three_reduce: int
    three: int
    five_reduce: int
    five: int
    pool: int

    @property
    def out(self) -> int:
        return self.one + self.three + self.five + self.pool


BLOCKS = {
    "3a": Maps(64, 96, 128, 16, 32, 32),
    "3b": Maps(128, 128, 192, 32, 96, 64),
    "4a": Maps(192, 96, 208, 16, 48, 64),
    "4b": Maps(160, 112, 224, 24, 64, 64),
    "4c": Maps(128, 128, 256, 24, 64, 64),
    "4d": Maps(112, 144, 288, 32, 64, 64),
    "4e": Maps(256, 160, 320, 32, 128, 128),
    "5a": Maps(256, 160, 320, 32, 128, 128),
    "5b": Maps(384, 192, 384, 48, 128, 128),
}


class Conv(nn.Sequential):
    """Convolution, batch norm in today's form, ReLU."""

    def __init__(
        self, maps_in: int, maps: int, kernel: int, stride: int = 1, *, norm: bool
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv"] = nn.Conv2d(
            maps_in, maps, kernel, stride=stride, padding=kernel // 2, bias=not norm
        )
        if norm:
            layers["bn"] = nn.BatchNorm2d(maps, eps=0.001)
        layers["relu"] = nn.ReLU()
        super().__init__(layers)


class Inception(nn.Module):
    """(N, C, H, W) -> (N, maps.out, H, W): four branches side by side."""

    def __init__(self, maps_in: int, maps: Maps, *, norm: bool) -> None:
        super().__init__()
        self.branch1 = Conv(maps_in, maps.one, 1, norm=norm)
        self.branch2 = nn.Sequential(
            Conv(maps_in, maps.three_reduce, 1, norm=norm),
            Conv(maps.three_reduce, maps.three, 3, norm=norm),
        )
        self.branch3 = nn.Sequential(
            Conv(maps_in, maps.five_reduce, 1, norm=norm),
            Conv(maps.five_reduce, maps.five, 3 if norm else 5, norm=norm),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True),
            Conv(maps_in, maps.pool, 1, norm=norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(x) for branch in branches], 1)


class Head(nn.Module):
    """An auxiliary classifier: maps (N, C, h, w) -> logits (N, classes)."""

    def __init__(
        self, maps_in: int, classes: int, pool: nn.Module, pixels: int, *, norm: bool
    ) -> None:
        super().__init__()
        self.pool = pool
        self.conv = Conv(maps_in, 128, 1, norm=norm)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(128 * pixels, 1024)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, classes)

    def forward(self, maps: Tensor) -> Tensor:
        x = self.flatten(self.conv(self.pool(maps)))
        return self.fc2(self.dropout(self.relu(self.fc1(x))))  # type: ignore[no-any-return]


class GoogLeNet(nn.Module):
    """float (N, C, H, W) -> logits (N, classes); while training with heads, a dict of
    "logits", "aux1" and "aux2", each (N, classes).

    Args:
        norm: torchvision's form (batch norm); else the paper's.
        aux: with the two auxiliary heads.
    """

    def __init__(
        self,
        name: str,
        *,
        norm: bool,
        classes: int,
        channels: int,
        size: tuple[int, int],
        aux: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.conv1 = Conv(channels, 64, 7, 2, norm=norm)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm1 = nn.Identity() if norm else _response_norm()
        self.conv2 = Conv(64, 64, 1, norm=norm)
        self.conv3 = Conv(64, 192, 3, norm=norm)
        self.norm2 = nn.Identity() if norm else _response_norm()
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        maps_in = 192
        for block, maps in BLOCKS.items():
            setattr(self, f"inception{block}", Inception(maps_in, maps, norm=norm))
            if block in ("3b", "4e"):
                kernel = 2 if norm and block == "4e" else 3
                pool = nn.MaxPool2d(kernel, 2, ceil_mode=True)
                setattr(self, "maxpool3" if block == "3b" else "maxpool4", pool)
            maps_in = maps.out
        map_size(name, nn.Sequential(self._row("conv1", "inception5b")), size)
        self.aux1, self.aux2 = (
            self._head(name, block, size, classes, norm) if aux else None for block in ("4a", "4d")
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(maps_in, classes)

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        """float (N, C, H, W) -> logits (N, classes), or the dict of three."""
        early = self._through("conv1", "inception4a", images)
        middle = self._through("inception4b", "inception4d", early)
        late = self._through("inception4e", "inception5b", middle)
        logits: Tensor = self.fc(self.dropout(self.flatten(self.avgpool(late))))
        if not self.training or self.aux1 is None or self.aux2 is None:
            return logits
        return {"logits": logits, "aux1": self.aux1(early), "aux2": self.aux2(middle)}

    def _row(self, first: str, last: str) -> OrderedDict[str, nn.Module]:
        """The layers from `first` to `last`, in their order."""
        names = list(self._modules)
        wanted = names[names.index(first) : names.index(last) + 1]
        return OrderedDict((name, self.get_submodule(name)) for name in wanted)

    def _through(self, first: str, last: str, x: Tensor) -> Tensor:
        for layer in self._row(first, last).values():
            x = layer(x)
        return x

    def _head(self, name: str, block: str, size: tuple[int, int], classes: int, norm: bool) -> Head:
        maps = BLOCKS[block].out
        if norm:
            return Head(maps, classes, nn.AdaptiveAvgPool2d((4, 4)), 16, norm=norm)
        pool = nn.AvgPool2d(5, 3)
        body = self._row("conv1", f"inception{block}") | {"pool of the auxiliary head": pool}
        height, width = map_size(name, nn.Sequential(OrderedDict(body)), size)
        return Head(maps, classes, pool, height * width, norm=norm)


def _response_norm() -> nn.LocalResponseNorm:
    """b = a / (1 + 1e-4 mean of a^2 over 5 maps)^0.75."""
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)


def googlenet_2014(
    *,
    classes: int,
    channels: int,
    size: tuple[int, int],
    dropout: float = 0.4,
    aux: bool = True,
) -> GoogLeNet:
    """GoogLeNet as its paper prints it. Raises `ModelError` for images too small for its pools."""
    return GoogLeNet(
        "googlenet_2014",
        norm=False,
        classes=classes,
        channels=channels,
        size=size,
        aux=yes_no("aux", aux),
        dropout=share("dropout", dropout),
    )


def googlenet(
    *,
    classes: int,
    channels: int,
    size: tuple[int, int],
    dropout: float = 0.2,
    aux: bool = True,
) -> GoogLeNet:
    """GoogLeNet as torchvision has it. Raises `ModelError` for images too small for its pools."""
    return GoogLeNet(
        "googlenet",
        norm=True,
        classes=classes,
        channels=channels,
        size=size,
        aux=yes_no("aux", aux),
        dropout=share("dropout", dropout),
    )
