"""Copies of a tensor, and what a write leaves behind."""

from __future__ import annotations

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
    register,
    unbroadcast,
)  # fmt: skip


def _converted(
    self: Tensor, dtype: Any = None, layout: Any = None, device: Any = None,
    pin_memory: Any = None, non_blocking: bool = False, memory_format: Any = None,
) -> Adapted | None:  # fmt: skip
    if layout not in (None, torch.strided):
        return None
    return (self,), {"dtype": dtype, "device": device, "layout": memory_format}


@register
class Copy(Op):
    """x -> a copy, perhaps of another dtype, on another device or in another memory layout."""

    name = "copy"
    view = True  # torch may hand back the tensor itself
    linear_in = ("x",)
    formula = "y = x;  dx = dy in x's dtype, on its device"
    spellings = {
        "clone.default": lambda self, memory_format=None: _converted(
            self, memory_format=memory_format
        ),
        "contiguous.default": lambda self, memory_format=None: _converted(
            self, memory_format=memory_format
        ),
        "_to_copy.default": _converted,
        "alias.default": lambda self: ((self,), {"alias": True}),
        "lift_fresh.default": lambda self: ((self,), {"alias": True}),
    }

    @staticmethod
    def forward(
        x: Tensor, *, dtype: Any = None, device: Any = None, layout: Any = None,
        alias: bool = False,
    ) -> tuple[Tensor, Saved]:  # fmt: skip
        """`alias` shares the memory, else it is new."""
        saved = (x.dtype, x.device)
        if alias:
            return x.detach(), saved
        y = torch.ops.aten._to_copy(x, dtype=dtype, device=device, memory_format=layout)
        return y, saved

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Back to where and what x was."""
        dtype, device = saved
        return (dy.to(device=device, dtype=dtype),)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """A plain copy, an alias."""
        yield Case("plain", lambda r: (r(3, 5),))
        yield Case("alias", lambda r: (r(3, 5),), {"alias": True})


def _written(self: Tensor, value: Any, non_blocking: bool = False) -> Adapted:
    return (self, value), {}


@register
class Write(Op):
    """x and a value that broadcasts to it -> the value in x's shape: what `copy_` leaves behind."""

    name = "write"
    tensors = ("x", "value")
    linear_in = ("value",)
    formula = "y = value in x's shape;  dx = 0,  dvalue = sum of dy"
    spellings = {
        "copy.default": lambda self, src, non_blocking=False: ((self, src), {}),
        "fill.Scalar": _written,
        "fill.Tensor": _written,
        "zero.default": lambda self: ((self, 0.0), {}),
    }

    @staticmethod
    def forward(x: Tensor, value: Any) -> tuple[Tensor, Saved]:
        """Whatever x held is gone."""
        is_tensor = isinstance(value, Tensor)
        y = value.to(x).expand(x.shape).clone() if is_tensor else torch.full_like(x, value)
        return y, (tuple(value.shape) if is_tensor else None, value.dtype if is_tensor else None)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Nothing reaches what was overwritten."""
        shape, dtype = saved
        return None, None if shape is None else unbroadcast(dy, shape).to(dtype)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """A tensor that broadcasts, and a number."""
        yield Case("a tensor", lambda r: (r(3, 5), r(5)))
