"""Putting tensors together and around: concatenation, padding, repetition, reordering in place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
    tuple_of,
)  # fmt: skip
from hubel.errors import ModelError


def _is_placeholder(t: Tensor) -> bool:
    """torch lets a tensor of shape (0,) stand in any concatenation."""
    return t.dim() == 1 and t.numel() == 0


def _catenated(tensors: Sequence[Tensor], dim: int = 0) -> Adapted | None:
    if any(_is_placeholder(t) for t in tensors) and not all(_is_placeholder(t) for t in tensors):
        return None
    return tuple(tensors), {"axis": dim % max(tensors[0].dim(), 1)}


@register
class Concat(Op):
    """Tensors alike but for one axis -> one tensor, side by side along it."""

    name = "concat"
    tensors = ("*xs",)
    linear_in = ("*xs",)
    formula = "y = [x_1, x_2, ...];  dx_i = part i of dy"
    source = "joins branches: Szegedy et al. 2014; skips: Ronneberger et al. 2015"
    spellings = {"cat.default": _catenated}

    @staticmethod
    def forward(*xs: Tensor, axis: int) -> tuple[Tensor, Saved]:
        """Raises `ModelError` where another axis differs."""
        first = xs[0].shape
        for x in xs[1:]:
            if x.dim() != len(first) or any(
                a != b for i, (a, b) in enumerate(zip(x.shape, first, strict=True)) if i != axis
            ):
                raise ModelError(
                    f"cannot join {[tuple(t.shape) for t in xs]} along axis {axis}: "
                    "all other sizes must be equal"
                )
        return torch.cat(xs, axis), (axis, [x.size(axis) for x in xs], [x.dtype for x in xs])

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Cut at the seams."""
        axis, sizes, dtypes = saved
        parts = dy.split(sizes, axis)
        return tuple(p.to(dtype) for p, dtype in zip(parts, dtypes, strict=True))

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Channels of different width, rows."""
        yield Case("channels", lambda r: (r(2, 3, 4), r(2, 1, 4), r(2, 2, 4)), {"axis": 1})
        yield Case("rows", lambda r: (r(2, 3), r(5, 3)), {"axis": 0})
        yield Case(
            "sizes that differ", lambda r: (r(2, 3, 4), r(2, 3, 5)), {"axis": 1},
            error="all other sizes must be equal",
        )  # fmt: skip


@register
class Stack(Op):
    """Tensors of one shape -> one tensor with a new axis to tell them apart."""

    name = "stack"
    tensors = ("*xs",)
    linear_in = ("*xs",)
    formula = "y[..., i, ...] = x_i;  dx_i = dy[..., i, ...]"
    spellings = {
        "stack.default": lambda tensors, dim=0: (
            tuple(tensors), {"axis": dim % (tensors[0].dim() + 1)},
        )
    }  # fmt: skip

    @staticmethod
    def forward(*xs: Tensor, axis: int) -> tuple[Tensor, Saved]:
        """One behind the other."""
        return torch.stack(xs, axis), (axis,)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """One for each."""
        return tuple(dy.unbind(saved[0]))

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """The axes of the image move."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """A middle axis."""
        yield Case("middle", lambda r: (r(2, 3), r(2, 3), r(2, 3)), {"axis": 1})


def _padded(
    self: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Adapted:
    return (self,), {"sides": tuple(pad), "mode": mode, "value": float(value or 0)}


@register
class Pad(Op):
    """x -> with `sides` = (left, right, top, bottom, ...) more entries, last axis first.

    Modes: "constant" (`value`), "reflect", "replicate", "circular". Negative sides crop.
    """

    name = "pad"
    linear_in = ("x",)
    formula = "y = x with a border;  dx = sum of dy over every place that shows it"
    spellings = {
        "pad.default": _padded,
        "constant_pad_nd.default": lambda self, pad, value=0: _padded(self, pad, "constant", value),
    }

    @staticmethod
    def forward(
        x: Tensor, *, sides: tuple[int, ...], mode: str = "constant", value: float = 0
    ) -> tuple[Tensor, Saved]:
        """torch's own pad."""
        filled = {"value": value} if mode == "constant" else {}
        return torch.nn.functional.pad(x, sides, mode, **filled), (tuple(x.shape), sides, mode)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Pad the places' numbers the same way: they tell which entry each output shows."""
        shape, sides, mode = saved
        if mode == "constant":
            return (torch.nn.functional.pad(dy, [-n for n in sides]),)
        n = math.prod(shape)
        places = torch.arange(n, device=dy.device, dtype=torch.float64).view(shape)
        shown = torch.nn.functional.pad(places, sides, mode).long()
        dx = dy.new_zeros(n).index_add_(0, shown.reshape(-1), dy.reshape(-1))
        return (dx.view(shape),)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> Any:
        """The places move by the border in front."""
        x = shapes.inputs[0]
        assert x is not None
        same = Op.windows(shapes)[0]  # type: ignore[index]
        starts = [*options["sides"][::2], *[0] * len(x)]
        axes = range(len(x) - 2)
        return tuple(
            same._replace(
                low=same.low - starts[len(x) - 3 - i], high=same.high - starts[len(x) - 3 - i]
            )
            for i in axes
        )

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Constant, cropping, mirrored, edge repeated, wrapped."""
        yield Case("constant", lambda r: (r(2, 3, 5, 4),), {"sides": (1, 2, 0, 3), "value": 0.5})
        yield Case("cropping", lambda r: (r(2, 3, 5, 4),), {"sides": (-1, 2, 1, -2)})
        for mode in ("reflect", "replicate", "circular"):
            yield Case(mode, lambda r: (r(2, 3, 5, 4),), {"sides": (1, 2, 3, 0), "mode": mode})


@register
class Repeat(Op):
    """x -> tiled `times` along each axis (more of them than x has axes: new leading ones)."""

    name = "repeat"
    linear_in = ("x",)
    formula = "y = copies of x side by side;  dx = sum of dy over the copies"
    spellings = {"repeat.default": lambda self, repeats: ((self,), {"times": tuple(repeats)})}

    @staticmethod
    def forward(x: Tensor, *, times: tuple[int, ...]) -> tuple[Tensor, Saved]:
        """Copies in memory, unlike `expand`."""
        return x.repeat(times), (tuple(x.shape), times)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Fold every axis into (copy, entry) and sum the copies."""
        shape, times = saved
        whole = (*[1] * (len(times) - len(shape)), *shape)
        folded = [n for pair in zip(times, whole, strict=True) for n in pair]
        copies = tuple(range(0, 2 * len(times), 2))
        return (dy.reshape(folded).sum(copies).reshape(shape),)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """Places are repeated."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Existing axes and a new one."""
        yield Case("axes", lambda r: (r(2, 3),), {"times": (3, 2)})
        yield Case("a new axis", lambda r: (r(2, 3),), {"times": (2, 1, 2)})


@register
class Flip(Op):
    """x -> reversed along `axes`."""

    name = "flip"
    linear_in = ("x",)
    formula = "y = x reversed;  dx = dy reversed"
    spellings = {"flip.default": lambda self, dims: ((self,), {"axes": tuple(dims)})}

    @staticmethod
    def forward(x: Tensor, *, axes: tuple[int, ...]) -> tuple[Tensor, Saved]:
        """Its own inverse."""
        return x.flip(axes), (axes,)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Reversed again."""
        return (dy.flip(saved[0]),)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """Mirrored places are no window."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Two axes."""
        yield Case("two axes", lambda r: (r(2, 3, 5),), {"axes": (0, 2)})


@register
class Roll(Op):
    """x -> moved by `shifts` along `axes`, around the ends; without axes, as one long row."""

    name = "roll"
    linear_in = ("x",)
    formula = "y = x moved around;  dx = dy moved back"
    spellings = {
        "roll.default": lambda self, shifts, dims=(): (
            (self,), {"shifts": tuple_of(shifts, 1), "axes": tuple(dims)},
        )
    }  # fmt: skip

    @staticmethod
    def forward(
        x: Tensor, *, shifts: tuple[int, ...], axes: tuple[int, ...]
    ) -> tuple[Tensor, Saved]:
        """What leaves at one end comes in at the other."""
        return torch.roll(x, shifts, axes), (shifts, axes)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """The other way."""
        shifts, axes = saved
        return (torch.roll(dy, tuple(-s for s in shifts), axes),)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """Both ends are read."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Two axes, and all as one row."""
        yield Case("two axes", lambda r: (r(3, 5),), {"shifts": (1, -2), "axes": (0, 1)})
        yield Case("one row", lambda r: (r(3, 5),), {"shifts": (4,), "axes": ()})
