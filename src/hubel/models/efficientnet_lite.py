"""EfficientNet-Lite: EfficientNet without what small devices cannot do well.

Tan, Le 2019, "EfficientNet: rethinking model scaling for convolutional neural networks", in the
"lite" form that its authors published in 2020: no squeeze-and-excitation, ReLU6 instead of swish,
stem and head as wide, first and last stage as deep in every size. Lite0 to lite2 are made for 224,
240 and 260 pixels. Layers pad as TensorFlow does ("SAME"): where a stride leaves an odd pixel, the
extra border is below and at the right; the trained weights need just that. Parameter names are
timm's (`tf_efficientnet_lite0`). 4,652,008, 5,416,680 and 6,092,072 weights for 1000 classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from hubel.models.check import share

# kernel, stride of the first block, how much a block widens its maps, maps, blocks
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM, LAST = 32, 1280
SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}  # of width, of depth


class SameConv2d(nn.Conv2d):
    """A convolution without bias whose output is (ceil(H / S), ceil(W / S))."""

    def __init__(
        self, maps_in: int, maps: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(maps_in, maps, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        down, right = (self._border(x.shape[axis + 2], axis) for axis in (0, 1))
        if down or right:
            x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
        return super().forward(x)

    def _border(self, length: int, axis: int) -> int:
        """Pixels to add along an axis."""
        kernel = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
        stride = self.stride[axis]
        return max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)


def _norm(maps: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(maps, eps=1e-3)


class Separable(nn.Module):
    """A block that does not widen: depthwise, then 1x1."""

    def __init__(self, maps_in: int, maps: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = SameConv2d(maps_in, maps_in, kernel, stride, groups=maps_in)
        self.bn1 = _norm(maps_in)
        self.act1 = nn.ReLU6()
        self.conv_pw = SameConv2d(maps_in, maps, 1)
        self.bn2 = _norm(maps)
        self.residual = stride == 1 and maps == maps_in

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act1(self.bn1(self.conv_dw(x)))
        out = self.bn2(self.conv_pw(out))
        return x + out if self.residual else out


class InvertedResidual(nn.Module):
    """1x1 to `widen` times the maps, depthwise, 1x1 to `maps` without a non-linearity."""

    def __init__(self, maps_in: int, maps: int, kernel: int, stride: int, widen: int) -> None:
        super().__init__()
        wide = maps_in * widen
        self.conv_pw = SameConv2d(maps_in, wide, 1)
        self.bn1 = _norm(wide)
        self.act1 = nn.ReLU6()
        self.conv_dw = SameConv2d(wide, wide, kernel, stride, groups=wide)
        self.bn2 = _norm(wide)
        self.act2 = nn.ReLU6()
        self.conv_pwl = SameConv2d(wide, maps, 1)
        self.bn3 = _norm(maps)
        self.residual = stride == 1 and maps == maps_in

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act1(self.bn1(self.conv_pw(x)))
        out = self.act2(self.bn2(self.conv_dw(out)))
        out = self.bn3(self.conv_pwl(out))
        return x + out if self.residual else out


class EfficientNetLite(nn.Module):
    """float (N, C, H, W) of any size -> logits (N, classes)."""

    def __init__(
        self, width: float, depth: float, *, classes: int, channels: int, dropout: float
    ) -> None:
        super().__init__()
        self.conv_stem = SameConv2d(channels, STEM, 3, 2)
        self.bn1 = _norm(STEM)
        self.act1 = nn.ReLU6()
        maps_in, stages = STEM, []
        for number, (kernel, stride, widen, unscaled, count) in enumerate(STAGES):
            maps = _rounded(unscaled * width)
            blocks = count if number in (0, len(STAGES) - 1) else math.ceil(count * depth)
            stages.append(_stage(blocks, maps_in, maps, kernel, stride, widen))
            maps_in = maps
        self.blocks = nn.Sequential(*stages)
        self.conv_head = SameConv2d(maps_in, LAST, 1)
        self.bn2 = _norm(LAST)
        self.act2 = nn.ReLU6()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(LAST, classes)

    def forward(self, images: Tensor) -> Tensor:
        """float (N, C, H, W) -> logits (N, classes)."""
        x = self.blocks(self.act1(self.bn1(self.conv_stem(images))))
        x = self.avgpool(self.act2(self.bn2(self.conv_head(x))))
        return self.classifier(self.dropout(self.flatten(x)))  # type: ignore[no-any-return]


def _stage(
    count: int, maps_in: int, maps: int, kernel: int, stride: int, widen: int
) -> nn.Sequential:
    blocks: list[nn.Module] = []
    for _ in range(count):
        if widen == 1:
            blocks.append(Separable(maps_in, maps, kernel, stride))
        else:
            blocks.append(InvertedResidual(maps_in, maps, kernel, stride, widen))
        maps_in, stride = maps, 1
    return nn.Sequential(*blocks)


def _rounded(maps: float) -> int:
    """To the nearest multiple of 8, but never by more than a tenth down."""
    near = max(8, int(maps + 4) // 8 * 8)
    return near if near >= 0.9 * maps else near + 8


def _lite(number: int) -> Callable[..., EfficientNetLite]:
    width, depth = SCALES[number]

    def make(
        *, classes: int, channels: int, size: tuple[int, int], dropout: float = 0.2
    ) -> EfficientNetLite:
        rate = share("dropout", dropout)
        return EfficientNetLite(width, depth, classes=classes, channels=channels, dropout=rate)

    make.__doc__ = f"EfficientNet-Lite{number}. Any image size: strides round up."
    return make


efficientnet_lite0, efficientnet_lite1, efficientnet_lite2 = (_lite(n) for n in SCALES)
