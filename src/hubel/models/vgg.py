"""VGG: nothing but 3x3 convolutions and 2x2 pools, then three fully connected layers.

Simonyan, Zisserman 2014, "Very deep convolutional networks for large-scale image recognition",
table 1: configurations A, B, D and E, of 11, 13, 16 and 19 layers; the `_bn` forms, with batch norm
behind every convolution, came later. Parameter names are torchvision's. The paper's net takes
224x224 images; as in torchvision an adaptive pool brings other sizes to the same 7x7 maps (below
224 pixels some numbers are repeated). Drawn by He's rule, where the paper starts the deeper nets
from the trained layers of the shallowest.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from hubel.models.check import share
from hubel.models.geometry import map_size

STAGES = (64, 128, 256, 512, 512)
# convolutions per stage
CONFIGURATIONS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VGG(nn.Module):
    """float (N, C, H, W) -> logits (N, classes), from 32 pixels a side."""

    def __init__(
        self,
        name: str,
        repeats: tuple[int, ...],
        *,
        norm: bool,
        classes: int,
        channels: int,
        size: tuple[int, int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.features = _features(channels, repeats, norm)
        map_size(name, self.features, size)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """float (N, C, H, W) -> logits (N, classes)."""
        pooled = self.avgpool(self.features(images))
        return self.classifier(self.flatten(pooled))  # type: ignore[no-any-return]


def _features(channels: int, repeats: tuple[int, ...], norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for maps, count in zip(STAGES, repeats, strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(channels, maps, 3, padding=1))
            layers += [nn.BatchNorm2d(maps)] if norm else []
            layers.append(nn.ReLU())
            channels = maps
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def _vgg(depth: int, norm: bool) -> Callable[..., VGG]:
    """The family function of one depth."""
    name = f"vgg{depth}_bn" if norm else f"vgg{depth}"

    def make(*, classes: int, channels: int, size: tuple[int, int], dropout: float = 0.5) -> VGG:
        return VGG(
            name,
            CONFIGURATIONS[depth],
            norm=norm,
            classes=classes,
            channels=channels,
            size=size,
            dropout=share("dropout", dropout),
        )

    make.__doc__ = f"{name}. Raises `ModelError` for sides below 32."
    return make


vgg11, vgg13, vgg16, vgg19 = (_vgg(depth, False) for depth in CONFIGURATIONS)
vgg11_bn, vgg13_bn, vgg16_bn, vgg19_bn = (_vgg(depth, True) for depth in CONFIGURATIONS)
