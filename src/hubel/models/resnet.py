"""Residual nets for small images: 6n + 2 layers in three stages of 16, 32 and 64 maps.

He, Zhang, Ren, Sun 2015, "Deep residual learning for image recognition", section 4.2: a 3x3 stem,
n blocks of two 3x3 convolutions per stage, stages 2 and 3 begin with stride 2, global average
pooling, one fully connected layer. Shortcuts are option A: where the shape changes, every second
pixel is taken and the new maps are zero, so they have no parameters and the plain twin (the same
net without shortcuts) has exactly as many. Parameter names follow torchvision's ResNet, whose nets
for 224x224 images are other nets.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

STAGES = (16, 32, 64)
DEPTHS = (20, 32, 44, 56, 110)  # those that the paper trains on CIFAR-10


class Shortcut(nn.Module):
    """Option A: (N, C, H, W) -> (N, C + grow, ceil(H / S), ceil(W / S)); new maps are zero."""

    def __init__(self, grow: int, stride: int) -> None:
        super().__init__()
        self.grow, self.stride = grow, stride

    def forward(self, x: Tensor) -> Tensor:
        thinned = x[:, :, :: self.stride, :: self.stride]
        return F.pad(thinned, (0, 0, 0, 0, 0, self.grow))

    def extra_repr(self) -> str:
        return f"grow={self.grow}, stride={self.stride}"


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)); without the sum where not `residual`."""

    def __init__(self, maps_in: int, maps: int, stride: int, *, residual: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(maps_in, maps, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(maps)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(maps, maps, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(maps)
        self.relu2 = nn.ReLU()
        changes = stride != 1 or maps != maps_in
        self.downsample = Shortcut(maps - maps_in, stride) if residual and changes else None
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.residual:
            out = out + (x if self.downsample is None else self.downsample(x))
        return self.relu2(out)  # type: ignore[no-any-return]


class SmallResNet(nn.Module):
    """6 n + 2 layers with `blocks` = n; the plain twin where not `residual`."""

    def __init__(self, blocks: int, *, classes: int, channels: int, residual: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, STAGES[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STAGES[0])
        self.relu = nn.ReLU()
        self.layer1 = _stage(blocks, STAGES[0], STAGES[0], 1, residual=residual)
        self.layer2 = _stage(blocks, STAGES[0], STAGES[1], 2, residual=residual)
        self.layer3 = _stage(blocks, STAGES[1], STAGES[2], 2, residual=residual)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(STAGES[2], classes)

    def forward(self, images: Tensor) -> Tensor:
        """float (N, C, H, W) -> logits (N, classes)."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.flatten(self.avgpool(x)))  # type: ignore[no-any-return]


def _stage(blocks: int, maps_in: int, maps: int, stride: int, *, residual: bool) -> nn.Sequential:
    first = BasicBlock(maps_in, maps, stride, residual=residual)
    rest = [BasicBlock(maps, maps, 1, residual=residual) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


def _small(depth: int, residual: bool) -> Callable[..., SmallResNet]:
    """The family function of one depth: 6 n + 2 layers."""

    def make(*, classes: int, channels: int, size: tuple[int, int]) -> SmallResNet:
        blocks = (depth - 2) // 6
        return SmallResNet(blocks, classes=classes, channels=channels, residual=residual)

    kind = "ResNet" if residual else "Plain"
    make.__doc__ = f"{kind}-{depth}. Any image size: strides round up and the pooling is global."
    return make


resnet20, resnet32, resnet44, resnet56, resnet110 = (_small(d, True) for d in DEPTHS)
plain20, plain32, plain44, plain56, plain110 = (_small(d, False) for d in DEPTHS)
