"""Softmax and its logarithm.

With p = softmax(z), the Jacobian is dp_i / dz_j = p_i (delta_ij - p_j), that is diag(p) - p p^T.
Multiplied out, no matrix is needed: dz = p (dp - sum of dp p).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hubel.engine.ops.base import (
    Adapted,
    Case,
    Explanation,
    Grads,
    Op,
    Saved,
    Shapes,
    Term,
    register,
)  # fmt: skip


def softmax(z: Tensor, axis: int) -> Tensor:
    """exp(z) / sum exp(z) along one axis of z, any shape; the largest is taken out first."""
    e = torch.exp(_shifted(z, axis))
    return e / e.sum(axis, keepdim=True)


def log_softmax(z: Tensor, axis: int) -> Tensor:
    """z - log sum exp(z) along one axis of z, any shape, without overflow."""
    shifted = _shifted(z, axis)
    return shifted - shifted.exp().sum(axis, keepdim=True).log()


def _shifted(z: Tensor, axis: int) -> Tensor:
    return z - z.amax(axis, keepdim=True) if z.numel() else z


def jacobian(p: Tensor) -> Tensor:
    """d p / d z = diag(p) - p p^T for one softmax output p (K) -> (K, K)."""
    return torch.diag(p) - torch.outer(p, p)


def _kernel(self: Tensor, dim: int, half_to_float: bool) -> Adapted:
    return (self,), {"axis": dim}


def _along(self: Tensor, dim: int, dtype: Any = None) -> Adapted | None:
    if dtype not in (None, self.dtype):
        return None  # the conversion is a record of its own: torch takes the two apart
    return (self,), {"axis": dim}


@register
class Softmax(Op):
    """z of any shape -> probabilities of the same shape, adding up to 1 along `axis`."""

    name = "softmax"
    spellings = {"softmax.int": _along, "_softmax.default": _kernel}
    formula = "p = exp(z) / sum exp(z);  dz = p (dp - sum dp p)"
    source = "Bridle 1990"

    @staticmethod
    def forward(z: Tensor, *, axis: int) -> tuple[Tensor, Saved]:
        """Shifting all scores changes nothing, so the largest becomes 0."""
        p = softmax(z, axis)
        return p, (p, axis)

    @staticmethod
    def backward(dp: Tensor, saved: Saved) -> Grads:
        """(diag(p) - p p^T) dp, multiplied out."""
        p, axis = saved
        return (p * (dp - (dp * p).sum(axis, keepdim=True)),)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> Any:
        """Places survive where the axis is that of the channels."""
        x = shapes.inputs[0]
        assert x is not None
        return Op.windows(shapes) if options["axis"] % len(x) == 1 else None

    @classmethod
    def explain(
        cls, tensors: Sequence[Any], options: dict[str, Any], output: Tensor, place: tuple[int, ...]
    ) -> Explanation:
        """The exponentials that share out the 1."""
        z, axis = tensors[0], options["axis"] % tensors[0].dim()
        spots = [(*place[:axis], i, *place[axis + 1 :]) for i in range(z.size(axis))]
        top = max(float(z[s]) for s in spots)
        total = sum(float(torch.exp(z[s] - top)) for s in spots)
        terms = (Term(place, float(torch.exp(z[place] - top)), 1 / total),)
        sentence = f"output {place} = exp of its score over the sum of exp of {len(spots)} scores"
        return Explanation(sentence, terms, (), float(output[place]))

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Last axis, channels, large scores."""
        yield Case("last axis", lambda r: (r(3, 5),), {"axis": -1})
        yield Case("channels", lambda r: (r(2, 3, 4, 2),), {"axis": 1})
        yield Case("large scores", lambda r: (r(3, 5) * 3 + 800,), {"axis": 1})


@register
class LogSoftmax(Op):
    """z of any shape -> log-probabilities of the same shape."""

    name = "log_softmax"
    spellings = {"log_softmax.int": _along, "_log_softmax.default": _kernel}
    formula = "y = z - log sum exp(z);  dz = dy - exp(y) sum dy"
    source = "Bridle 1990"

    @staticmethod
    def forward(z: Tensor, *, axis: int) -> tuple[Tensor, Saved]:
        """Never the log of a rounded-off 0."""
        y = log_softmax(z, axis)
        return y, (y, axis)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Each score moves itself up and all down by its share."""
        y, axis = saved
        return (dy - y.exp() * dy.sum(axis, keepdim=True),)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> Any:
        """As softmax."""
        return Softmax.windows(shapes, **options)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """As softmax."""
        yield from Softmax.cases()
