"""Reading what a net returned and what the truth is, pixel by pixel, where their sizes differ."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hubel.data.masks.record import IGNORE
from hubel.errors import ModelError
from hubel.tasks.answer import logits_of


def logits(outputs: Any) -> Tensor:
    """The float (N, K, h, w) logits in what a net returned: a tensor, or a dict's "logits".

    Raises `ModelError` for anything else.
    """
    return logits_of(outputs, 4, "a segmentation net must return logits (N, classes, H, W)")


def split(targets: Tensor) -> tuple[Tensor, Tensor | None]:
    """Labels int64 (N, H, W) and weights float (N, H, W), None where there are none.

    Args:
        targets: int64 (N, H, W), or float (N, 2, H, W): label and weight of every pixel.
    """
    if targets.ndim == 3:
        return targets.long(), None
    return targets[:, 0].long(), targets[:, 1]


def nearest(count: int, of: int, device: torch.device) -> Tensor:
    """Which of `of` pixels each of `count` equal pieces of the same line reads: int64 (count,).

    The pixel that holds the middle of the piece: floor((i + 1/2) of / count). Where the middle is
    an edge between two pixels (a net at 1/8 looks at 8 of them), it is the second, 8 i + 4.
    """
    places = torch.arange(count, device=device)
    return (2 * places + 1) * of // (2 * count)


def resample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (N, H, W) as (N, *size), every pixel the `nearest` one."""
    height, width = maps.shape[1:]
    if (height, width) == tuple(size):
        return maps
    rows = nearest(size[0], height, maps.device)
    columns = nearest(size[1], width, maps.device)
    return maps.index_select(1, rows).index_select(2, columns)


def named(z: Tensor) -> Tensor:
    """The likeliest class of every pixel: logits (N, K, H, W) -> int64 (N, H, W).

    By `max`, which over the second axis takes a fifth of `argmax`'s time on a CPU.
    """
    return z.max(dim=1).indices


def fits(z: Tensor, labels: Tensor, classes: int) -> None:
    """Raises `ModelError` unless logits (N, K, h, w) can be judged by labels (N, H, W)."""
    if z.shape[1] != classes:
        raise ModelError(
            f"the net must give every pixel {classes} logits, one per class; it gives {z.shape[1]}"
        )
    same = z.shape[0] == labels.shape[0]
    if not same or z.shape[2] > labels.shape[1] or z.shape[3] > labels.shape[2]:
        raise ModelError(
            "logits must be as many and at most as large as their labels, "
            f"{_times(labels.shape)}; they are {_times((z.shape[0], *z.shape[2:]))}"
        )


def labelled(labels: Tensor) -> Tensor:
    """Where a pixel (N, H, W) has a label: bool."""
    return labels != IGNORE


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
