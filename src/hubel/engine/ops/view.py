"""The same numbers seen otherwise: reshape, permute, slices, repetition by stride, copies.

A view only moves numbers, so its backward moves gradients back: where one number was shown many
times they add up, where it was not shown they are zero.
"""

from __future__ import annotations

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
    Shape,
    Shapes,
    register,
    unbroadcast,
)  # fmt: skip


def _to(shape_of: Any) -> Any:
    """An adapter that finds the new shape by doing it."""

    def adapt(self: Tensor, **options: Any) -> Adapted:
        return (self,), {"shape": tuple(shape_of(self, **options).shape)}

    return adapt


@register
class Reshape(Op):
    """x -> the same numbers, in row-major order, in another shape."""

    name = "reshape"
    view = True
    linear_in = ("x",)
    formula = "y = x in another shape;  dx = dy in x's shape"
    spellings = {
        "view.default": lambda self, size: ((self,), {"shape": tuple(size)}),
        "_unsafe_view.default": lambda self, size: ((self,), {"shape": tuple(size)}),
        "reshape.default": lambda self, shape: ((self,), {"shape": tuple(shape)}),
        "flatten.using_ints": _to(torch.flatten),
        "squeeze.default": _to(torch.squeeze),
        "squeeze.dim": _to(torch.squeeze),
        "squeeze.dims": _to(torch.squeeze),
        "unsqueeze.default": _to(torch.unsqueeze),
        "unflatten.int": _to(lambda x, dim, sizes: x.unflatten(dim, sizes)),
    }

    @staticmethod
    def forward(x: Tensor, *, shape: Shape) -> tuple[Tensor, Saved]:
        """Nothing moves in memory where that can be helped."""
        return x.reshape(shape), (tuple(x.shape),)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Back to the old shape."""
        return (dy.reshape(saved[0]),)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> Any:
        """Places are lost where the axes of the image change."""
        x, y = shapes.inputs[0], shapes.outputs[0]
        same = x is not None and len(x) == len(y) and x[2:] == y[2:]
        return Op.windows(shapes) if same else None

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """To fewer and more axes."""
        yield Case("flat", lambda r: (r(2, 3, 5),), {"shape": (2, 15)})
        yield Case("more axes", lambda r: (r(6, 5),), {"shape": (2, 3, 1, 5)})


def _swap(self: Tensor, dim0: int, dim1: int) -> Adapted:
    axes = list(range(self.dim()))
    if axes:
        axes[dim0], axes[dim1] = axes[dim1], axes[dim0]
    return (self,), {"axes": tuple(axes)}


@register
class Permute(Op):
    """x -> its axes in the order `axes`."""

    name = "permute"
    view = True
    linear_in = ("x",)
    formula = "y = x with axes in another order;  dx = dy with them back"
    spellings = {
        "permute.default": lambda self, dims: (
            (self,),
            {"axes": tuple(d % max(self.dim(), 1) for d in dims)},
        ),
        "transpose.int": _swap,
        "t.default": lambda self: _swap(self, 0, -1),
    }

    @staticmethod
    def forward(x: Tensor, *, axes: tuple[int, ...]) -> tuple[Tensor, Saved]:
        """Axis axes[i] becomes axis i."""
        return x.permute(axes), (axes,)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """The inverse order."""
        (axes,) = saved
        return (dy.permute(sorted(range(len(axes)), key=axes.__getitem__)),)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> Any:
        """Places are lost where the axes of the image move."""
        axes = options["axes"]
        return Op.windows(shapes) if axes[2:] == tuple(range(2, len(axes))) else None

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """A cycle, which is not its own inverse."""
        yield Case("a cycle", lambda r: (r(2, 3, 5),), {"axes": (1, 2, 0)})


@register
class Expand(Op):
    """x -> shape `shape`, axes of length 1 repeated, without a copy."""

    name = "expand"
    view = True
    linear_in = ("x",)
    formula = "y = x repeated along axes of length 1;  dx = sum of dy over them"
    spellings = {
        "expand.default": lambda self, size, implicit=False: ((self,), {"shape": tuple(size)})
    }

    @staticmethod
    def forward(x: Tensor, *, shape: Shape) -> tuple[Tensor, Saved]:
        """-1 leaves an axis as it is."""
        return x.expand(shape), (tuple(x.shape),)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Repetitions add up."""
        return (unbroadcast(dy, saved[0]),)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """One number may stand for a whole plane."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Inner axes and new leading ones."""
        yield Case("inner", lambda r: (r(2, 1, 5),), {"shape": (2, 3, 5)})
        yield Case("leading", lambda r: (r(3, 1),), {"shape": (2, 3, 4)})


def _sliced(
    self: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Adapted:
    places = range(self.size(dim))[slice(start, end, step)]
    options = {"axis": dim % self.dim(), "start": places.start, "length": len(places), "step": step}
    return (self,), {**options, "keep": True}


def _selected(self: Tensor, dim: int, index: int) -> Adapted:
    axis = dim % self.dim()
    options = {"axis": axis, "start": index % self.size(axis), "length": 1, "step": 1}
    return (self,), {**options, "keep": False}


@register
class Slice(Op):
    """x -> every `step`-th of `length` entries from `start` along one axis; `keep` the axis."""

    name = "slice"
    view = True
    linear_in = ("x",)
    formula = "y = x[start : : step];  dx = dy there, else 0"
    spellings = {"slice.Tensor": _sliced, "select.int": _selected}

    @staticmethod
    def forward(
        x: Tensor, *, axis: int, start: int, length: int, step: int, keep: bool
    ) -> tuple[Tensor, Saved]:
        """A part of the tensor, without a copy."""
        place = _place(axis, start, length, step, keep)
        return x[place], (tuple(x.shape), place)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Zeros around."""
        shape, place = saved
        dx = dy.new_zeros(shape)
        dx[place] = dy
        return (dx,)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> Any:
        """A slice of an image axis moves and spreads the places."""
        axis, n = options["axis"], len(shapes.outputs[0])
        if not options["keep"]:
            return None
        if axis < 2:
            return Op.windows(shapes)
        same = Op.windows(shapes)[0]  # type: ignore[index]
        moved = same._replace(
            step=same.step * options["step"], low=same.low + options["start"],
            high=same.high + options["start"],
        )  # fmt: skip
        return tuple(moved if i == axis else same for i in range(2, n))

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """A step, a single entry, nothing at all."""
        part = {"axis": 1, "start": 1, "length": 2, "step": 3, "keep": True}
        yield Case("a step", lambda r: (r(2, 7, 3),), part)
        yield Case(
            "one entry", lambda r: (r(2, 7, 3),), {**part, "start": 4, "length": 1, "keep": False}
        )


def _place(axis: int, start: int, length: int, step: int, keep: bool) -> tuple[Any, ...]:
    chosen = slice(start, start + (length - 1) * step + 1 if length else start, step)
    return (*[slice(None)] * axis, chosen if keep else start)


def _parts(self: Tensor, sizes: Sequence[int], dim: int, keep: bool = True) -> Adapted:
    return (self,), {"axis": dim % self.dim(), "sizes": tuple(sizes), "keep": keep}


def _even(self: Tensor, split_size: int, dim: int = 0) -> Adapted:
    n = self.size(dim)
    sizes = [split_size] * (n // split_size) + ([n % split_size] if n % split_size else [])
    return _parts(self, sizes or [0], dim)


def _chunks(self: Tensor, chunks: int, dim: int = 0) -> Adapted:
    return _even(self, max(-(-self.size(dim) // chunks), 1), dim)


@register
class Split(Op):
    """x -> consecutive parts of `sizes` along one axis, each a view."""

    name = "split"
    view = True
    linear_in = ("x",)
    formula = "y_i = part i of x;  dx = the dy_i side by side"
    spellings = {
        "split.Tensor": _even,
        "unsafe_split.Tensor": _even,
        "split_with_sizes.default": lambda self, split_sizes, dim=0: _parts(self, split_sizes, dim),
        "split.sizes": lambda self, split_size, dim=0: _parts(self, split_size, dim),
        "chunk.default": _chunks,
        "unbind.int": lambda self, dim=0: _parts(self, [1] * self.size(dim), dim, keep=False),
    }

    @staticmethod
    def forward(
        x: Tensor, *, axis: int, sizes: tuple[int, ...], keep: bool = True
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Always a tuple, also of one part; `keep` False drops the axis (each size 1)."""
        parts = x.split(sizes, axis)
        return (parts if keep else tuple(p.squeeze(axis) for p in parts)), (
            tuple(x.shape), axis, sizes, keep,
        )  # fmt: skip

    @staticmethod
    def backward(dy: Any, saved: Saved) -> Grads:
        """A part without a gradient is zero."""
        shape, axis, sizes, keep = saved
        known = next(d for d in dy if d is not None)
        dx = known.new_zeros(shape)
        for part, d in zip(dx.split(sizes, axis), dy, strict=True):
            if d is not None:
                part.copy_(d if keep else d.unsqueeze(axis))
        return (dx,)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> Any:
        """Channels may be parted; places not."""
        whole = options["keep"] and options["axis"] < 2
        return Op.windows(shapes) if whole else None

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Uneven parts, single entries, one part."""
        yield Case("uneven", lambda r: (r(2, 7, 3),), {"axis": 1, "sizes": (2, 4, 1)})
        yield Case(
            "entries", lambda r: (r(2, 3, 2),), {"axis": 1, "sizes": (1, 1, 1), "keep": False}
        )
        yield Case("one part", lambda r: (r(1, 3),), {"axis": 0, "sizes": (1,), "keep": False})


@register
class Windows(Op):
    """x -> its windows of `size` entries every `step` along one axis, as a new last axis."""

    name = "windows"
    view = True
    linear_in = ("x",)
    formula = "y[i, k] = x[i step + k];  dx = dy added back where windows overlap"
    spellings = {
        "unfold.default": lambda self, dimension, size, step: (
            (self,), {"axis": dimension % max(self.dim(), 1), "size": size, "step": step},
        )
    }  # fmt: skip

    @staticmethod
    def forward(x: Tensor, *, axis: int, size: int, step: int) -> tuple[Tensor, Saved]:
        """Overlapping windows show the same memory."""
        return x.unfold(axis, size, step), (tuple(x.shape), axis, size, step)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """One entry of the window after the other."""
        shape, axis, size, step = saved
        if not shape:
            return (dy.sum().reshape(shape),)
        dx = dy.new_zeros(shape)
        for k in range(size):
            end = (dy.shape[axis] - 1) * step + k + 1
            dx[(*[slice(None)] * axis, slice(k, end, step))] += dy[..., k]
        return (dx,)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """The axes of the image move."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Overlapping."""
        yield Case("overlapping", lambda r: (r(2, 7, 3),), {"axis": 1, "size": 3, "step": 2})


@register
class Diagonal(Op):
    """x -> a diagonal of two of its axes, as a new last axis; a view."""

    name = "diagonal"
    view = True
    linear_in = ("x",)
    formula = "y[i] = x[i, i + offset];  dx = dy there, else 0"
    spellings = {
        "diagonal.default": lambda self, offset=0, dim1=0, dim2=1: (
            (self,), {"offset": offset, "one": dim1, "two": dim2},
        )
    }  # fmt: skip

    @staticmethod
    def forward(x: Tensor, *, offset: int = 0, one: int = 0, two: int = 1) -> tuple[Tensor, Saved]:
        """Without a copy."""
        return x.diagonal(offset, one, two), (tuple(x.shape), offset, one, two)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Zeros around."""
        shape, offset, one, two = saved
        dx = dy.new_zeros(shape)
        dx.diagonal(offset, one, two).copy_(dy)
        return (dx,)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """The axes of the image move."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Off the middle."""
        yield Case("off the middle", lambda r: (r(4, 3, 5),), {"offset": 1, "one": 0, "two": 2})
