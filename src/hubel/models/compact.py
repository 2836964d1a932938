"""A small fast net for images of 28 to 64 pixels: what a CPU trains in minutes.

Three 3x3 convolutions with batch norm and ReLU, each with twice the maps of the one before and a
pool between them; then the mean of every map, and one fully connected layer. Pooling early keeps
nearly all multiply-adds on small maps, where doubling the maps costs little.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from hubel.models.check import share, whole
from hubel.models.geometry import map_size


class Compact(nn.Module):
    """conv `width`, pool, conv 2 `width`, pool, conv 4 `width`, global average, classes.

    Args:
        width: maps of the first convolution.
        dropout: share of the features silenced before the last layer in training, 0 <= p < 1.

    Raises `ModelError` where `size` leaves no pixel after the last pool.
    """

    def __init__(
        self, *, classes: int, channels: int, size: tuple[int, int], width: int, dropout: float
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(channels, width, 3, padding=1, bias=False),
                bn1=nn.BatchNorm2d(width),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
                bn2=nn.BatchNorm2d(2 * width),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                conv3=nn.Conv2d(2 * width, 4 * width, 3, padding=1, bias=False),
                bn3=nn.BatchNorm2d(4 * width),
                relu3=nn.ReLU(),
            )
        )
        map_size("compact", self.features, size)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """float (N, C, H, W) -> logits (N, classes)."""
        pooled = self.flatten(self.avgpool(self.features(images)))
        return self.fc(self.dropout(pooled))  # type: ignore[no-any-return]


def compact(
    *,
    classes: int,
    channels: int,
    size: tuple[int, int],
    width: int = 32,
    dropout: float = 0.0,
) -> Compact:
    """The default net of `hubel train`."""
    return Compact(
        classes=classes,
        channels=channels,
        size=size,
        width=whole("width", width),
        dropout=share("dropout", dropout),
    )
