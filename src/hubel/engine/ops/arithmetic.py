"""Sums, products, powers, choices: two values at a time, broadcast against each other.

Where broadcasting repeated a value, its gradient is the sum over the repetitions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hubel.engine.ops.base import (
    Adapted,
    Case,
    Grads,
    Op,
    Saved,
    Shapes,
    register,
    unbroadcast,
)  # fmt: skip

Number = Tensor | float


def shape_of(value: Number) -> tuple[int, ...]:
    """Shape of a tensor; () of a plain number."""
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def fit(gradient: Tensor, shape: tuple[int, ...], value: Any) -> Tensor | None:
    """The gradient in its argument's (shape); None where the argument is a plain number."""
    return unbroadcast(gradient, shape) if isinstance(value, Tensor) else None


def both(self: Any, other: Any) -> Adapted:
    """Adapter of operators that take two values and nothing else."""
    return (self, other), {}


def _scaled(self: Any, other: Any, alpha: float = 1) -> Adapted:
    return (self, other), {"alpha": alpha}


class Binary(Op):
    """x and y, tensors or numbers that broadcast -> their common shape."""

    tensors = ("x", "y")


@register
class Add(Binary):
    """x + alpha y."""

    name = "add"
    spellings = {"add.Tensor": _scaled, "add.Scalar": _scaled}
    formula = "z = x + a y;  dx = dz,  dy = a dz"
    linear_in = ("x", "y")

    @staticmethod
    def forward(x: Number, y: Number, *, alpha: float = 1) -> tuple[Any, Saved]:
        """The sum passes its gradient on to both."""
        z = x + y if alpha == 1 else x + alpha * y
        return z, (shape_of(x), shape_of(y), isinstance(x, Tensor), isinstance(y, Tensor), alpha)

    @staticmethod
    def backward(dz: Tensor, saved: Saved) -> Grads:
        """A copy for each."""
        x, y, x_is, y_is, alpha = saved
        return (
            unbroadcast(dz, x) if x_is else None,
            unbroadcast(dz if alpha == 1 else alpha * dz, y) if y_is else None,
        )

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Same shape, broadcast both ways, a number, a factor."""
        yield Case("same", lambda r: (r(3, 5), r(3, 5)))
        yield Case("broadcast", lambda r: (r(3, 1, 5), r(4, 1)), {"alpha": -1.5})
        yield Case("a number", lambda r: (r(3, 5), 2.5))


@register
class Subtract(Binary):
    """x - alpha y."""

    name = "subtract"
    spellings = {
        "sub.Tensor": _scaled, "sub.Scalar": _scaled,
        "rsub.Scalar": lambda self, other, alpha=1: ((other, self), {"alpha": alpha}),
        "rsub.Tensor": lambda self, other, alpha=1: ((other, self), {"alpha": alpha}),
    }  # fmt: skip
    formula = "z = x - a y;  dx = dz,  dy = -a dz"
    linear_in = ("x", "y")

    @staticmethod
    def forward(x: Number, y: Number, *, alpha: float = 1) -> tuple[Any, Saved]:
        """Addition with the factor turned round."""
        return Add.forward(x, y, alpha=-alpha)

    @staticmethod
    def backward(dz: Tensor, saved: Saved) -> Grads:
        """Addition's."""
        return Add.backward(dz, saved)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Broadcast, numbers on either side."""
        yield Case("broadcast", lambda r: (r(3, 1, 5), r(4, 1)), {"alpha": 2})
        yield Case("number first", lambda r: (1.0, r(3, 5)))


@register
class Multiply(Binary):
    """x y, element by element."""

    name = "multiply"
    spellings = {"mul.Tensor": both, "mul.Scalar": both}
    formula = "z = x y;  dx = y dz,  dy = x dz"
    linear_in = ("x", "y")

    @staticmethod
    def forward(x: Number, y: Number) -> tuple[Any, Saved]:
        """Each is the other's slope."""
        return x * y, (x, y)

    @staticmethod
    def backward(dz: Tensor, saved: Saved) -> Grads:
        """Crossed over."""
        x, y = saved
        return fit(dz * y, shape_of(x), x), fit(dz * x, shape_of(y), y)

    @classmethod
    def fast_backward(cls, dz: Any, saved: Saved, needs: tuple[bool, ...]) -> Grads:
        """Only what is asked for."""
        x, y = saved
        return (
            fit(dz * y, shape_of(x), x) if needs[0] else None,
            fit(dz * x, shape_of(y), y) if needs[1] else None,
        )

    @classmethod
    def macs(cls, shapes: Shapes, **options: Any) -> int:
        """One product an element."""
        return math.prod(shapes.outputs[0])

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Same shape, broadcast, a number."""
        yield Case("same", lambda r: (r(3, 5), r(3, 5)))
        yield Case("broadcast", lambda r: (r(2, 1, 5), r(3, 1)))
        yield Case("a number", lambda r: (r(3, 5), -2.0))


def _unrounded(self: Any, other: Any, rounding_mode: str | None = None) -> Adapted | None:
    return both(self, other) if rounding_mode is None else None


@register
class Divide(Binary):
    """x / y, element by element."""

    name = "divide"
    spellings = {
        "div.Tensor": both, "div.Scalar": both, "true_divide.Tensor": both,
        "div.Tensor_mode": _unrounded,
    }  # fmt: skip
    formula = "z = x / y;  dx = dz / y,  dy = -dz z / y"
    linear_in = ("x",)

    @staticmethod
    def forward(x: Number, y: Number) -> tuple[Any, Saved]:
        """The quotient."""
        return x / y, (x, y)

    @staticmethod
    def backward(dz: Tensor, saved: Saved) -> Grads:
        """By the quotient rule."""
        x, y = saved
        return fit(dz / y, shape_of(x), x), fit(-dz * x / (y * y), shape_of(y), y)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Away from division by zero."""
        yield Case("broadcast", lambda r: (r(2, 1, 5), r(3, 1).abs() + 0.5))
        yield Case("a number", lambda r: (r(3, 5), -2.0))
        yield Case("number first", lambda r: (1.0, r(3, 5).abs() + 0.5))


@register
class Power(Binary):
    """x to the y, element by element; 0 to the 0 is 1, with slope 0."""

    name = "power"
    spellings = {
        "pow.Tensor_Scalar": lambda self, exponent: ((self, exponent), {}),
        "pow.Tensor_Tensor": lambda self, exponent: ((self, exponent), {}),
        "pow.Scalar": lambda self, exponent: ((self, exponent), {}),
    }
    formula = "z = x^y;  dx = y x^(y - 1) dz,  dy = log(x) z dz"

    @staticmethod
    def forward(x: Number, y: Number) -> tuple[Any, Saved]:
        """The power."""
        z = torch.pow(x, y)  # type: ignore[arg-type]
        return z, (x, y, z)

    @staticmethod
    def backward(dz: Tensor, saved: Saved) -> Grads:
        """By the base and, where it is a tensor, by the exponent."""
        x, y, z = saved
        dx = dy = None
        if isinstance(x, Tensor):
            if isinstance(y, Tensor):
                slope = torch.where(y == 0, torch.zeros_like(z), y * x ** (y - 1))
            else:
                slope = torch.zeros_like(x) if y == 0 else y * x ** (y - 1)
            dx = unbroadcast(dz * slope, shape_of(x))
        if isinstance(y, Tensor):
            base = x if isinstance(x, Tensor) else torch.full_like(y, x)
            slope = torch.where((base == 0) & (y >= 0), torch.zeros_like(z), base.log() * z)
            dy = unbroadcast(dz * slope, shape_of(y))
        return dx, dy

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Number as exponent, tensors, number as base."""
        yield Case("cubed", lambda r: (r(3, 5), 3))
        yield Case("root", lambda r: (r(3, 5).abs() + 0.5, 0.5))
        yield Case("tensors", lambda r: (r(2, 1, 5).abs() + 0.5, r(3, 1)))
        yield Case("number as base", lambda r: (2.0, r(3, 5)))


@register
class MultiplyAdd(Op):
    """x + value t1 t2 (or t1 / t2 with `divide`), broadcast."""

    name = "multiply_add"
    tensors = ("x", "t1", "t2")
    spellings = {
        "addcmul.default": lambda self, tensor1, tensor2, value=1: (
            (self, tensor1, tensor2), {"value": value, "divide": False},
        ),
        "addcdiv.default": lambda self, tensor1, tensor2, value=1: (
            (self, tensor1, tensor2), {"value": value, "divide": True},
        ),
    }  # fmt: skip
    formula = "y = x + v t1 t2"

    @staticmethod
    def forward(
        x: Tensor, t1: Tensor, t2: Tensor, *, value: float = 1, divide: bool = False
    ) -> tuple[Tensor, Saved]:
        """Product or quotient, added."""
        product = t1 / t2 if divide else t1 * t2
        return x + value * product, (shape_of(x), t1, t2, value, divide)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """The sum's and the product's."""
        x, t1, t2, value, divide = saved
        up = value * dy
        if divide:
            d1, d2 = Divide.backward(up, (t1, t2))
        else:
            d1, d2 = Multiply.backward(up, (t1, t2))
        return unbroadcast(dy, x), d1, d2

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Product and quotient."""
        yield Case("product", lambda r: (r(3, 5), r(5), r(3, 1)), {"value": 0.7})
        yield Case(
            "quotient", lambda r: (r(3, 5), r(3, 5), r(5).abs() + 0.5),
            {"value": 0.7, "divide": True},
        )  # fmt: skip


@register
class Interpolate(Op):
    """x + weight (y - x), broadcast; `weight` a tensor or a number."""

    name = "lerp"
    tensors = ("x", "y", "weight")
    spellings = {
        "lerp.Scalar": lambda self, end, weight: ((self, end, weight), {}),
        "lerp.Tensor": lambda self, end, weight: ((self, end, weight), {}),
    }
    formula = "z = x + w (y - x);  dx = (1 - w) dz,  dy = w dz,  dw = (y - x) dz"
    linear_in = ("x", "y")

    @staticmethod
    def forward(x: Tensor, y: Tensor, weight: Number) -> tuple[Tensor, Saved]:
        """A point on the way from x to y."""
        return x + weight * (y - x), (x, y, weight)

    @staticmethod
    def backward(dz: Tensor, saved: Saved) -> Grads:
        """Both ends, and the way."""
        x, y, weight = saved
        return (
            unbroadcast((1 - weight) * dz, shape_of(x)),
            unbroadcast(weight * dz, shape_of(y)),
            fit((y - x) * dz, shape_of(weight), weight),
        )

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """A number and a tensor as weight."""
        yield Case("a number", lambda r: (r(3, 5), r(3, 5), 0.3))
        yield Case("a tensor", lambda r: (r(3, 5), r(5), r(3, 1)))


@register
class Remainder(Binary):
    """What is left of x after whole multiples of y (a number); with `truncate` as C's fmod."""

    name = "remainder"
    spellings = {
        "remainder.Scalar": lambda self, other: ((self, other), {}),
        "fmod.Scalar": lambda self, other: ((self, other), {"truncate": True}),
    }
    formula = "z = x - y floor(x / y);  dx = dz"

    @staticmethod
    def forward(x: Tensor, y: float, *, truncate: bool = False) -> tuple[Tensor, Saved]:
        """A saw-tooth: slope 1 everywhere but at the jumps."""
        return (torch.fmod(x, y) if truncate else torch.remainder(x, y)), ()

    @staticmethod
    def backward(dz: Tensor, saved: Saved) -> Grads:
        """Straight through."""
        return dz, None

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Both roundings."""
        yield Case("floor", lambda r: (r(3, 5), 0.7))
        yield Case("truncate", lambda r: (r(3, 5), 0.7), {"truncate": True})
