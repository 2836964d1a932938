"""Dropout: some of the values are set to zero, the others grow to make up for it.

The mask is an argument, so that the same call twice is the same: chance stands outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hubel.engine.ops.base import Adapted, Case, Grads, Op, Saved, register


def _per_element(input: Tensor, p: float, train: bool) -> Adapted:
    if not train or p == 0:
        return (input, None), {"p": 0.0}
    if p == 1:
        return (input, torch.zeros_like(input)), {"p": 0.0}  # all zero: nothing left to grow
    return (input, torch.empty_like(input).bernoulli_(1 - p)), {"p": p}


def _per_channel(input: Tensor, p: float, train: bool) -> Adapted | None:
    if not train or p in (0, 1) or input.dim() < 2:
        return _per_element(input, p, train)
    shape = (*input.shape[:2], *[1] * (input.dim() - 2))
    return (input, input.new_empty(shape).bernoulli_(1 - p)), {"p": p}


@register
class Dropout(Op):
    """x of any shape, mask (0 and 1, broadcasting to it) or None -> the same shape."""

    name = "dropout"
    tensors = ("x", "mask")
    spellings = {"dropout.default": _per_element, "feature_dropout.default": _per_channel}
    formula = "y = x mask / (1 - p);  dx = dy mask / (1 - p)"
    source = "Srivastava et al. 2014; scaling in training (inverted dropout), nothing at test"
    linear_in = ("x",)
    fixed = ("mask",)

    @staticmethod
    def forward(x: Tensor, mask: Tensor | None = None, *, p: float) -> tuple[Tensor, Saved]:
        """Without a mask, as at test time, the input itself."""
        if mask is None:
            return x, (None, p)
        scaled = mask / (1 - p)
        return x * scaled, (scaled, p)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """The same mask, the same scale."""
        scaled, _ = saved
        return (dy if scaled is None else dy * scaled), None

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Single elements, whole channels, nothing dropped."""

        def half(r: Any, *shape: int) -> Tensor:
            return (r(*shape) > 0).double()

        yield Case("elements", lambda r: (r(3, 5, 7), half(r, 3, 5, 7)), {"p": 0.5})
        yield Case("channels", lambda r: (r(2, 3, 5, 4), half(r, 2, 3, 1, 1)), {"p": 0.3})
        yield Case("off", lambda r: (r(3, 5), None), {"p": 0.0})
