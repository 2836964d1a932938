"""Reading an image at given places: affine grids and grid sampling (spatial transformers)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hubel.engine.ops.base import Adapted, Case, Grads, Op, Saved, Shapes, register

MODES = ("bilinear", "nearest", "bicubic")  # torch numbers them so
PADDINGS = ("zeros", "border", "reflection")


class Warp(Op):
    """What both share: no window."""

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """Where it reads is in the numbers."""
        return


def _sampled(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Adapted | None:
    mode, padding = MODES[interpolation_mode], PADDINGS[padding_mode]
    if mode == "bicubic" or padding == "reflection":
        return None
    return (input, grid), {"mode": mode, "padding": padding, "corners": align_corners}


@register
class GridSample(Warp):
    """x (N, C, H, W), grid (N, Ho, Wo, 2) of (column, row) in -1 .. 1 -> (N, C, Ho, Wo)."""

    name = "grid_sample"
    tensors = ("x", "grid")
    linear_in = ("x",)
    spellings = {"grid_sampler_2d.default": _sampled}
    formula = "y = sum over the four pixels around of x (1 - |dcol|) (1 - |drow|)"
    source = "Jaderberg et al. 2015, spatial transformer networks"

    @staticmethod
    def forward(
        x: Tensor, grid: Tensor, *, mode: str = "bilinear", padding: str = "zeros",
        corners: bool = False,
    ) -> tuple[Tensor, Saved]:  # fmt: skip
        """Outside is zero, or what stands at the border."""
        h, w = x.shape[2:]
        col, dcol = _pixels(grid[..., 0], w, corners, padding)
        row, drow = _pixels(grid[..., 1], h, corners, padding)
        if mode == "nearest":
            taps: list[Any] = [(row.round(), col.round(), torch.ones_like(row), None, None)]
        else:
            taps = list(_taps(row, col))
        y = sum(_read(x, r, c) * weight[:, None] for r, c, weight, _, _ in taps)
        assert isinstance(y, Tensor)
        return y, (x, taps, drow, dcol, tuple(grid.shape))

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """To the pixels by their weights; to the grid by how the weights move."""
        x, taps, drow, dcol, shape = saved
        dx = x.new_zeros(x.shape)
        dgrid = dy.new_zeros(shape)
        for r, c, weight, by_row, by_col in taps:
            _add(dx, r, c, dy * weight[:, None])
            if by_row is not None:
                value = (_read(x, r, c) * dy).sum(1)
                dgrid[..., 1] += value * by_row * drow
                dgrid[..., 0] += value * by_col * dcol
        return dx, dgrid

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Inside and outside, both paddings, corners, nearest."""

        def make(r: Any) -> tuple[Tensor, Tensor]:
            return r(2, 3, 5, 4), 0.7 * r(2, 3, 7, 2)

        for padding in ("zeros", "border"):
            yield Case(padding, make, {"padding": padding})
        yield Case("corners", make, {"corners": True})
        yield Case("nearest", make, {"mode": "nearest"})


def _pixels(place: Tensor, n: int, corners: bool, padding: str) -> tuple[Tensor, Tensor]:
    """From -1 .. 1 to pixels, and the slope of that."""
    scale = (n - 1) / 2 if corners else n / 2
    pixel = (place + 1) * scale - (0 if corners else 0.5)
    slope = torch.full_like(place, scale)
    if padding == "border":
        slope = torch.where((pixel > 0) & (pixel < n - 1), slope, torch.zeros_like(slope))
        pixel = pixel.clamp(0, n - 1)
    return pixel, slope


def _taps(row: Tensor, col: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """The four pixels around: row, column, weight, and the weight's slopes by row and column."""
    top, left = row.floor(), col.floor()
    fr, fc = row - top, col - left
    for r, wr, sr in ((top, 1 - fr, -1), (top + 1, fr, 1)):
        for c, wc, sc in ((left, 1 - fc, -1), (left + 1, fc, 1)):
            yield r, c, wr * wc, sr * wc, sc * wr


def _flat(x: Tensor, row: Tensor, col: Tensor) -> tuple[Tensor, Tensor]:
    """Row-major places (N, 1, Ho Wo) inside the plane, and which of them are."""
    h, w = x.shape[2:]
    inside = (row >= 0) & (row < h) & (col >= 0) & (col < w)
    place = row.clamp(0, h - 1).long() * w + col.clamp(0, w - 1).long()
    return place.flatten(1)[:, None], inside[:, None]


def _read(x: Tensor, row: Tensor, col: Tensor) -> Tensor:
    place, inside = _flat(x, row, col)
    values = x.flatten(2).gather(2, place.expand(-1, x.size(1), -1))
    return values.view(*x.shape[:2], *row.shape[1:]) * inside


def _add(dx: Tensor, row: Tensor, col: Tensor, values: Tensor) -> None:
    place, inside = _flat(dx, row, col)
    dx.flatten(2).scatter_add_(2, place.expand(-1, dx.size(1), -1), (values * inside).flatten(2))


@register
class AffineGrid(Warp):
    """theta (N, 2, 3) -> grid (N, H, W, 2): where each output pixel comes from."""

    name = "affine_grid"
    tensors = ("theta",)
    linear_in = ("theta",)
    spellings = {
        "affine_grid_generator.default": lambda theta, size, align_corners: (
            None
            if len(size) != 4
            else ((theta,), {"size": tuple(size[2:]), "corners": align_corners})
        )
    }
    formula = "grid = [column, row, 1] theta^T"
    source = "Jaderberg et al. 2015"

    @staticmethod
    def forward(
        theta: Tensor, *, size: tuple[int, int], corners: bool = False
    ) -> tuple[Tensor, Saved]:
        """Homogeneous coordinates, -1 .. 1."""
        base = _base(theta, size, corners)
        grid = base @ theta.mT
        return grid.view(-1, *size, 2), (base,)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """A matrix product's."""
        (base,) = saved
        return (dy.flatten(1, 2).mT @ base,)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Both alignments."""
        yield Case("edges", lambda r: (r(2, 2, 3),), {"size": (5, 4)})
        yield Case("corners", lambda r: (r(2, 2, 3),), {"size": (5, 4), "corners": True})


def _base(theta: Tensor, size: tuple[int, int], corners: bool) -> Tensor:
    axes = []
    for n in size:
        i = torch.arange(n, dtype=theta.dtype, device=theta.device)
        if corners:
            axes.append(2 * i / (n - 1) - 1 if n > 1 else torch.zeros_like(i))
        else:
            axes.append((2 * i + 1) / n - 1)
    row, col = torch.meshgrid(*axes, indexing="ij")
    return (
        torch.stack([col, row, torch.ones_like(row)], -1).view(1, -1, 3).expand(len(theta), -1, -1)
    )
