"""A small fast net for images of 28 to 64 pixels: what a CPU trains in minutes.

Five 3x3 convolutions with batch norm and ReLU. The first and thinnest works at full size; a pool
before each doubling of the maps keeps the multiply-adds of the stages alike. The largest answer of
every map, wherever it stands, goes to one fully connected layer.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn

from hubel.models.check import share, whole
from hubel.models.geometry import map_size


class Compact(nn.Module):
    """conv w, pool, conv 2w, conv 2w, pool, conv 4w, conv 4w, largest of each map, fully connected.

    Args:
        width: w, maps of the first convolution.
        dropout: share of the features silenced before the last layer in training, 0 <= p < 1.

    Raises `ModelError` where `size` leaves no pixel after the last pool.
    """

    def __init__(
        self, *, classes: int, channels: int, size: tuple[int, int], width: int, dropout: float
    ) -> None:
        super().__init__()
        stages = (
            ("stage1", _stage(channels, width)),
            ("pool1", nn.MaxPool2d(2)),
            ("stage2", _stage(width, 2 * width, 2 * width)),
            ("pool2", nn.MaxPool2d(2)),
            ("stage3", _stage(2 * width, 4 * width, 4 * width)),
        )
        self.features = nn.Sequential(OrderedDict(stages))
        map_size("compact", self.features, size)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """float (N, C, H, W) -> logits (N, classes)."""
        strongest = self.features(images).amax(dim=(2, 3))
        return self.fc(self.dropout(strongest))  # type: ignore[no-any-return]


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


def _stage(*maps: int) -> nn.Sequential:
    """3x3 convolutions from maps[0] to maps[1] to ..., each with batch norm and ReLU."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (before, after) in enumerate(pairwise(maps), start=1):
        layers[f"conv{number}"] = nn.Conv2d(before, after, 3, padding=1, bias=False)
        layers[f"bn{number}"] = nn.BatchNorm2d(after)
        layers[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(layers)
