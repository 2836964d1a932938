"""Between places and channels: pixel shuffle, im2col and col2im."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from hubel.engine.ops.base import (
    Adapted,
    Case,
    Grads,
    Op,
    Saved,
    Shape,
    Shapes,
    register,
    tuple_of,
)  # fmt: skip
from hubel.engine.ops.columns import Geometry, columns, uncolumns
from hubel.errors import ModelError


@register
class PixelShuffle(Op):
    """x (N, C r r, H, W) -> (N, C, H r, W r): channels become places; r < 0: the other way."""

    name = "pixel_shuffle"
    linear_in = ("x",)
    formula = "y[c, h r + i, w r + j] = x[c r r + i r + j, h, w];  dx = dy shuffled back"
    source = "Shi et al. 2016"
    spellings = {
        "pixel_shuffle.default": lambda self, upscale_factor: ((self,), {"r": upscale_factor}),
        "pixel_unshuffle.default": lambda self, downscale_factor: (
            (self,),
            {"r": -downscale_factor},
        ),
    }

    @staticmethod
    def forward(x: Tensor, *, r: int) -> tuple[Tensor, Saved]:
        """Raises `ModelError` where r does not divide."""
        return (_shuffle(x, r) if r > 0 else _unshuffle(x, -r)), (r,)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """The inverse."""
        (r,) = saved
        return (_unshuffle(dy, r) if r > 0 else _shuffle(dy, -r),)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """Not one window for all outputs."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Both ways."""
        yield Case("up", lambda r: (r(2, 12, 3, 5),), {"r": 2})
        yield Case("down", lambda r: (r(2, 3, 6, 4),), {"r": -2})
        yield Case(
            "channels that do not divide", lambda r: (r(1, 5, 2, 2),), {"r": 2},
            error="not a multiple of 4",
        )  # fmt: skip


def _shuffle(x: Tensor, r: int) -> Tensor:
    *lead, c, h, w = x.shape
    if c % (r * r):
        raise ModelError(f"{c} channels are not a multiple of {r * r}")
    y = x.reshape(*lead, c // (r * r), r, r, h, w)
    n = len(lead)
    order = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return y.permute(order).reshape(*lead, c // (r * r), h * r, w * r)


def _unshuffle(x: Tensor, r: int) -> Tensor:
    *lead, c, h, w = x.shape
    if h % r or w % r:
        raise ModelError(f"a plane of {h}x{w} is not a multiple of {r}")
    y = x.reshape(*lead, c, h // r, r, w // r, r)
    n = len(lead)
    order = (*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return y.permute(order).reshape(*lead, c * r * r, h // r, w // r)


def _unfolded(
    self: Tensor, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> Adapted | None:
    if self.dim() != 4:
        return None
    geometry = [tuple_of(v, 2) for v in (kernel_size, stride, padding, dilation)]
    return (self,), {"geometry": Geometry(*geometry)}


@register
class Unfold(Op):
    """im2col: x (N, C, H, W) -> (N, C K K, L), a column per window."""

    name = "im2col"
    linear_in = ("x",)
    formula = "y = windows as columns;  dx = columns added back (col2im)"
    source = "Chellapilla et al. 2006"
    spellings = {"im2col.default": _unfolded}

    @staticmethod
    def forward(x: Tensor, *, geometry: Geometry) -> tuple[Tensor, Saved]:
        """One copy of each input for every window it is in."""
        out = geometry.out(x.shape[2:])
        cols = columns(x, geometry, out)
        rows = x.size(1) * math.prod(geometry.kernel)
        return cols.reshape(x.size(0), rows, math.prod(out)), (tuple(x.shape), geometry, out)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """col2im."""
        shape, geometry, out = saved
        cols = dy.reshape(*shape[:2], *geometry.kernel, *out)
        return (uncolumns(cols, geometry, shape[2:]),)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """The axes of the image are gone."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Everything uneven."""
        yield Case("uneven", lambda r: (r(2, 3, 7, 5),), {"geometry": _UNEVEN})


_UNEVEN = Geometry((3, 2), (2, 1), (1, 0), (1, 2))


def _folded(
    self: Tensor, output_size: Sequence[int], kernel_size: Any, dilation: Any, padding: Any,
    stride: Any,
) -> Adapted | None:  # fmt: skip
    if self.dim() != 3:
        return None
    geometry = [tuple_of(v, 2) for v in (kernel_size, stride, padding, dilation)]
    return (self,), {"geometry": Geometry(*geometry), "size": tuple(output_size)}


@register
class Fold(Op):
    """col2im: x (N, C K K, L) -> (N, C, *size), windows added where they overlap."""

    name = "col2im"
    linear_in = ("x",)
    formula = "y = columns added into the image;  dx = windows of dy as columns"
    spellings = {"col2im.default": _folded}

    @staticmethod
    def forward(x: Tensor, *, geometry: Geometry, size: Shape) -> tuple[Tensor, Saved]:
        """The adjoint of im2col."""
        out = geometry.out(size)
        channels = x.size(1) // math.prod(geometry.kernel)
        cols = x.reshape(x.size(0), channels, *geometry.kernel, *out)
        return uncolumns(cols, geometry, size), (tuple(x.shape), geometry, out)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """im2col."""
        shape, geometry, out = saved
        return (columns(dy, geometry, out).reshape(shape),)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """The axes of the image only come into being."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Everything uneven."""
        yield Case("uneven", lambda r: (r(2, 18, 12),), {"geometry": _UNEVEN, "size": (7, 5)})
