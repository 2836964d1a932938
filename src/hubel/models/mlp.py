"""The multilayer perceptron: fully connected layers with ReLU, blind to where pixels lie."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from hubel.models.check import share

HIDDEN = (256, 128)


def mlp(
    *, classes: int, channels: int, size: tuple[int, int], dropout: float = 0.0
) -> nn.Sequential:
    """float (N, C, H, W) -> logits (N, classes), over two hidden layers of 256 and 128 units.

    Args:
        dropout: share of hidden units silenced in training, 0 <= dropout < 1.
    """
    pixels = channels * size[0] * size[1]
    silenced = share("dropout", dropout)
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(pixels, HIDDEN[0]),
            relu1=nn.ReLU(),
            dropout1=nn.Dropout(silenced),
            fc2=nn.Linear(HIDDEN[0], HIDDEN[1]),
            relu2=nn.ReLU(),
            dropout2=nn.Dropout(silenced),
            fc3=nn.Linear(HIDDEN[1], classes),
        )
    )
