"""Residual nets, for ImageNet and for CIFAR, and their plain twins without shortcuts.

He, Zhang, Ren, Sun 2015, "Deep residual learning for image recognition". Parameter names are
torchvision's.

For 224x224 images (table 1): a 7x7 stem of stride 2, a 3x3 pool, four stages of 64 to 512 maps.
Depths 18 and 34 have blocks of two 3x3 convolutions; 50, 101 and 152 have bottlenecks of 1x1, 3x3,
1x1 with four times the maps. Where a block's shape changes, its shortcut is by option

  A  every second pixel, new maps zero: no parameters, so that the plain twin has as many
  B  a 1x1 convolution with batch norm there, the identity elsewhere (what everybody uses)
  C  a 1x1 convolution in every block

A bottleneck halves the image in its 3x3 convolution (torchvision, "v1.5"), or in its first 1x1 as
the paper has it.

For 32x32 images (section 4.2): 6n + 2 layers; a 3x3 stem, n blocks in each of three stages of 16,
32 and 64 maps, option A. torchvision's ResNet on CIFAR is another net.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from hubel.errors import ModelError, unknown

Option = Literal["A", "B", "C", "none"]

SMALL_STAGES = (16, 32, 64)
SMALL_DEPTHS = (20, 32, 44, 56, 110)  # those that the paper trains on CIFAR-10
STAGES = (64, 128, 256, 512)
BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
DEEP = 50  # from here on blocks are bottlenecks
WHERE = ("3x3", "1x1")


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


def _shortcut(option: Option, maps_in: int, maps: int, stride: int) -> nn.Module | None:
    """What stands beside a block; None: the identity, or in a plain net nothing."""
    changes = stride != 1 or maps != maps_in
    if option == "none" or (not changes and option != "C"):
        return None
    if option == "A":
        return Shortcut(maps - maps_in, stride)
    projection = nn.Conv2d(maps_in, maps, 1, stride=stride, bias=False)
    return nn.Sequential(projection, nn.BatchNorm2d(maps))


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)); without the sum where the option is none."""

    grows = 1

    def __init__(self, maps_in: int, maps: int, stride: int, option: Option) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(maps_in, maps, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(maps)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(maps, maps, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(maps)
        self.relu2 = nn.ReLU()
        self.downsample = _shortcut(option, maps_in, maps, stride)
        self.residual = option != "none"

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.residual:
            out = out + (x if self.downsample is None else self.downsample(x))
        return self.relu2(out)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1 to `maps`, 3x3, 1x1 to four times `maps`, plus the shortcut.

    Args:
        where: which convolution has the stride, "3x3" or "1x1".
    """

    grows = 4

    def __init__(
        self, maps_in: int, maps: int, stride: int, option: Option, where: str = "3x3"
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if where == "1x1" else (1, stride)
        self.conv1 = nn.Conv2d(maps_in, maps, 1, stride=first, bias=False)
        self.bn1 = nn.BatchNorm2d(maps)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(maps, maps, 3, stride=second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(maps)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(maps, 4 * maps, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * maps)
        self.relu3 = nn.ReLU()
        self.downsample = _shortcut(option, maps_in, 4 * maps, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out = out + (x if self.downsample is None else self.downsample(x))
        return self.relu3(out)  # type: ignore[no-any-return]


Block = Callable[[int, int, int], BasicBlock | Bottleneck]  # maps in, maps, stride


def _stage(block: Block, count: int, maps_in: int, maps: int, stride: int) -> nn.Sequential:
    first = block(maps_in, maps, stride)
    rest = [block(maps * first.grows, maps, 1) for _ in range(count - 1)]
    return nn.Sequential(first, *rest)


class ResNet(nn.Module):
    """The nets for ImageNet: float (N, C, H, W) of any size -> logits (N, classes)."""

    def __init__(
        self, depth: int, *, classes: int, channels: int, option: Option, where: str = "3x3"
    ) -> None:
        super().__init__()

        def block(maps_in: int, maps: int, stride: int) -> BasicBlock | Bottleneck:
            if depth < DEEP:
                return BasicBlock(maps_in, maps, stride, option)
            return Bottleneck(maps_in, maps, stride, option, where)

        grows = 1 if depth < DEEP else 4
        self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        one, two, three, four = BLOCKS[depth]
        self.layer1 = _stage(block, one, 64, STAGES[0], 1)
        self.layer2 = _stage(block, two, grows * STAGES[0], STAGES[1], 2)
        self.layer3 = _stage(block, three, grows * STAGES[1], STAGES[2], 2)
        self.layer4 = _stage(block, four, grows * STAGES[2], STAGES[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(grows * STAGES[3], classes)

    def forward(self, images: Tensor) -> Tensor:
        """float (N, C, H, W) -> logits (N, classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.flatten(self.avgpool(x)))  # type: ignore[no-any-return]


class SmallResNet(nn.Module):
    """The nets for CIFAR: 6 n + 2 layers with `blocks` = n; the plain twin where not `residual`."""

    def __init__(self, blocks: int, *, classes: int, channels: int, residual: bool = True) -> None:
        super().__init__()
        option: Option = "A" if residual else "none"

        def block(maps_in: int, maps: int, stride: int) -> BasicBlock:
            return BasicBlock(maps_in, maps, stride, option)

        one, two, three = SMALL_STAGES
        self.conv1 = nn.Conv2d(channels, one, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(one)
        self.relu = nn.ReLU()
        self.layer1 = _stage(block, blocks, one, one, 1)
        self.layer2 = _stage(block, blocks, one, two, 2)
        self.layer3 = _stage(block, blocks, two, three, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(three, classes)

    def forward(self, images: Tensor) -> Tensor:
        """float (N, C, H, W) -> logits (N, classes)."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.flatten(self.avgpool(x)))  # type: ignore[no-any-return]


def _checked(word: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ModelError(unknown(word, value, allowed))
    return value


def _shallow(depth: int) -> Callable[..., ResNet]:
    def make(
        *, classes: int, channels: int, size: tuple[int, int], shortcut: Option = "B"
    ) -> ResNet:
        _checked("shortcut", shortcut, ("A", "B", "C"))
        return ResNet(depth, classes=classes, channels=channels, option=shortcut)

    make.__doc__ = f"ResNet-{depth}. Any image size. Raises `ModelError` for an unknown shortcut."
    return make


def _deep(depth: int) -> Callable[..., ResNet]:
    def make(
        *,
        classes: int,
        channels: int,
        size: tuple[int, int],
        shortcut: Option = "B",
        stride_on: str = "3x3",
    ) -> ResNet:
        _checked("shortcut", shortcut, ("A", "B", "C"))
        where = _checked("stride_on", stride_on, WHERE)
        return ResNet(depth, classes=classes, channels=channels, option=shortcut, where=where)

    make.__doc__ = f"ResNet-{depth}. Any image size. Raises `ModelError` for an unknown option."
    return make


def _plain(depth: int) -> Callable[..., ResNet]:
    def make(*, classes: int, channels: int, size: tuple[int, int]) -> ResNet:
        return ResNet(depth, classes=classes, channels=channels, option="none")

    make.__doc__ = f"Plain-{depth}: ResNet-{depth} without its shortcuts. Any image size."
    return make


def _small(depth: int, residual: bool) -> Callable[..., SmallResNet]:
    def make(*, classes: int, channels: int, size: tuple[int, int]) -> SmallResNet:
        blocks = (depth - 2) // 6
        return SmallResNet(blocks, classes=classes, channels=channels, residual=residual)

    kind = "ResNet" if residual else "Plain"
    make.__doc__ = f"{kind}-{depth}. Any image size: strides round up and the pooling is global."
    return make


resnet18, resnet34 = _shallow(18), _shallow(34)
resnet50, resnet101, resnet152 = _deep(50), _deep(101), _deep(152)
plain18, plain34 = _plain(18), _plain(34)
resnet20, resnet32, resnet44, resnet56, resnet110 = (_small(d, True) for d in SMALL_DEPTHS)
plain20, plain32, plain44, plain56, plain110 = (_small(d, False) for d in SMALL_DEPTHS)
