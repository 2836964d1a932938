"""Layers told at every call how far apart they look: a strided net's answer at every place.

Where a layer of stride 2 would skip every second place, it moves by one, and all that follows looks
twice as far apart (rate 2): the same numbers at the kept places, and those of the skipped ones.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class DenseConv2d(nn.Conv2d):
    """(N, C, H, W) -> (N, O, H - rate (K - 1), W - rate (K - 1)), no padding, stride 1."""

    def __init__(self, maps_in: int, maps: int, kernel: int) -> None:
        super().__init__(maps_in, maps, kernel)

    def forward(self, x: Tensor, rate: int = 1) -> Tensor:
        """Args:
        rate: places between neighbours under the kernel.
        """
        return F.conv2d(x, self.weight, self.bias, dilation=rate)


class DensePool2d(nn.Module):
    """(N, C, H, W) -> (N, C, H - rate, W - rate): the largest of 2x2 places, `rate` apart."""

    def forward(self, x: Tensor, rate: int = 1) -> Tensor:
        """Args:
        rate: places between neighbours under the window.
        """
        return F.max_pool2d(x, 2, stride=1, dilation=rate)
