"""Writing and adding into entries by number: the other way round from picking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hubel.engine.ops.base import (
    Adapted,
    Case,
    Grads,
    Saved,
    register,
    unbroadcast,
)  # fmt: skip
from hubel.engine.ops.index import Pick


def _put(
    self: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False,
    unsafe: bool = False,
) -> Adapted:  # fmt: skip
    return (self, values, *indices), {"accumulate": accumulate}


@register
class IndexPut(Pick):
    """x, values, and one index per axis -> x with values written (or added) at x[i, j, ...]."""

    name = "index_put"
    tensors = ("x", "values", "*indices")
    linear_in = ("x", "values")
    formula = "y = x, y[i, j] = v (or += v);  dx = dy, 0 where written;  dv = dy[i, j]"
    spellings = {"index_put.default": _put, "_unsafe_index_put.default": _put}

    @staticmethod
    def forward(
        x: Tensor, values: Tensor, *indices: Tensor | None, accumulate: bool = False
    ) -> tuple[Tensor, Saved]:
        """Where two values are written to one place, either may stay."""
        y = torch.ops.aten.index_put(x, list(indices), values, accumulate)
        return y, (tuple(values.shape), indices, accumulate)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """What was written over gets nothing."""
        shape, indices, accumulate = saved
        dx = dy
        if not accumulate:
            dx = torch.ops.aten.index_put(dy, list(indices), dy.new_zeros(()))
        dvalues = unbroadcast(torch.ops.aten.index(dy, list(indices)), shape)
        return (dx, dvalues, *[None] * len(indices))

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Writing, adding with repetitions."""
        i, j = torch.tensor([0, 2, 1]), torch.tensor([1, 1, 0])
        yield Case("writing", lambda r: (r(3, 2, 5), r(3, 5), i, j))
        again = torch.tensor([0, 2, 2])
        yield Case("adding", lambda r: (r(3), r(3), again), {"accumulate": True})


@register
class ScatterAdd(Pick):
    """x, source, index (int64) -> x with source[i, j] added at x[i, index[i, j]]."""

    name = "scatter_add"
    tensors = ("x", "source", "index")
    linear_in = ("x", "source")
    formula = "y = x, y[i, index[i, j]] += s[i, j];  dx = dy,  ds = dy gathered"
    spellings = {
        "scatter_add.default": lambda self, dim, index, src: ((self, src, index), {"axis": dim})
    }

    @staticmethod
    def forward(x: Tensor, source: Tensor, index: Tensor, *, axis: int) -> tuple[Tensor, Saved]:
        """Repeated places add up."""
        return x.scatter_add(axis, index, source), (tuple(source.shape), index, axis)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Entries of `source` beyond the index's shape were never used."""
        shape, index, axis = saved
        used = dy.gather(axis, index)
        dsource = dy.new_zeros(shape)
        dsource[tuple(slice(n) for n in index.shape)] = used
        return dy, dsource, None

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """With repetitions."""
        index = torch.tensor([[0, 2, 2], [1, 1, 0]])
        yield Case("repeated", lambda r: (r(2, 4), r(2, 3), index), {"axis": 1})


def _scattered(self: Tensor, dim: int, index: Tensor, src: Tensor) -> Adapted:
    return (self, src, index), {"axis": dim}


@register
class Scatter(Pick):
    """x, source or a number, index (int64) -> x with source[i, j] written at x[i, index[i, j]]."""

    name = "scatter"
    tensors = ("x", "source", "index")
    linear_in = ("x", "source")
    spellings = {
        "scatter.src": _scattered,
        "scatter.value": lambda self, dim, index, value: ((self, value, index), {"axis": dim}),
    }
    formula = "y = x, y[i, index[i, j]] = s[i, j];  dx = dy, 0 where written;  ds = dy gathered"

    @staticmethod
    def forward(x: Tensor, source: Any, index: Tensor, *, axis: int) -> tuple[Tensor, Saved]:
        """Where two are written to one place, either may stay."""
        shape = tuple(source.shape) if isinstance(source, Tensor) else None
        return x.scatter(axis, index, source), (shape, index, axis)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """What was written over gets nothing."""
        shape, index, axis = saved
        dx = dy.scatter(axis, index, 0.0)
        if shape is None:
            return dx, None, None
        dsource = dy.new_zeros(shape)
        dsource[tuple(slice(n) for n in index.shape)] = dy.gather(axis, index)
        return dx, dsource, None

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Tensor and number."""
        index = torch.tensor([[0, 2, 3], [1, 3, 0]])
        yield Case("a tensor", lambda r: (r(2, 4), r(2, 3), index), {"axis": 1})
        yield Case("a number", lambda r: (r(2, 4), 0.5, index), {"axis": 1})


@register
class IndexAdd(Pick):
    """x, index (n) int64, source -> x with `alpha` source added to the entries along one axis."""

    name = "index_add"
    tensors = ("x", "index", "source")
    linear_in = ("x", "source")
    spellings = {
        "index_add.default": lambda self, dim, index, source, alpha=1: (
            (self, index, source), {"axis": dim, "alpha": alpha},
        )
    }  # fmt: skip
    formula = "y = x, y[:, index[j]] += a s[:, j];  dx = dy,  ds = a dy[:, index]"

    @staticmethod
    def forward(
        x: Tensor, index: Tensor, source: Tensor, *, axis: int, alpha: float = 1
    ) -> tuple[Tensor, Saved]:
        """Repeated entries add up."""
        return x.index_add(axis, index, source, alpha=alpha), (index, source.shape, axis, alpha)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Each entry reads its place."""
        index, shape, axis, alpha = saved
        ds = (
            alpha * dy.index_select(axis, index)
            if dy.dim()
            else alpha * dy.expand(index.shape).sum()
        )
        return dy, None, ds.reshape(shape)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """With repetitions."""
        index = torch.tensor([0, 2, 2])
        yield Case("repeated", lambda r: (r(2, 4), index, r(2, 3)), {"axis": 1, "alpha": 0.7})
