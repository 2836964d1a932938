"""Scaled dot-product attention: every query reads a mixture of the values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hubel.engine.ops.base import Adapted, Case, Grads, Op, Saved, Shapes, register, unbroadcast


def _attended(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
    enable_gqa: bool = False,
) -> Adapted | None:  # fmt: skip
    if enable_gqa:
        return None
    drop = None
    if dropout_p > 0:
        shape = (*query.shape[:-1], key.size(-2))
        drop = query.new_empty(shape).bernoulli_(1 - dropout_p) / (1 - dropout_p)
    mask = attn_mask
    if is_causal:
        mask = torch.ones(
            query.size(-2), key.size(-2), dtype=torch.bool, device=query.device
        ).tril()
    scale = 1 / math.sqrt(query.size(-1)) if scale is None else scale
    return (query, key, value, mask, drop), {"scale": scale}


@register
class Attention(Op):
    """q (..., L, E), k (..., M, E), v (..., M, F), mask (..., L, M) or None -> (..., L, F).

    A bool mask says what may be read, a float mask is added to the scores; `drop` (..., L, M)
    multiplies the weights (dropout, already scaled). A query that may read nothing gets 0.
    """

    name = "attention"
    fixed = ("drop",)
    tensors = ("q", "k", "v", "mask", "drop")
    spellings = {"scaled_dot_product_attention.default": _attended}
    formula = "y = p v,  p = softmax(s q k^T + mask);  dv = p^T dy,  ds = p (dp - sum dp p)"
    source = "Vaswani et al. 2017"
    linear_in = ("v",)

    @staticmethod
    def forward(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, drop: Tensor | None = None, *,
        scale: float,
    ) -> tuple[Tensor, Saved]:  # fmt: skip
        """Scores, weights, mixture."""
        scores = q @ k.mT * scale
        if mask is not None:
            hide = mask.dtype == torch.bool
            scores = scores.masked_fill(~mask, -math.inf) if hide else scores + mask
        top = scores.amax(-1, keepdim=True)
        e = torch.exp(scores - torch.where(top.isinf(), torch.zeros_like(top), top))
        total = e.sum(-1, keepdim=True)
        p = torch.where(total == 0, torch.zeros_like(e), e / total)
        weights = p if drop is None else p * drop
        shape = None if mask is None or mask.dtype == torch.bool else tuple(mask.shape)
        return weights @ v, (q, k, v, p, drop, scale, shape)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Through the mixture, the softmax and the scores."""
        q, k, v, p, drop, scale, shape = saved
        weights = p if drop is None else p * drop
        dp = dy @ v.mT
        dp = dp if drop is None else dp * drop
        ds = p * (dp - (dp * p).sum(-1, keepdim=True))
        dq = unbroadcast(ds @ k * scale, q.shape)
        dk = unbroadcast(ds.mT @ q * scale, k.shape)
        dv = unbroadcast(weights.mT @ dy, v.shape)
        return dq, dk, dv, None if shape is None else unbroadcast(ds, shape), None

    @classmethod
    def macs(cls, shapes: Shapes, **options: Any) -> int:
        """Two matrix products."""
        q, k, v = shapes.inputs[:3]
        assert q is not None
        assert k is not None
        assert v is not None
        return math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """Every query may read everything."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Plain, both kinds of mask, a row that reads nothing."""

        def make(r: Any, mask: Any = None) -> tuple[Any, ...]:
            return r(2, 3, 5, 4), r(2, 3, 7, 4), r(2, 3, 7, 2), mask, None

        yield Case("plain", make, {"scale": 0.5})
        yield Case("added mask", lambda r: make(r, r(5, 7)), {"scale": 0.5})
        hidden = torch.ones(5, 7, dtype=torch.bool).tril()
        hidden[2] = False
        yield Case("hiding mask", lambda r: make(r, hidden), {"scale": 0.5})
