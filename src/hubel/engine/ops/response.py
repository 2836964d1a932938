"""Local response normalisation: AlexNet's, across neighbouring channels."""

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
)  # fmt: skip


def _response_adapt(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Adapted:
    return (input,), {"size": size, "alpha": alpha / size, "beta": beta, "k": k}


@register
class LocalResponseNorm(Op):
    """x (N, C, ...) -> the same shape: each channel divided by its neighbours' energy.

    `alpha` multiplies the *sum* of squares, as the paper prints it (k = 2, n = 5, alpha = 1e-4,
    beta = 0.75). torch's layer divides its alpha by n; its calls arrive here so divided.
    """

    name = "local_response_norm"
    spellings = {"functional.local_response_norm": _response_adapt}
    formula = "y = x / s^beta,  s = k + alpha sum of x^2 over `size` channels around"
    source = "Krizhevsky et al. 2012, section 3.3"

    @staticmethod
    def forward(
        x: Tensor, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
    ) -> tuple[Tensor, Saved]:
        """Channels i - size // 2 .. i + (size - 1) // 2, as far as there are any."""
        s = k + alpha * _neighbours(x * x, size)
        return x * s**-beta, (x, s, size, alpha, beta)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Through x itself, and through the sums it stands in: the window mirrored."""
        x, s, size, alpha, beta = saved
        inner = dy * x * s ** (-beta - 1)
        back = _neighbours(inner.flip(1), size).flip(1)
        return (dy * s**-beta - 2 * alpha * beta * x * back,)

    @classmethod
    def macs(cls, shapes: Shapes, **options: Any) -> int:
        """A square per element and a product with the power."""
        return 2 * math.prod(shapes.outputs[0])

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Odd and even windows, more channels than there are."""
        options = {"size": 5, "alpha": 0.1, "beta": 0.75, "k": 2.0}
        yield Case("five channels", lambda r: (r(2, 7, 3, 2),), options)
        yield Case("even window", lambda r: (r(2, 5, 3),), {**options, "size": 4})
        yield Case("wide window", lambda r: (r(2, 3, 2, 2),), {**options, "size": 7})


def _neighbours(x: Tensor, size: int) -> Tensor:
    """Sum over the window of channels, zeros outside; (N, C, ...) -> the same."""
    pad = [0, 0] * (x.dim() - 2) + [size // 2, (size - 1) // 2]
    padded = torch.nn.functional.pad(x, pad)
    return padded.unfold(1, size, 1).sum(-1)
