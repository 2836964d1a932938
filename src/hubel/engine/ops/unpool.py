"""The way back from pooling: values to the places their maxima came from, or to a fixed corner."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from hubel.engine.ops.base import Adapted, Case, Grads, Op, Saved, Shape, Shapes, Window, register
from hubel.engine.ops.columns import last
from hubel.errors import ModelError


def _unpooled(n: int) -> Any:
    def adapt(self: Tensor, indices: Tensor, output_size: Any, *rest: Any, **named: Any) -> Adapted:
        return (self, indices), {"size": tuple(output_size)}

    return adapt


@register
class MaxUnpool(Op):
    """x (N, C, *S), places (same shape, int64, row-major) -> (N, C, *size), zeros elsewhere."""

    name = "max_unpool"
    tensors = ("x", "places")
    linear_in = ("x",)
    spellings = {"max_unpool2d.default": _unpooled(2), "max_unpool3d.default": _unpooled(3)}
    formula = "y = x at the remembered places, else 0;  dx = dy at those places"
    source = "Zeiler and Fergus 2014; Noh et al. 2015"

    @staticmethod
    def forward(x: Tensor, places: Tensor, *, size: Shape) -> tuple[Tensor, Saved]:
        """Raises `ModelError` for a place outside."""
        n, room = len(size), math.prod(size)
        if places.numel() and not 0 <= int(places.min()) <= int(places.max()) < room:
            raise ModelError(
                f"unpooling to {size} has places 0 to {room - 1}, given up to {int(places.max())}"
            )
        y = x.new_zeros(*x.shape[:-n], room)
        y.scatter_(-1, places.flatten(-n), x.flatten(-n))
        return y.view(*x.shape[:-n], *size), (places, n, tuple(x.shape))

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Each value reads its place."""
        places, n, shape = saved
        return dy.flatten(-n).gather(-1, places.flatten(-n)).view(shape), None

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """Places depend on the image."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Places that a 2x2 pooling of 4x6 gave."""
        places = torch.tensor([[[[0, 9, 4], [18, 14, 23]]]]).expand(2, 3, 2, 3)
        yield Case("plain", lambda r: (r(2, 3, 2, 3), places), {"size": (4, 6)})
        yield Case(
            "a place outside", lambda r: (r(2, 3, 2, 3), places), {"size": (4, 5)},
            error="places 0 to 19, given up to 23",
        )  # fmt: skip


@register
class BedOfNails(Op):
    """x (N, C, H, W) -> (N, C, H S, W S): each value in the first corner of its block, else 0."""

    name = "bed_of_nails"
    linear_in = ("x",)
    formula = "y[i S] = x[i], else 0;  dx[i] = dy[i S]"
    source = "the simplest unpooling; needs no memory of the maxima"

    @staticmethod
    def forward(x: Tensor, *, stride: tuple[int, ...]) -> tuple[Tensor, Saved]:
        """Zeros between the nails."""
        size = [n * s for n, s in zip(x.shape[2:], stride, strict=True)]
        y = x.new_zeros(*x.shape[:2], *size)
        nails = last([slice(None, None, s) for s in stride])
        y[nails] = x
        return y, (nails,)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Only the nails count."""
        return (dy[saved[0]],)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> tuple[Window, ...]:
        """Output i stands over input i / S."""
        return tuple(Window(Fraction(1, s), Fraction(0), Fraction(0)) for s in options["stride"])

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Unequal strides."""
        yield Case("plain", lambda r: (r(2, 3, 3, 5),), {"stride": (2, 3)})
