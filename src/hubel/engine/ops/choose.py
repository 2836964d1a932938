"""Choices between two values, element by element: the gradient goes the way the value came."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hubel.engine.ops.arithmetic import Binary, Number, both, fit, shape_of
from hubel.engine.ops.base import (
    Case,
    Grads,
    Op,
    Saved,
    register,
    unbroadcast,
)  # fmt: skip


class Choose(Binary):
    """The larger or the smaller of two; where they are equal, each gets half the gradient."""

    @staticmethod
    def prefers(x: Tensor, y: Tensor) -> Tensor:
        """Where x is taken."""
        raise NotImplementedError

    @staticmethod
    def backward(dz: Tensor, saved: Saved) -> Grads:
        """To the one that was taken."""
        first, tie, x, y = saved
        half = dz / 2
        zero = torch.zeros_like(dz)
        dx = torch.where(tie, half, torch.where(first, dz, zero))
        return unbroadcast(dx, x), unbroadcast(dz - dx, y)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Same shape and broadcast."""
        yield Case("same", lambda r: (r(3, 5), r(3, 5)))
        yield Case("broadcast", lambda r: (r(2, 1, 5), r(3, 1)))


@register
class Maximum(Choose):
    """max(x, y), element by element."""

    name = "maximum"
    spellings = {"maximum.default": both, "max.other": both}
    formula = "z = max(x, y);  dz goes to the larger, half to each at a tie"

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, Saved]:
        """The larger of two."""
        return torch.maximum(x, y), (x > y, x == y, shape_of(x), shape_of(y))


@register
class Minimum(Choose):
    """min(x, y), element by element."""

    name = "minimum"
    spellings = {"minimum.default": both, "min.other": both}
    formula = "z = min(x, y);  dz goes to the smaller, half to each at a tie"

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, Saved]:
        """The smaller of two."""
        return torch.minimum(x, y), (x < y, x == y, shape_of(x), shape_of(y))


@register
class Where(Op):
    """condition (bool), x, y that broadcast -> x where it holds, else y."""

    name = "where"
    tensors = ("condition", "x", "y")
    spellings = {
        f"where.{kind}": lambda condition, self, other: ((condition, self, other), {})
        for kind in ("self", "ScalarOther", "ScalarSelf", "Scalar")
    }
    formula = "z = x where c, else y;  dx = dz where c,  dy = dz where not c"
    linear_in = ("x", "y")

    @staticmethod
    def forward(condition: Tensor, x: Number, y: Number) -> tuple[Tensor, Saved]:
        """A choice element by element."""
        return torch.where(condition, x, y), (condition, shape_of(x), shape_of(y), x, y)

    @staticmethod
    def backward(dz: Tensor, saved: Saved) -> Grads:
        """The gradient goes the way the value came."""
        condition, x_shape, y_shape, x, y = saved
        zero = torch.zeros_like(dz)
        dx = fit(torch.where(condition, dz, zero), x_shape, x)
        return None, dx, fit(torch.where(condition, zero, dz), y_shape, y)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Same shape, broadcast, a number."""
        yield Case("same", lambda r: (r(3, 5) > 0, r(3, 5), r(3, 5)))
        yield Case("broadcast", lambda r: (r(2, 3, 1) > 0, r(1, 5), r(3, 1)))
        yield Case("a number", lambda r: (r(3, 5) > 0, r(3, 5), 0.5))


@register
class MaskedFill(Op):
    """x, mask (bool) that broadcasts to it, value -> x with value where the mask holds."""

    name = "masked_fill"
    tensors = ("x", "mask", "value")
    spellings = {
        "masked_fill.Scalar": lambda self, mask, value: ((self, mask, value), {}),
        "masked_fill.Tensor": lambda self, mask, value: ((self, mask, value), {}),
    }
    formula = "y = v where m, else x;  dx = dy where not m,  dv = sum of dy where m"
    linear_in = ("x",)

    @staticmethod
    def forward(x: Tensor, mask: Tensor, value: Number) -> tuple[Tensor, Saved]:
        """Masked places lose what they held."""
        return x.masked_fill(mask, value), (mask, shape_of(x), isinstance(value, Tensor))

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Nothing through the mask."""
        mask, shape, has_value = saved
        dvalue = torch.where(mask, dy, torch.zeros_like(dy)).sum() if has_value else None
        return unbroadcast(dy.masked_fill(mask, 0), shape), None, dvalue

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """A mask of its shape and one that broadcasts."""
        yield Case("same", lambda r: (r(3, 5), r(3, 5) > 0, 0.5))
        yield Case("broadcast", lambda r: (r(2, 3, 5), r(3, 1) > 0, -1e4))
