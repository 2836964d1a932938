"""Reductions: sums, means, variances, extremes, norms, and sums that run along an axis."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from hubel.engine.ops.base import Adapted, Case, Grads, Op, Saved, Shapes, register

Axes = tuple[int, ...]


class Reduction(Op):
    """What the reductions share: every output reads all of the axes that go."""

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> Any:
        """Places survive where only channels are summed."""
        axes = options.get("axes")
        x, y = shapes.inputs[0], shapes.outputs[0]
        kept = axes is not None and x is not None and all(a == 1 for a in axes) and len(x) == len(y)
        return Op.windows(shapes) if kept else None


def axes_of(x: Tensor, dim: Any) -> Axes:
    """The axes meant by torch's `dim`: None or () is all of them."""
    if not x.dim() or dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return tuple(range(x.dim()))
    return tuple(d % x.dim() for d in ([dim] if isinstance(dim, int) else dim))


def _reduced(self: Tensor, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Adapted:
    return (self,), {"axes": axes_of(self, dim), "keep": keepdim, "dtype": dtype}


def widened(dy: Tensor, axes: Axes, keep: bool) -> Tensor:
    """`dy` (without the reduced axes) with these back again, at length 1."""
    if keep:
        return dy
    for axis in sorted(axes):
        dy = dy.unsqueeze(axis)
    return dy


@register
class Sum(Reduction):
    """x -> the sum over `axes`, which stay at length 1 with `keep`."""

    name = "sum"
    linear_in = ("x",)
    formula = "y = sum of x;  dx = dy, to every place"
    spellings = {"sum.default": _reduced, "sum.dim_IntList": _reduced}

    @staticmethod
    def forward(
        x: Tensor, *, axes: Axes, keep: bool = False, dtype: Any = None
    ) -> tuple[Tensor, Saved]:
        """All in one number where all axes go."""
        y = x.sum(axes, keepdim=keep, dtype=dtype) if x.dim() else x.sum(dtype=dtype)
        return y, (tuple(x.shape), axes, keep, x.dtype)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Every summand moves the sum as much as itself."""
        shape, axes, keep, dtype = saved
        return (widened(dy, axes, keep).expand(shape).to(dtype),)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """All axes, some, kept."""
        yield Case("all", lambda r: (r(3, 5),), {"axes": (0, 1)})
        yield Case("some", lambda r: (r(2, 3, 5),), {"axes": (0, 2)})
        yield Case("kept", lambda r: (r(2, 3, 5),), {"axes": (1,), "keep": True})


@register
class Mean(Reduction):
    """x -> the mean over `axes`."""

    name = "mean"
    linear_in = ("x",)
    formula = "y = mean of x;  dx = dy / n, to every place"
    spellings = {"mean.default": _reduced, "mean.dim": _reduced}

    @staticmethod
    def forward(
        x: Tensor, *, axes: Axes, keep: bool = False, dtype: Any = None
    ) -> tuple[Tensor, Saved]:
        """A sum over a count."""
        total, saved = Sum.forward(x, axes=axes, keep=keep, dtype=dtype)
        n = math.prod(x.shape[a] for a in axes)
        return total / n, (*saved, n)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """The sum's, shared out."""
        return Sum.backward(dy / saved[-1], saved[:-1])

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """All axes, some, kept."""
        yield Case("all", lambda r: (r(3, 5),), {"axes": (0, 1)})
        yield Case("places", lambda r: (r(2, 3, 5, 4),), {"axes": (2, 3), "keep": True})


def _correction(unbiased: bool | None = None, correction: Any = None) -> float:
    if correction is not None:
        return float(correction)
    return 0.0 if unbiased is False else 1.0


def _spread(
    self: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False,
    correction: Any = None, root: bool = False,
) -> Adapted:  # fmt: skip
    return (self,), {
        "axes": axes_of(self, dim), "keep": keepdim, "root": root,
        "correction": _correction(unbiased, correction),
    }  # fmt: skip


def _std(self: Tensor, **options: Any) -> Adapted:
    return _spread(self, root=True, **options)


@register
class Variance(Reduction):
    """x -> the variance over `axes` (divided by n - correction), or with `root` its root."""

    name = "variance"
    formula = "y = sum (x - mean)^2 / (n - c);  dx = 2 (x - mean) dy / (n - c)"
    spellings = {
        "var.default": _spread, "var.dim": _spread, "var.correction": _spread,
        "std.default": _std, "std.dim": _std, "std.correction": _std,
    }  # fmt: skip

    @staticmethod
    def forward(
        x: Tensor, *, axes: Axes, keep: bool = False, correction: float = 1, root: bool = False
    ) -> tuple[Tensor, Saved]:
        """The mean's own slope drops out: deviations add up to zero."""
        centred = x - x.mean(axes, keepdim=True)
        n = max(math.prod(x.shape[a] for a in axes) - correction, 0)
        y = (centred * centred).sum(axes, keepdim=keep) / n if n else x.new_full((), math.nan)
        y = y.sqrt() if root else y
        return y, (centred, axes, keep, n, y if root else None)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Each deviation pulls by twice itself."""
        centred, axes, keep, n, root = saved
        if root is not None:
            dy = torch.where(root == 0, torch.zeros_like(dy), dy / (2 * root))
        return (widened(dy, axes, keep) * 2 * centred / n,)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Biased and not, the root."""
        yield Case("unbiased", lambda r: (r(3, 5),), {"axes": (1,)})
        yield Case("biased", lambda r: (r(2, 3, 5),), {"axes": (0, 2), "correction": 0})
        yield Case("root", lambda r: (r(2, 3, 5),), {"axes": (1,), "keep": True, "root": True})


@register
class VarianceMean(Reduction):
    """x -> (variance or its root, mean) over `axes`, in one call."""

    name = "variance_mean"
    formula = "as variance and mean; their gradients add up"
    spellings = {
        "var_mean.default": _spread, "var_mean.dim": _spread, "var_mean.correction": _spread,
        "std_mean.default": _std, "std_mean.dim": _std, "std_mean.correction": _std,
    }  # fmt: skip

    @staticmethod
    def forward(x: Tensor, **options: Any) -> tuple[tuple[Tensor, Tensor], Saved]:
        """Both at once."""
        var, saved = Variance.forward(x, **options)
        mean, rest = Mean.forward(x, axes=options["axes"], keep=options.get("keep", False))
        return (var, mean), (saved, rest)

    @staticmethod
    def backward(dy: Any, saved: Saved) -> Grads:
        """Either may be missing."""
        dvar, dmean = dy
        found = () if dvar is None else Variance.backward(dvar, saved[0])
        found += () if dmean is None else Mean.backward(dmean, saved[1])
        return (reduce(torch.add, found),)  # type: ignore[arg-type]

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Variance and root."""
        yield Case("variance", lambda r: (r(3, 5),), {"axes": (1,)})
        yield Case("root", lambda r: (r(2, 3, 5),), {"axes": (0, 2), "keep": True, "root": True})


@register
class RunningSum(Reduction):
    """x -> the sum of all entries up to each, along one axis."""

    name = "cumsum"
    linear_in = ("x",)
    formula = "y_i = x_1 + ... + x_i;  dx_i = dy_i + ... + dy_n"
    spellings = {"cumsum.default": lambda self, dim, dtype=None: ((self,), {"axis": dim})}

    @staticmethod
    def forward(x: Tensor, *, axis: int) -> tuple[Tensor, Saved]:
        """Left to right."""
        return x.cumsum(axis), (axis,)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Right to left."""
        (axis,) = saved
        return (dy.flip(axis).cumsum(axis).flip(axis) if dy.dim() else dy,)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """A middle axis."""
        yield Case("middle", lambda r: (r(2, 5, 3),), {"axis": 1})


def _product(self: Tensor, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Adapted:
    return (self,), {"axes": axes_of(self, dim), "keep": keepdim}


@register
class Product(Reduction):
    """x -> the product over `axes`."""

    name = "product"
    formula = "y = product of x;  dx_i = dy times all the others"
    spellings = {"prod.default": _product, "prod.dim_int": _product}

    @staticmethod
    def forward(x: Tensor, *, axes: Axes, keep: bool = False) -> tuple[Tensor, Saved]:
        """One axis at a time."""
        y = x
        for axis in axes:
            y = y.prod(axis, keepdim=True)
        out = y if keep else y.squeeze(axes) if axes else y
        return out, (x, y, axes, keep)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Dividing by x fails at zeros: with one, only its own slope is left; with two, none."""
        x, _, axes, keep = saved
        if not axes:
            return (dy,)
        zero = x == 0
        n = zero.sum(axes, keepdim=True)
        safe = torch.where(zero, torch.ones_like(x), x)
        rest = safe
        for axis in axes:
            rest = rest.prod(axis, keepdim=True)
        slope = torch.where(n == 0, rest / safe, torch.zeros_like(x))
        slope = torch.where((n == 1) & zero, rest.expand_as(x), slope)
        return (widened(dy, axes, keep) * slope,)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """With and without zeros."""
        yield Case("one axis", lambda r: (r(3, 5),), {"axes": (1,)})
        yield Case(
            "a zero", lambda r: (r(3, 4) * (torch.arange(12).view(3, 4) % 7 != 0),), {"axes": (1,)}
        )


def _normed(
    self: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Adapted | None:
    return _norm(self, float(ord), dim, keepdim) if ord in (1, 2) else None


def _norm(
    self: Tensor, p: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Adapted | None:
    if p is None:
        p = 2
    if p not in (1, 2) or dtype is not None:
        return None
    return (self,), {"p": float(p), "axes": axes_of(self, dim), "keep": keepdim}


@register
class Norm(Reduction):
    """x -> the 1-norm or the 2-norm over `axes`; at zero the slope is 0."""

    name = "norm"
    formula = "y = (sum |x|^p)^(1/p);  dx = dy sign(x) (p = 1),  dy x / y (p = 2)"
    spellings = {
        "linalg_vector_norm.default": _normed,
        "norm.Scalar": _norm, "norm.ScalarOpt_dim": _norm,
    }  # fmt: skip

    @staticmethod
    def forward(x: Tensor, *, p: float = 2, axes: Axes, keep: bool = False) -> tuple[Tensor, Saved]:
        """Length of a vector."""
        if p == 1:
            y = x.abs().sum(axes, keepdim=True) if x.dim() else x.abs()
        else:
            y = ((x * x).sum(axes, keepdim=True) if x.dim() else x * x).sqrt()
        out = y if keep or not axes else y.squeeze(axes)
        return out, (x, y, p, axes, keep)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Along x, or along its signs."""
        x, y, p, axes, keep = saved
        slope = x.sign() if p == 1 else torch.where(y == 0, torch.zeros_like(x), x / y)
        return (widened(dy, axes, keep) * slope,)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Both norms."""
        yield Case("length", lambda r: (r(3, 5),), {"axes": (1,)})
        yield Case(
            "sum of sizes", lambda r: (r(2, 3, 5),), {"p": 1.0, "axes": (0, 2), "keep": True}
        )


@register
class LogSumExp(Reduction):
    """x -> log of the sum of exponentials over `axes`, without overflow."""

    name = "logsumexp"
    formula = "y = log sum exp(x);  dx = exp(x - y) dy: the softmax of x, times dy"
    spellings = {"logsumexp.default": _reduced}

    @staticmethod
    def forward(
        x: Tensor, *, axes: Axes, keep: bool = False, dtype: Any = None
    ) -> tuple[Tensor, Saved]:
        """The largest is taken out first."""
        top = x.amax(axes, keepdim=True)
        top = torch.where(top.isinf(), torch.zeros_like(top), top)
        y = (x - top).exp().sum(axes, keepdim=True).log() + top
        return (y if keep else y.squeeze(axes) if axes else y), (x, y, axes, keep)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """To each by its share."""
        x, y, axes, keep = saved
        return (widened(dy, axes, keep) * (x - y).exp(),)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """One axis, two, large values."""
        yield Case("one axis", lambda r: (r(3, 5),), {"axes": (1,)})
        yield Case("large", lambda r: (r(3, 5) * 3 + 800,), {"axes": (0, 1), "keep": True})
