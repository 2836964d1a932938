"""The nets that `native.py` races, and their batches."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hubel


class Case(NamedTuple):
    """A net, its images, its batch."""

    net: str
    channels: int
    side: int
    batch: int

    def __str__(self) -> str:
        return f"{self.net}, batch {self.batch}"

    def labels(self) -> Tensor:
        """Of ten classes, for every image, or for every pixel where the net answers for those."""
        places = (self.side, self.side) if self.net == "small U-Net" else ()
        return torch.randint(0, 10, (self.batch, *places))


CASES = {
    str(case): case
    for case in (
        Case("lenet5", 1, 28, 4), Case("lenet5", 1, 28, 64), Case("lenet5", 1, 28, 512),
        Case("net32", 3, 32, 128), Case("compact", 1, 28, 128), Case("resnet20", 3, 32, 128),
        Case("vgg-like", 3, 32, 64), Case("small U-Net", 1, 64, 16),
    )
}  # fmt: skip


class UNet(nn.Module):
    """Two levels down and up again, with skips: logits for every pixel."""

    def __init__(self, channels: int, classes: int, width: int = 16) -> None:
        super().__init__()
        self.down1, self.down2 = _twice(channels, width), _twice(width, 2 * width)
        self.deep = _twice(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.join2 = _twice(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.join1 = _twice(2 * width, width)
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes, H, W)."""
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        up = self.up2(self.deep(F.max_pool2d(two, 2)))
        up = self.up1(self.join2(torch.cat([two, up], 1)))
        answer: Tensor = self.last(self.join1(torch.cat([one, up], 1)))
        return answer


def _twice(inside: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
        nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
    )  # fmt: skip


def _vgg(channels: int, classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inside, out in ((channels, 32), (32, 64), (64, 128)):
        layers += [*_twice(inside, out), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, classes))


def build(case: Case, seed: int = 0) -> nn.Module:
    """The case's net, its weights drawn from the seed, in training mode."""
    torch.manual_seed(seed)
    if case.net == "vgg-like":
        return _vgg(case.channels, 10).train()
    if case.net == "small U-Net":
        return UNet(case.channels, 10).train()
    size = (case.side, case.side)
    return hubel.build(case.net, classes=10, channels=case.channels, size=size).train()
