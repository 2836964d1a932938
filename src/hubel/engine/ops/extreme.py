"""The largest and the smallest: over axes, along an axis, in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hubel.engine.ops.base import Adapted, Case, Grads, Saved, register
from hubel.engine.ops.reduce import Axes, Reduction, axes_of, widened


def _extreme(sign: int) -> Any:
    def adapt(self: Tensor, dim: Any = None, keepdim: bool = False) -> Adapted:
        return (self,), {"axes": axes_of(self, dim), "keep": keepdim, "sign": sign}

    return adapt


@register
class Extreme(Reduction):
    """x -> the largest (sign 1) or smallest (-1) over `axes`; ties share the gradient evenly."""

    name = "extreme"
    formula = "y = max x;  dx = dy / (number of winners) at each winner"
    spellings = {
        "amax.default": _extreme(1), "amin.default": _extreme(-1),
        "max.default": _extreme(1), "min.default": _extreme(-1),
    }  # fmt: skip

    @staticmethod
    def forward(
        x: Tensor, *, axes: Axes, keep: bool = False, sign: int = 1
    ) -> tuple[Tensor, Saved]:
        """One value."""
        y = x.amax(axes, keepdim=True) if sign > 0 else x.amin(axes, keepdim=True)
        winners = x == y
        out = y if keep else y.squeeze(axes) if axes else y
        return out, (winners, axes, keep)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """To the winners."""
        winners, axes, keep = saved
        share = winners.sum(axes, keepdim=True) if winners.dim() else winners
        return (widened(dy, axes, keep) * winners / share,)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """All axes, places, the smallest."""
        yield Case("all", lambda r: (r(3, 5),), {"axes": (0, 1)})
        yield Case("places", lambda r: (r(2, 3, 5, 4),), {"axes": (2, 3)})
        yield Case("smallest", lambda r: (r(2, 3, 5),), {"axes": (1,), "sign": -1, "keep": True})


def _along(sign: int) -> Any:
    def adapt(self: Tensor, dim: int, keepdim: bool = False) -> Adapted:
        return (self,), {"axis": dim, "keep": keepdim, "sign": sign}

    return adapt


@register
class ExtremeAlong(Reduction):
    """x -> (value, place) of the largest (sign 1) or smallest along one axis; one winner only."""

    name = "extreme_along"
    formula = "y = max x along an axis, i its place;  dx = dy at i, else 0"
    spellings = {"max.dim": _along(1), "min.dim": _along(-1)}

    @staticmethod
    def forward(
        x: Tensor, *, axis: int, keep: bool = False, sign: int = 1
    ) -> tuple[tuple[Tensor, Tensor], Saved]:
        """Of equal values, torch's choice."""
        y, i = x.max(axis, keepdim=keep) if sign > 0 else x.min(axis, keepdim=keep)
        return (y, i), (tuple(x.shape), i, axis, keep)

    @staticmethod
    def backward(dy: Any, saved: Saved) -> Grads:
        """To the remembered place."""
        shape, i, axis, keep = saved
        d = dy[0]
        if not shape:
            return (d,)
        if not keep:
            d, i = d.unsqueeze(axis), i.unsqueeze(axis)
        return (d.new_zeros(shape).scatter_(axis, i, d),)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Middle axis, kept, the smallest."""
        yield Case("middle", lambda r: (r(2, 5, 3),), {"axis": 1})
        yield Case("kept", lambda r: (r(2, 5, 3),), {"axis": -1, "keep": True, "sign": -1})


def _ranked(
    self: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> Adapted:
    return (self,), {"k": k, "axis": dim, "descending": largest}


def _sorted(
    self: Tensor, dim: int = -1, descending: bool = False, stable: bool | None = None
) -> Adapted:
    n = self.size(dim) if self.dim() else 1
    return (self,), {"k": n, "axis": dim, "descending": descending}


@register
class TopK(Reduction):
    """x -> (values, places) of the k largest (or smallest) along one axis, in order."""

    name = "top_k"
    formula = "y = the k largest of x in order, i their places;  dx = dy at i, else 0"
    spellings = {
        "topk.default": _ranked, "sort.default": _sorted, "sort.stable": _sorted,
    }  # fmt: skip

    @staticmethod
    def forward(
        x: Tensor, *, k: int, axis: int = -1, descending: bool = True
    ) -> tuple[tuple[Tensor, Tensor], Saved]:
        """k = the whole length sorts."""
        whole = not x.dim() or k == x.size(axis)
        if whole:
            y, i = torch.sort(x, dim=axis, descending=descending, stable=True)
        else:
            y, i = x.topk(k, axis, largest=descending)
        return (y, i), (tuple(x.shape), i, axis)

    @staticmethod
    def backward(dy: Any, saved: Saved) -> Grads:
        """Back to where each came from."""
        shape, i, axis = saved
        if not shape:
            return (dy[0],)
        return (dy[0].new_zeros(shape).scatter_(axis, i, dy[0]),)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Some, all."""
        yield Case("three", lambda r: (r(2, 7),), {"k": 3})
        yield Case("sorted", lambda r: (r(5, 2),), {"k": 5, "axis": 0, "descending": False})
