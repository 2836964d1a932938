"""Losses: how wrong a prediction is, in one number.

`reduction` is "mean", "sum" or "none" (one number per element or sample).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from hubel.engine.ops.base import Adapted, Case, Grads, Op, Saved, Shapes, register, unbroadcast
from hubel.errors import ModelError

Reduction = Literal["none", "mean", "sum"]
NAMES: tuple[Reduction, ...] = ("none", "mean", "sum")  # torch numbers them so


class Loss(Op):
    """What losses share."""

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """One number reads everything."""
        return


def reduced(values: Tensor, reduction: Reduction) -> Tensor:
    """The values (any shape) as one number, or as they are."""
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()


def share(dy: Tensor, values: int, reduction: Reduction) -> Tensor:
    """What of `dy` (a scalar, or one per value) each of so many values gets."""
    return dy / values if reduction == "mean" else dy


def check_classes(target: Tensor, classes: int) -> None:
    """Raises `ModelError` for a target (any shape, int64) outside 0 .. classes - 1."""
    if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < classes:
        raise ModelError(
            f"the net scores classes 0 to {classes - 1}, the targets go from {int(target.min())} "
            f"to {int(target.max())}"
        )


class Pairwise(Loss):
    """A loss of prediction x and target t, element by element, that broadcast."""

    tensors = ("x", "t")

    @staticmethod
    def value(x: Tensor, t: Tensor, **options: Any) -> Tensor:
        """The loss of each element."""
        raise NotImplementedError

    @staticmethod
    def slopes_at(x: Tensor, t: Tensor, **options: Any) -> tuple[Tensor, Tensor | None]:
        """Its slopes by x and by t."""
        raise NotImplementedError


def pairwise(
    name: str, spellings: dict[str, Any], value: Any, slopes: Any, *, formula: str,
    source: str = "", cases: Any,
) -> None:  # fmt: skip
    """Register one element-wise loss: value(x, t, **options), slopes(...) -> (by x, by t)."""

    def forward(
        x: Tensor, t: Tensor, *, reduction: Reduction = "mean", **options: Any
    ) -> tuple[Tensor, Saved]:
        values = value(x, t, **options)
        return reduced(values, reduction), (x, t, values.numel(), reduction, options)

    def backward(dy: Tensor, saved: Saved) -> Grads:
        x, t, n, reduction, options = saved
        up = share(dy, n, reduction)
        dx, dt = slopes(x, t, **options)
        return unbroadcast(up * dx, x.shape), None if dt is None else unbroadcast(up * dt, t.shape)

    def listed(cls: Any) -> Iterator[Case]:
        yield from cases()

    body = {
        "name": name, "spellings": spellings, "formula": formula, "source": source,
        "__module__": __name__, "__doc__": f"{formula}. x, t of shapes that broadcast.",
        "value": staticmethod(value), "slopes_at": staticmethod(slopes),
        "forward": staticmethod(forward), "backward": staticmethod(backward),
        "cases": classmethod(listed),
    }  # fmt: skip
    register(type(name, (Pairwise,), body))


def _pair(self: Tensor, target: Tensor, reduction: int = 1, **options: Any) -> Adapted:
    return (self, target), {"reduction": NAMES[reduction], **options}


def _huber(x: Tensor, t: Tensor, delta: float = 1.0) -> Tensor:
    e = (x - t).abs()
    return torch.where(e <= delta, 0.5 * e * e, delta * (e - 0.5 * delta))


def _huber_slopes(x: Tensor, t: Tensor, delta: float = 1.0) -> tuple[Tensor, Tensor]:
    d = (x - t).clamp(-delta, delta)
    return d, -d


def _smooth(x: Tensor, t: Tensor, beta: float = 1.0) -> Tensor:
    return (x - t).abs() if beta == 0 else _huber(x, t, beta) / beta


def _smooth_slopes(x: Tensor, t: Tensor, beta: float = 1.0) -> tuple[Tensor, Tensor]:
    d = (x - t).sign() if beta == 0 else ((x - t) / beta).clamp(-1, 1)
    return d, -d


def _plain_cases() -> Iterator[Case]:
    yield Case("mean", lambda r: (r(3, 5), r(3, 5)))
    yield Case("sum", lambda r: (r(3, 5), r(3, 5)), {"reduction": "sum"})
    yield Case("each", lambda r: (r(2, 3, 4), r(2, 3, 4)), {"reduction": "none"})


pairwise(
    "l2_loss", {"mse_loss.default": _pair},
    lambda x, t: (x - t) ** 2, lambda x, t: (2 * (x - t), -2 * (x - t)),
    formula="L = (x - t)^2;  dx = 2 (x - t)", cases=_plain_cases,
)  # fmt: skip
pairwise(
    "l1_loss", {"l1_loss.default": _pair},
    lambda x, t: (x - t).abs(), lambda x, t: ((x - t).sign(), -(x - t).sign()),
    formula="L = |x - t|;  dx = sign(x - t), 0 at 0", cases=_plain_cases,
)  # fmt: skip
pairwise(
    "huber_loss", {"huber_loss.default": _pair}, _huber, _huber_slopes,
    formula="L = e^2 / 2 where |e| <= d, else d (|e| - d / 2), e = x - t", source="Huber 1964",
    cases=_plain_cases,
)  # fmt: skip
pairwise(
    "smooth_l1_loss", {"smooth_l1_loss.default": _pair}, _smooth, _smooth_slopes,
    formula="L = e^2 / (2 b) where |e| < b, else |e| - b / 2", source="Girshick 2015",
    cases=_plain_cases,
)  # fmt: skip


def _margin(
    self: Tensor, target: Tensor, p: float = 1, margin: float = 1, weight: Any = None,
    reduction: int = 1,
) -> Adapted | None:  # fmt: skip
    if self.dim() != 2 or weight is not None or p not in (1, 2):
        return None
    return (self, target), {"margin": float(margin), "p": int(p), "reduction": NAMES[reduction]}


@register
class Hinge(Loss):
    """Scores x (N, K), target (N) int64 -> the hinge loss of many classes."""

    name = "hinge"
    tensors = ("x", "target")
    spellings = {"multi_margin_loss.default": _margin}
    formula = "L = sum over j != t of max(0, m - x_t + x_j)^p / K"
    source = "Weston and Watkins 1999"

    @staticmethod
    def forward(
        x: Tensor, target: Tensor, *, margin: float = 1.0, p: int = 1,
        reduction: Reduction = "mean",
    ) -> tuple[Tensor, Saved]:  # fmt: skip
        """The right class should lead every other by the margin."""
        check_classes(target, x.size(1))
        own = x.gather(1, target[:, None])
        short = (margin - own + x).clamp(min=0)
        short = short.scatter(1, target[:, None], 0.0)
        values = (short**p).sum(1) / x.size(1)
        return reduced(values, reduction), (short, target, p, reduction)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Each violation pushes its class down and the right one up."""
        short, target, p, reduction = saved
        up = share(dy, len(short), reduction)
        up = up[:, None] if reduction == "none" else up
        slope = (short > 0).to(dy.dtype) if p == 1 else 2 * short
        dx = slope / short.size(1)
        dx = dx.scatter(1, target[:, None], -dx.sum(1, keepdim=True))
        return up * dx, None

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Plain, squared, each."""
        t = torch.tensor([0, 3, 2])
        yield Case("plain", lambda r: (r(3, 4), t))
        yield Case("squared", lambda r: (r(3, 4), t), {"p": 2, "margin": 0.7, "reduction": "sum"})
        yield Case("each", lambda r: (r(3, 4), t), {"reduction": "none"})
