"""Borders put on and taken off: how a net takes images of every size.

A mirrored border continues an image by its own reflection in the outermost pixel, which is not
repeated: a b c d -> c b a b c d c b. Where the border is wider than the image, the reflection is
reflected again at the other side (NumPy's "reflect", of which torch's covers the narrow ones).
"""

from __future__ import annotations

import torch
from torch import Tensor

Pair = tuple[int, int]


def mirrored(x: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """(N, C, H, W) -> (N, C, top + H + bottom, left + W + right), continued by reflection."""
    height, width = x.shape[-2:]
    if top or bottom:
        x = x.index_select(-2, torch.tensor(_reflected(height, top, bottom), device=x.device))
    if left or right:
        x = x.index_select(-1, torch.tensor(_reflected(width, left, right), device=x.device))
    return x


def framed(x: Tensor, margin: int) -> Tensor:
    """(N, C, H, W) -> (N, C, H + 2 margin, W + 2 margin), continued by reflection."""
    return mirrored(x, margin, margin, margin, margin)


def filled(x: Tensor, least: Pair, multiple: int) -> Tensor:
    """(N, C, H, W) -> (N, C, H', W'): mirrored below and at the right up to the next multiple,
    and to `least` (height, width) where that is more."""
    wanted = [
        max(-(-n // multiple) * multiple, m) for n, m in zip(x.shape[-2:], least, strict=True)
    ]
    return mirrored(x, 0, wanted[0] - x.shape[-2], 0, wanted[1] - x.shape[-1])


def cut(x: Tensor, size: Pair, offset: int = 0) -> Tensor:
    """(N, C, H, W) -> (N, C, *size): the part that begins `offset` from the top and the left."""
    return x[..., offset : offset + size[0], offset : offset + size[1]]


def size_of(x: Tensor) -> Pair:
    """(H, W) of a tensor (N, C, H, W)."""
    return x.shape[-2], x.shape[-1]


def _reflected(length: int, before: int, after: int) -> list[int]:
    """The pixel that stands at -before ... length + after - 1."""
    period = max(1, 2 * (length - 1))
    places = (place % period for place in range(-before, length + after))
    return [min(place, period - place) if length > 1 else 0 for place in places]
