"""Picking entries by number, and adding into entries by number; embeddings are the former.

Each is the other's backward: what was read twice gets two gradients, added.
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
    Shapes,
    register,
    unbroadcast,
)  # fmt: skip
from hubel.errors import ModelError


class Pick(Op):
    """What the pickers share: no window."""

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> Any:
        """Which places are read is in the numbers."""
        return None


def _embedded(
    weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Adapted | None:  # fmt: skip
    if scale_grad_by_freq:
        return None
    return (weight, indices), {"padding": padding_idx}


@register
class Embedding(Pick):
    """w (V, E), index (...) int64 below V -> (..., E): row `index` of the table.

    `padding` is a row whose gradient stays zero.
    """

    name = "embedding"
    tensors = ("w", "index")
    linear_in = ("w",)
    formula = "y = w[index];  dw[i] = sum of dy where index is i"
    source = "Bengio et al. 2003"
    spellings = {"embedding.default": _embedded}

    @staticmethod
    def forward(w: Tensor, index: Tensor, *, padding: int = -1) -> tuple[Tensor, Saved]:
        """Raises `ModelError` for a number that is not in the table."""
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < w.size(0):
            raise ModelError(
                f"the table has rows 0 to {w.size(0) - 1}, asked for "
                f"{int(index.min())} to {int(index.max())}"
            )
        return w[index], (tuple(w.shape), index, padding)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Rows add up."""
        shape, index, padding = saved
        dw = dy.new_zeros(shape)
        dw.index_add_(0, index.reshape(-1), dy.reshape(-1, shape[1]))
        if padding >= 0:
            dw[padding] = 0
        return dw, None

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Repeated rows, a padding row, a number too large."""
        index = torch.tensor([[0, 2, 2], [4, 0, 1]])
        yield Case("repeated rows", lambda r: (r(5, 3), index))
        yield Case("out of the table", lambda r: (r(3, 2), index), error="rows 0 to 2, asked for")


@register
class Gather(Pick):
    """x, index (int64) -> index's shape: along one axis, entry index[...] of the same line."""

    name = "gather"
    tensors = ("x", "index")
    linear_in = ("x",)
    formula = "y[i, j] = x[i, index[i, j]];  dx = dy added there"
    spellings = {
        "gather.default": lambda self, dim, index, sparse_grad=False: (
            (self, index), {"axis": dim},
        )
    }  # fmt: skip

    @staticmethod
    def forward(x: Tensor, index: Tensor, *, axis: int) -> tuple[Tensor, Saved]:
        """One entry per number."""
        return x.gather(axis, index), (tuple(x.shape), index, axis)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Added back."""
        shape, index, axis = saved
        return dy.new_zeros(shape).scatter_add_(axis, index, dy), None

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """With repetitions."""
        index = torch.tensor([[0, 2, 2], [1, 1, 0]])
        yield Case("repeated", lambda r: (r(2, 4), index), {"axis": 1})


@register
class IndexSelect(Pick):
    """x, index (n) int64 -> x with the chosen entries along one axis."""

    name = "index_select"
    tensors = ("x", "index")
    linear_in = ("x",)
    formula = "y = x[:, index];  dx = dy added there"
    spellings = {"index_select.default": lambda self, dim, index: ((self, index), {"axis": dim})}

    @staticmethod
    def forward(x: Tensor, index: Tensor, *, axis: int) -> tuple[Tensor, Saved]:
        """Whole lines."""
        return x.index_select(axis, index), (tuple(x.shape), index, axis)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Lines add up."""
        shape, index, axis = saved
        if not shape:
            return dy.sum().reshape(shape), None
        return dy.new_zeros(shape).index_add_(axis, index, dy), None

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """With repetitions."""
        index = torch.tensor([0, 2, 2])
        yield Case("repeated", lambda r: (r(2, 4, 3), index), {"axis": 1})


def _indexed(self: Tensor, indices: Sequence[Tensor | None]) -> Adapted:
    return (self, *indices), {}


@register
class Index(Pick):
    """x and one index tensor (int64 or bool) or None per axis -> x[i, j, ...]."""

    name = "index"
    tensors = ("x", "*indices")
    linear_in = ("x",)
    formula = "y = x[i, j, ...];  dx = dy added there"
    spellings = {"index.Tensor": _indexed}

    @staticmethod
    def forward(x: Tensor, *indices: Tensor | None) -> tuple[Tensor, Saved]:
        """As NumPy's indexing by arrays; None takes the whole axis."""
        y = torch.ops.aten.index(x, list(indices))
        return y, (tuple(x.shape), indices)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Added back, repetitions too."""
        shape, indices = saved
        dx = torch.ops.aten.index_put(dy.new_zeros(shape), list(indices), dy, accumulate=True)
        return (dx, *[None] * len(indices))

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Two axes, a skipped axis, a mask."""
        i, j = torch.tensor([0, 2, 2]), torch.tensor([1, 1, 0])
        yield Case("two axes", lambda r: (r(3, 2, 5), i, j))
        yield Case("second axis", lambda r: (r(2, 3, 5), None, i))
        yield Case("a mask", lambda r: (r(3, 5), r(3, 5) > 0))


@register
class MaskedSelect(Pick):
    """x, mask (bool) that broadcasts with it -> (n): the entries where the mask holds."""

    name = "masked_select"
    tensors = ("x", "mask")
    linear_in = ("x",)
    formula = "y = x where m, in a row;  dx = dy there, else 0"
    spellings = {"masked_select.default": lambda self, mask: ((self, mask), {})}

    @staticmethod
    def forward(x: Tensor, mask: Tensor) -> tuple[Tensor, Saved]:
        """How many there are depends on the mask."""
        return x.masked_select(mask), (tuple(x.shape), mask)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Back to their places."""
        shape, mask = saved
        whole = torch.broadcast_shapes(shape, mask.shape)
        dx = dy.new_zeros(whole).masked_scatter_(mask, dy)
        return unbroadcast(dx, shape), None

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Same shape, broadcast."""
        yield Case("same", lambda r: (r(3, 5), r(3, 5) > 0))
        yield Case("broadcast", lambda r: (r(3, 1), r(3, 5) > 0))


class Triangle(Pick):
    """Half of a matrix, zeros elsewhere."""

    linear_in = ("x",)

    @staticmethod
    def part(x: Tensor, diagonal: int) -> Tensor:
        """The half."""
        raise NotImplementedError


def _triangle(name: str, part: Any, words: str) -> None:
    def forward(x: Tensor, *, diagonal: int = 0) -> tuple[Tensor, Saved]:
        return part(x, diagonal), (diagonal,)

    def backward(dy: Tensor, saved: Saved) -> Grads:
        return (part(dy, saved[0]),)

    def cases(cls: Any) -> Iterator[Case]:
        yield Case("off the diagonal", lambda r: (r(2, 4, 5),), {"diagonal": 1})

    body = {
        "name": name, "formula": f"y = x {words} the diagonal, else 0;  dx likewise",
        "spellings": {f"{name}.default": None}, "__module__": __name__,
        "__doc__": f"x (..., M, N) -> what stands {words} a diagonal.",
        "forward": staticmethod(forward), "backward": staticmethod(backward),
        "cases": classmethod(cases), "part": staticmethod(part),
    }  # fmt: skip
    register(type(name, (Triangle,), body))


_triangle("tril", torch.tril, "on and below")
_triangle("triu", torch.triu, "on and above")
