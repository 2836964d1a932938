"""Pooling regions of a feature map to one size: RoI max pooling and RoIAlign.

torch has neither; `hubel.engine.bridge` makes them differentiable for models.
Boxes are (image number, x1, y1, x2, y2), in the input image's pixels, float; they get no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hubel.engine.ops.base import Case, Grads, Op, Saved, Shapes, register
from hubel.errors import ModelError


def _check(x: Tensor, boxes: Tensor) -> None:
    if boxes.dim() != 2 or boxes.size(1) != 5:
        raise ModelError(f"boxes are (R, 5): image, x1, y1, x2, y2; given {tuple(boxes.shape)}")
    if len(boxes) and not 0 <= float(boxes[:, 0].min()) <= float(boxes[:, 0].max()) < len(x):
        raise ModelError(
            f"boxes name images 0 to {len(x) - 1}, given up to {float(boxes[:, 0].max()):g}"
        )


class Region(Op):
    """What both share: no window."""

    tensors = ("x", "boxes")
    fixed = ("boxes",)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """Where it reads is in the boxes."""
        return


@register
class RoiMaxPool(Region):
    """x (N, C, H, W), boxes (R, 5) -> (R, C, *size): the largest value of each bin of each box.

    As Fast R-CNN has it: edges times `scale` are rounded, widths count both edges, bins run from
    floor to ceil and may share a row; an empty bin is 0.
    """

    name = "roi_max_pool"
    formula = "y = max of x over a bin of the box;  dx = dy at the winner's place"
    source = "Girshick 2015, section 2.1"

    @staticmethod
    def forward(
        x: Tensor, boxes: Tensor, *, size: tuple[int, int], scale: float = 1.0
    ) -> tuple[Tensor, Saved]:
        """Bin by bin."""
        _check(x, boxes)
        y = x.new_zeros(len(boxes), x.size(1), *size)
        places = torch.full(y.shape, -1, dtype=torch.int64, device=x.device)
        grid = torch.arange(x.size(2) * x.size(3), device=x.device).view(x.shape[2:])
        for r, box in enumerate(boxes.tolist()):
            image = x[int(box[0])]
            rows, cols = _bins(box, size, scale, (x.size(2), x.size(3)))
            for i, (top, bottom) in enumerate(rows):
                for j, (left, right) in enumerate(cols):
                    if bottom > top and right > left:
                        y[r, :, i, j], at = image[:, top:bottom, left:right].flatten(1).max(1)
                        places[r, :, i, j] = grid[top:bottom, left:right].reshape(-1)[at]
        return y, (places, boxes[:, 0].long(), tuple(x.shape))

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """A pixel that wins several bins gets all their gradients."""
        places, images, shape = saved
        filled = places >= 0
        dx = dy.new_zeros(shape[0], shape[1], shape[2] * shape[3])
        channel = torch.arange(shape[1], device=dy.device).view(1, -1, 1, 1).expand_as(places)
        image = images.view(-1, 1, 1, 1).expand_as(places)
        at = (image[filled], channel[filled], places[filled])
        dx.index_put_(at, dy[filled], accumulate=True)
        return dx.view(shape), None

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Boxes inside, over the border, of one pixel, sharing pixels."""
        boxes = torch.tensor(
            [[0, 0, 0, 6, 4], [1, 3.4, 1.6, 9, 5], [1, 2, 2, 2, 2], [0, -3, 1, 20, 30]]
        ).double()
        yield Case("plain", lambda r: (r(2, 3, 7, 9), boxes), {"size": (3, 2)})
        yield Case("scaled", lambda r: (r(2, 3, 4, 5), boxes), {"size": (2, 2), "scale": 0.5})
        yield Case(
            "no boxes",
            lambda r: (r(1, 1, 4, 4), r(3, 4)),
            {"size": (2, 2)},
            error=r"boxes are \(R, 5\)",
        )


def _bins(
    box: list[float], size: tuple[int, int], scale: float, plane: tuple[int, int]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Rows and columns (from, to) of the bins of one box."""
    x1, y1, x2, y2 = (_round(v * scale) for v in box[1:])
    return (
        _stretches(y1, max(y2 - y1 + 1, 1), size[0], plane[0]),
        _stretches(x1, max(x2 - x1 + 1, 1), size[1], plane[1]),
    )


def _round(v: float) -> int:
    """Halves go away from zero, as C's round."""
    return math.floor(abs(v) + 0.5) * (1 if v >= 0 else -1)


def _stretches(start: int, length: int, bins: int, n: int) -> list[tuple[int, int]]:
    step = length / bins
    return [
        (
            min(max(math.floor(i * step) + start, 0), n),
            min(max(math.ceil((i + 1) * step) + start, 0), n),
        )
        for i in range(bins)
    ]


@register
class RoiAlign(Region):
    """x (N, C, H, W), boxes (R, 5) -> (R, C, *size): means of bilinear samples, nothing rounded.

    `samples` per bin and axis (0: as many as the bin has pixels); `aligned` measures from pixel
    centres (half a pixel less), which the paper meant.
    """

    name = "roi_align"
    linear_in = ("x",)
    formula = "y = A x B^T per box, rows of A average bilinear samples;  dx = A^T dy B"
    source = "He et al. 2017, Mask R-CNN"

    @staticmethod
    def forward(
        x: Tensor, boxes: Tensor, *, size: tuple[int, int], scale: float = 1.0, samples: int = 0,
        aligned: bool = True,
    ) -> tuple[Tensor, Saved]:  # fmt: skip
        """Sampling on a grid is separable, so a box is two small matrices."""
        _check(x, boxes)
        maps = [_maps(box, x, size, scale, samples, aligned) for box in boxes.tolist()]
        images = boxes[:, 0].long().tolist()
        y = x.new_zeros(len(boxes), x.size(1), *size)
        for r, (image, (a, b)) in enumerate(zip(images, maps, strict=True)):
            y[r] = a @ x[image] @ b.mT
        return y, (maps, images, tuple(x.shape))

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Boxes that overlap add up."""
        maps, images, shape = saved
        dx = dy.new_zeros(shape)
        for r, (image, (a, b)) in enumerate(zip(images, maps, strict=True)):
            dx[image] += a.mT @ dy[r] @ b
        return dx, None

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Both alignments, given and adaptive samples, over the border."""
        boxes = torch.tensor(
            [[0, 0, 0, 6, 4], [1, 3.4, 1.6, 9, 5], [1, 2, 2, 2, 2], [0, -3, 1, 20, 30]]
        ).double()
        for aligned in (True, False):
            options = {"size": (3, 2), "scale": 0.6, "aligned": aligned}
            yield Case(f"aligned {aligned}", lambda r: (r(2, 3, 7, 9), boxes), options)
        yield Case("two samples", lambda r: (r(2, 3, 7, 9), boxes), {"size": (2, 3), "samples": 2})


def _maps(
    box: list[float], x: Tensor, size: tuple[int, int], scale: float, samples: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """(bins, pixels) matrices for rows and columns of one box."""
    shift = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (v * scale - shift for v in box[1:])
    least = 0.0 if aligned else 1.0
    return (
        _samples(y1, max(y2 - y1, least), size[0], x.size(2), samples).to(x),
        _samples(x1, max(x2 - x1, least), size[1], x.size(3), samples).to(x),
    )


def _samples(start: float, length: float, bins: int, n: int, samples: int) -> Tensor:
    count = samples if samples > 0 else max(math.ceil(length / bins), 1)
    at = start + (torch.arange(bins * count, dtype=torch.float64) + 0.5) * length / (bins * count)
    inside = (at >= -1) & (at <= n)
    at = at.clamp(0, n - 1)
    low = at.floor().long()
    t = at - low
    a = torch.zeros(bins * count, n, dtype=torch.float64)
    rows = torch.arange(bins * count)
    a[rows, low] += (1 - t) * inside
    a[rows, (low + 1).clamp(max=n - 1)] += t * inside
    return a.view(bins, count, n).mean(1)
