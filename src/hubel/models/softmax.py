"""Softmax regression: one fully connected layer from pixels to classes; the baseline of baselines.

Its weights are one template per class, each as large as the image.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def softmax(*, classes: int, channels: int, size: tuple[int, int]) -> nn.Sequential:
    """float (N, C, H, W) -> logits (N, classes)."""
    pixels = channels * size[0] * size[1]
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc=nn.Linear(pixels, classes),
        )
    )
