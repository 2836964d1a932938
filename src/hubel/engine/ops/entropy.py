"""Cross-entropy in its forms: of classes, of yes or no, between distributions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hubel.engine.ops.base import Adapted, Case, Grads, Saved, register, unbroadcast
from hubel.engine.ops.loss import NAMES, Loss, Reduction, check_classes, reduced, share
from hubel.engine.ops.softmax import log_softmax
from hubel.errors import ModelError


def _entropy(
    self: Tensor, target: Tensor, weight: Any = None, reduction: int = 1,
    ignore_index: int = -100, label_smoothing: float = 0.0,
) -> Adapted:  # fmt: skip
    return (self, target, weight), {
        "reduction": NAMES[reduction], "ignore": ignore_index, "smoothing": label_smoothing,
        "logits": True,
    }  # fmt: skip


def _likelihood(
    self: Tensor, target: Tensor, weight: Any = None, reduction: int = 1, ignore_index: int = -100
) -> Adapted:
    positionals, options = _entropy(self, target, weight, reduction, ignore_index)
    return positionals, {**options, "logits": False}


@register
class CrossEntropy(Loss):
    """z (N, K, ...), target (N, ...) int64 or (N, K, ...) probabilities, class weight (K) or None.

    The targets become a distribution q per sample (`smoothing` mixes in 1 / K; `ignore` gives no
    q at all; weights multiply it); "mean" divides by the targets' weight. With `logits` False, z
    are log-probabilities already.
    """

    name = "cross_entropy"
    fixed = ("weight",)
    tensors = ("z", "target", "weight")
    spellings = {
        "cross_entropy_loss.default": _entropy, "nll_loss_nd.default": _likelihood,
        "nll_loss.default": _likelihood, "nll_loss2d.default": _likelihood,
    }  # fmt: skip
    formula = "L = -sum q log p, p = softmax(z);  dz = p sum(q) - q:  p - y for one-hot y"
    source = "smoothing: Szegedy et al. 2015"

    @staticmethod
    def forward(
        z: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: Reduction = "mean",
        ignore: int = -100, smoothing: float = 0.0, logits: bool = True,
    ) -> tuple[Tensor, Saved]:  # fmt: skip
        """Half precision is widened to float32 for the logarithm, as torch does."""
        axis = 1 if z.dim() > 1 else 0
        wide = z.float() if z.dtype in (torch.bfloat16, torch.float16) else z
        logp = log_softmax(wide, axis) if logits else wide
        q, weight_of_all = _distribution(logp, target, weight, axis, ignore, smoothing, logits)
        norm = weight_of_all if reduction == "mean" else None
        values = -torch.where(q == 0, torch.zeros_like(q), q * logp).sum(axis)
        loss = values if reduction == "none" else values.sum()
        p = logp.exp() if logits else None
        soft = None
        if target.is_floating_point():  # the targets may be somebody's output: their slope
            shape = [logp.size(axis) if i == axis else 1 for i in range(z.dim())]
            soft = -logp * (1 - smoothing)
            soft = soft if weight is None else soft * weight.view(shape)
        saved = (q, p, norm, axis, reduction, z.dtype, soft)
        return (loss if norm is None else loss / norm).to(
            z.dtype if not logits else loss.dtype
        ), saved

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """The famous p - y, times what the sample weighs."""
        q, p, norm, axis, reduction, dtype, soft = saved
        up = dy.unsqueeze(axis) if reduction == "none" else dy
        up = up if norm is None else up / norm
        dz = -q if p is None else p * q.sum(axis, keepdim=True) - q
        dtarget = None if soft is None else up * soft
        return (up * dz).to(dtype), dtarget, None

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Rows, planes, weights, smoothing, ignored targets, soft targets, wrong targets."""
        t = torch.tensor([0, 3, 2, 3, 1])
        plane = torch.arange(24).view(2, 3, 4) % 5
        yield Case("rows", lambda r: (r(5, 4), t, None))
        yield Case("planes", lambda r: (r(2, 5, 3, 4), plane, None))
        yield Case("weights", lambda r: (r(5, 4), t, r(4).abs() + 0.1))
        yield Case("smoothing", lambda r: (r(5, 4), t, r(4).abs() + 0.1), {"smoothing": 0.1})
        yield Case("ignored", lambda r: (r(5, 4), t, None), {"ignore": 3, "smoothing": 0.2})
        yield Case("one sample", lambda r: (r(4), t[1], None))
        yield Case("no reduction", lambda r: (r(5, 4), t, None), {"reduction": "none"})
        yield Case("log-probabilities", lambda r: (r(5, 4), t, None), {"logits": False})
        yield Case("soft targets", lambda r: (r(5, 4), torch.softmax(r(5, 4), 1), None),
                   {"reduction": "sum", "smoothing": 0.1})  # fmt: skip
        yield Case("class out of range", lambda r: (r(5, 3), t, None), error="classes 0 to 2")


def _distribution(
    logp: Tensor, target: Tensor, weight: Tensor | None, axis: int, ignore: int, smoothing: float,
    logits: bool,
) -> tuple[Tensor, Tensor | float]:  # fmt: skip
    """Each sample's probabilities as they should be, like `logp`, and what the mean divides by."""
    classes = logp.size(axis)
    shape = [1] * logp.dim()
    shape[axis] = classes
    w = logp.new_ones(classes) if weight is None else weight.to(logp.dtype)
    if target.is_floating_point():
        q = (target.to(logp.dtype) * (1 - smoothing) + smoothing / classes) * w.view(shape)
        return q, max(target.numel() // classes, 1)
    keep = target != ignore
    inside = torch.where(keep, target, torch.zeros_like(target))
    check_classes(inside, classes)
    weights = w[inside] * keep
    even = smoothing / classes * w.view(shape) * keep.unsqueeze(axis)
    q = even.expand_as(logp).clone()
    q.scatter_add_(axis, inside.unsqueeze(axis), ((1 - smoothing) * weights).unsqueeze(axis))
    return q, weights.sum()


@register
class BinaryCrossEntropy(Loss):
    """x, t in [0, 1] of one shape, weight that broadcasts or None -> a reduced loss."""

    name = "binary_cross_entropy"
    fixed = ("weight",)
    tensors = ("x", "t", "weight")
    spellings = {
        "binary_cross_entropy.default": lambda self, target, weight=None, reduction=1: (
            (self, target, weight), {"reduction": NAMES[reduction]},
        )
    }  # fmt: skip
    formula = "L = -t log x - (1 - t) log(1 - x);  dx = (x - t) / (x (1 - x))"

    @staticmethod
    def forward(
        x: Tensor, t: Tensor, weight: Tensor | None = None, *, reduction: Reduction = "mean"
    ) -> tuple[Tensor, Saved]:
        """Logarithms stop at -100, as torch's do, so that certainty costs a finite loss."""
        if x.numel() and not 0 <= float(x.min()) <= float(x.max()) <= 1:
            raise ModelError(
                f"binary cross-entropy takes probabilities from 0 to 1, given {float(x.min()):.4g} "
                f"to {float(x.max()):.4g}: put a sigmoid before it, or use the form with logits"
            )
        log, log1m = x.log().clamp(min=-100), torch.log1p(-x).clamp(min=-100)
        values = -t * log - (1 - t) * log1m
        values = values if weight is None else values * weight
        return reduced(values, reduction), (x, t, weight, log1m - log, values.numel(), reduction)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """The target may be somebody's output too."""
        x, t, weight, odds, n, reduction = saved
        up = share(dy, n, reduction)
        up = up if weight is None else up * weight
        spread = (x * (1 - x)).clamp(min=1e-12)  # torch's bound
        return up * (x - t) / spread, up * odds, None

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Soft targets, weights, a value that is no probability."""
        s = torch.sigmoid
        yield Case("mean", lambda r: (s(r(3, 5)), s(r(3, 5)), None))
        yield Case("weights", lambda r: (s(r(3, 5)), s(r(3, 5)), r(5).abs()), {"reduction": "sum"})
        yield Case(
            "no probability", lambda r: (r(3, 5) + 2, s(r(3, 5)), None),
            error="takes probabilities from 0 to 1",
        )  # fmt: skip


@register
class BinaryCrossEntropyLogits(Loss):
    """Scores x, t in [0, 1], weight, positive weight (both broadcast, or None) -> reduced loss."""

    name = "binary_cross_entropy_logits"
    fixed = ("weight", "positive")
    tensors = ("x", "t", "weight", "positive")
    spellings = {
        "binary_cross_entropy_with_logits.default": lambda self, target, weight=None,
        pos_weight=None, reduction=1: (
            (self, target, weight, pos_weight), {"reduction": NAMES[reduction]},
        )
    }  # fmt: skip
    formula = "L = -p t log s(x) - (1 - t) log(1 - s(x));  dx = s(x) - t for p = 1"

    @staticmethod
    def forward(
        x: Tensor, t: Tensor, weight: Tensor | None = None, positive: Tensor | None = None, *,
        reduction: Reduction = "mean",
    ) -> tuple[Tensor, Saved]:  # fmt: skip
        """With softplus, so that no large score overflows: -log s(x) = softplus(-x)."""
        mass = 1 - t + (t if positive is None else t * positive)
        soft = torch.log1p(torch.exp(-x.abs())) + (-x).clamp(min=0)
        values = (1 - t) * x + mass * soft
        values = values if weight is None else values * weight
        saved = (x, t, weight, positive, mass, soft, values.numel(), reduction)
        return reduced(values, reduction), saved

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """d softplus(-x) / dx = s(x) - 1."""
        x, t, weight, positive, mass, soft, n, reduction = saved
        up = share(dy, n, reduction)
        up = up if weight is None else up * weight
        dx = up * (1 - t + mass * (torch.sigmoid(x) - 1))
        dt = up * (-x + (0 if positive is None else (positive - 1)) * soft)
        return unbroadcast(dx, x.shape), unbroadcast(dt, t.shape), None, None

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Soft targets, both weights, large scores."""
        s = torch.sigmoid
        yield Case("mean", lambda r: (r(3, 5), s(r(3, 5)), None, None))
        yield Case(
            "weights", lambda r: (r(3, 5), s(r(3, 5)), r(3, 1).abs(), r(5).abs()),
            {"reduction": "sum"},
        )  # fmt: skip
        yield Case("large", lambda r: (r(3, 5) * 300, s(r(3, 5)), None, None))


@register
class Divergence(Loss):
    """Log-probabilities x, target t (probabilities, or their logs with `log_target`)."""

    name = "kl_divergence"
    tensors = ("x", "t")
    spellings = {
        "kl_div.default": lambda self, target, reduction=1, log_target=False: (
            (self, target), {"reduction": NAMES[reduction], "log_target": log_target},
        )
    }  # fmt: skip
    formula = "L = t (log t - x);  dx = -t"
    source = "Kullback and Leibler 1951"

    @staticmethod
    def forward(
        x: Tensor, t: Tensor, *, reduction: Reduction = "mean", log_target: bool = False
    ) -> tuple[Tensor, Saved]:
        """0 log 0 is 0."""
        values = t.exp() * (t - x) if log_target else torch.xlogy(t, t) - t * x
        return reduced(values, reduction), (x, t, values.numel(), reduction, log_target)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """The target's own gradient too."""
        x, t, n, reduction, log_target = saved
        up = share(dy, n, reduction)
        if log_target:
            p = t.exp()
            dx, dt = -p, p * (t - x + 1)
        else:
            dx, dt = -t, t.log() + 1 - x
            dt = torch.where(t == 0, torch.zeros_like(dt), dt)
        return unbroadcast(up * dx, x.shape), unbroadcast(up * dt, t.shape)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Both kinds of target."""
        soft, log = torch.softmax, torch.log_softmax
        yield Case("probabilities", lambda r: (log(r(3, 5), 1), soft(r(3, 5), 1)))
        yield Case(
            "logs", lambda r: (log(r(3, 5), 1), log(r(3, 5), 1)),
            {"log_target": True, "reduction": "sum"},
        )  # fmt: skip
