"""AlexNet twice: as the 2012 paper has it, and as everybody has used it since.

Krizhevsky, Sutskever, Hinton 2012, "ImageNet classification with deep convolutional neural
networks": `alexnet_2012`. Eight layers; convolutions 2, 4 and 5 in two groups, as two GPUs held
them; response normalisation behind the first two ReLUs; overlapping 3x3 pools of stride 2; dropout
behind the first two fully connected layers. 60,965,224 weights for 1000 classes. The paper prints
224x224 images, but its 55x55 maps need 227, or a padding of 2: the net pads what is smaller.

Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks": `alexnet`, with
torchvision's names and numbers. 64, 192, 384, 256, 256 maps, no groups, no normalisation, dropout
in front of the first two fully connected layers; 61,100,840 weights for 1000 classes.

Both are drawn by He's rule. The paper's N(0, 0.01) with biases of 1 in convolutions 2, 4, 5 is not
used: its loss stays flat for long, as Caffe's authors found.
"""

from __future__ import annotations

from torch import Tensor, nn

from hubel.models.check import share
from hubel.models.geometry import map_size

UNPADDED = 227  # sides from here on give the paper's maps without padding


def _norm() -> nn.LocalResponseNorm:
    """b = a / (2 + 1e-4 sum of a^2 over 5 maps)^0.75; torch divides its alpha by the 5."""
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


class PaperAlexNet(nn.Module):
    """The net of 2012: float (N, C, H, W) -> logits (N, classes)."""

    def __init__(
        self, *, classes: int, channels: int, size: tuple[int, int], dropout: float
    ) -> None:
        super().__init__()
        padding = (0 if size[0] >= UNPADDED else 2, 0 if size[1] >= UNPADDED else 2)
        self.features = nn.Sequential(
            nn.Conv2d(channels, 96, 11, stride=4, padding=padding),
            nn.ReLU(),
            _norm(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(96, 256, 5, padding=2, groups=2),
            nn.ReLU(),
            _norm(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(256, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        height, width = map_size("alexnet_2012", self.features, size)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(256 * height * width, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """float (N, C, H, W) -> logits (N, classes)."""
        return self.classifier(self.features(images))  # type: ignore[no-any-return]


class AlexNet(nn.Module):
    """The net of 2014: float (N, C, H, W) -> logits (N, classes), from 63 pixels a side."""

    def __init__(
        self, *, classes: int, channels: int, size: tuple[int, int], dropout: float
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        map_size("alexnet", self.features, size)
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """float (N, C, H, W) -> logits (N, classes)."""
        pooled = self.avgpool(self.features(images))
        return self.classifier(self.flatten(pooled))  # type: ignore[no-any-return]


def alexnet_2012(
    *, classes: int, channels: int, size: tuple[int, int], dropout: float = 0.5
) -> PaperAlexNet:
    """AlexNet as its paper prints it. Raises `ModelError` for sides below 63."""
    dropout = share("dropout", dropout)
    return PaperAlexNet(classes=classes, channels=channels, size=size, dropout=dropout)


def alexnet(*, classes: int, channels: int, size: tuple[int, int], dropout: float = 0.5) -> AlexNet:
    """AlexNet as it is used. Raises `ModelError` for sides below 63."""
    dropout = share("dropout", dropout)
    return AlexNet(classes=classes, channels=channels, size=size, dropout=dropout)
