"""Multiply-adds of one operator of torch's, from the shapes of its arguments.

PyTorch's own table of formulas has convolutions, matrix products and attention. It lacks products
with vectors, the bilinear layer and the recurrent layers' whole-sequence kernels: those are here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten


def macs(func: Any, args: Any, kwargs: Any, output: Any) -> int:
    """Multiply-adds of one call `output = func(*args, **kwargs)` of an ATen overload.

    0 for what is done element by element and for what only moves numbers. Products with the zeros
    of a padding count, as they do in every published figure.
    """
    packet = func._overloadpacket
    if packet in FORMULAS:
        return FORMULAS[packet](*args, **kwargs)
    formula = flop_registry.get(packet)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=output)) // 2


def _matrix_vector(matrix: Tensor, vector: Tensor) -> int:
    return matrix.numel()


def _added_matrix_vector(start: Tensor, matrix: Tensor, vector: Tensor, **scales: Any) -> int:
    return matrix.numel()


def _dot(one: Tensor, other: Tensor) -> int:
    return one.numel()


def _added_products(start: Tensor, one: Tensor, other: Tensor, **scales: Any) -> int:
    """(B, N, K) times (B, K, M), added up over B."""
    return one.numel() * other.shape[2]


def _bilinear(one: Tensor, weight: Tensor, other: Tensor, *rest: Any, **words: Any) -> int:
    """(N, I), (O, I, J), (N, J): O I J products with the one, then O I with the other."""
    return one.shape[0] * (weight.numel() + weight.shape[0] * weight.shape[1])


def _time_convolution(x: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> int:
    """(T, N, C) with (K, C, O): every place made takes K C O products."""
    time, images, _ = x.shape
    return (time + 2 * pad - weight.shape[0] + 1) * images * weight.numel()


def _sequence(x: Tensor, weights: Iterable[Tensor]) -> int:
    """(T, N, C) or packed (places, C): every step multiplies by every matrix once."""
    steps = math.prod(x.shape[:-1])
    return steps * sum(w.numel() for w in weights if w.dim() == 2)


def _onednn_layer(x: Tensor, *rest: Any, **words: Any) -> int:
    """One layer, one direction: the first two of four arguments are its matrices."""
    return _sequence(x, rest[:2])


def _fused_sequence(x: Tensor, weights: Iterable[Tensor], *rest: Any, **words: Any) -> int:
    """All layers and directions in one call."""
    return _sequence(x, weights)


FORMULAS: dict[Any, Callable[..., int]] = {
    aten.mv: _matrix_vector,
    aten.addmv: _added_matrix_vector,
    aten.dot: _dot,
    aten.vdot: _dot,
    aten.addbmm: _added_products,
    aten._trilinear: _bilinear,
    aten.conv_tbc: _time_convolution,
    aten.mkldnn_rnn_layer: _onednn_layer,
    aten._cudnn_rnn: _fused_sequence,
    aten.miopen_rnn: _fused_sequence,
}
