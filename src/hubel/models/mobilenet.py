"""MobileNetV2: inverted residuals with linear bottlenecks, for phones.

Sandler, Howard, Zhu, Zhmoginov, Chen 2018, "MobileNetV2: inverted residuals and linear
bottlenecks", table 2, at width 1: a block widens its maps six times by 1x1 convolutions, filters
each map by itself (3x3, depthwise), and narrows them again without a non-linearity; where the shape
stays, its input is added. ReLU6 throughout. Parameter names and the dropout of 0.2 are
torchvision's; 3,504,872 weights for 1000 classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from hubel.models.check import share

# maps, blocks, stride of the first, how much a block widens its maps
STAGES = (
    (16, 1, 1, 1),
    (24, 2, 2, 6),
    (32, 3, 2, 6),
    (64, 4, 2, 6),
    (96, 3, 1, 6),
    (160, 3, 2, 6),
    (320, 1, 1, 6),
)
STEM, LAST = 32, 1280


def _conv(maps_in: int, maps: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU6."""
    return nn.Sequential(
        nn.Conv2d(maps_in, maps, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(maps),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """(N, C, H, W) -> (N, maps, ceil(H / S), ceil(W / S))."""

    def __init__(self, maps_in: int, maps: int, stride: int, widen: int) -> None:
        super().__init__()
        wide = maps_in * widen
        self.conv = nn.Sequential(
            *([_conv(maps_in, wide, 1)] if widen != 1 else []),
            _conv(wide, wide, 3, stride, groups=wide),
            nn.Conv2d(wide, maps, 1, bias=False),
            nn.BatchNorm2d(maps),
        )
        self.residual = stride == 1 and maps == maps_in

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class MobileNetV2(nn.Module):
    """float (N, C, H, W) of any size -> logits (N, classes)."""

    def __init__(self, *, classes: int, channels: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(channels, STEM, 3, 2)]
        maps_in = STEM
        for maps, count, stride, widen in STAGES:
            for number in range(count):
                layers.append(InvertedResidual(maps_in, maps, 1 if number else stride, widen))
                maps_in = maps
        layers.append(_conv(maps_in, LAST, 1))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(LAST, classes))

    def forward(self, images: Tensor) -> Tensor:
        """float (N, C, H, W) -> logits (N, classes)."""
        pooled = self.avgpool(self.features(images))
        return self.classifier(self.flatten(pooled))  # type: ignore[no-any-return]


def mobilenet_v2(
    *, classes: int, channels: int, size: tuple[int, int], dropout: float = 0.2
) -> MobileNetV2:
    """MobileNetV2. Any image size: strides round up and the pooling is global."""
    return MobileNetV2(classes=classes, channels=channels, dropout=share("dropout", dropout))
