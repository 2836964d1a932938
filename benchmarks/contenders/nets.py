"""LeNet-5 and ResNet-20 as one writes them in PyTorch, for the peers that are built on it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def build(name: str, channels: int, side: int) -> nn.Module:
    """A net for ten classes: (N, channels, side, side) -> (N, 10)."""
    return lenet5(channels, side) if name == "lenet5" else ResNet20(channels)


def lenet5(channels: int, side: int) -> nn.Module:
    """28x28 images are padded to the paper's 32x32."""
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=(32 - side) // 2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (option A)."""

    def __init__(self, before: int, maps: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, maps, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(maps)
        self.conv2 = nn.Conv2d(maps, maps, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(maps)
        self.stride, self.grow = stride, maps - before

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.grow:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.grow))
        return F.relu(out + x)


class ResNet20(nn.Module):
    """Three stages of three blocks: 16, 32, 64 maps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        widths = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
        blocks = [
            block
            for before, maps, stride in widths
            for block in (Block(before, maps, stride), Block(maps, maps, 1), Block(maps, maps, 1))
        ]
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]
