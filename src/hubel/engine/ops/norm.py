"""Normalisation: zero mean and unit variance over some axes, then a learned scale and shift.

    xhat = (x - mean) / sqrt(var + eps),   y = w xhat + b

Mean and variance are functions of x too, so their slopes come in. With d = dy w, over the axes:

    dx = (d - mean(d) - xhat mean(d xhat)) / sqrt(var + eps)

The norms differ only in their axes: batch norm takes the batch and all places, layer norm the last
axes, group norm a group of channels and all places, instance norm the places of one channel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hubel.engine.ops.base import (
    Adapted,
    Case,
    Grads,
    Op,
    Output,
    Saved,
    Shape,
    Shapes,
    register,
)  # fmt: skip
from hubel.errors import ModelError

Axes = tuple[int, ...]


def standardise(x: Tensor, axes: Axes, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """xhat, and (with their axes kept at length 1) mean, variance, 1 / sqrt(var + eps)."""
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    var = (centred * centred).mean(axes, keepdim=True)
    scale = (var + eps).rsqrt()
    return centred * scale, mean, var, scale


def standardise_dx(d: Tensor, xhat: Tensor, scale: Tensor, axes: Axes) -> Tensor:
    """dx (like xhat) through `standardise`, the mean's and the variance's slopes included."""
    straight = d - d.mean(axes, keepdim=True)
    return scale * (straight - xhat * (d * xhat).mean(axes, keepdim=True))


def _affine(xhat: Tensor, w: Tensor | None, b: Tensor | None, shape: Shape) -> Tensor:
    y = xhat if w is None else xhat * w.view(shape)
    return y if b is None else y + b.view(shape)


def _affine_gradients(
    dy: Tensor, xhat: Tensor, w: Tensor | None, has_bias: bool, shape: Shape, wshape: Shape
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """d (what goes on to xhat), dw, db. `shape` is how w lies along x, `wshape` its own."""
    d = dy if w is None else dy * w.view(shape)
    dw = (dy * xhat).sum_to_size(shape).reshape(wshape) if w is not None else None
    db = dy.sum_to_size(shape).reshape(wshape) if has_bias else None
    return d, dw, db


def _batch_adapt(
    input: Tensor, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool,
    momentum: float, eps: float, cudnn_enabled: bool,
) -> Adapted | None:  # fmt: skip
    if input.dim() < 2 or not input.numel():
        return None
    positionals = (input, weight, bias, running_mean, running_var)
    return positionals, {"training": training, "momentum": momentum, "eps": eps}


@register
class BatchNorm(Op):
    """x (N, C, ...), w (C), b (C), running mean (C), running variance (C) -> (N, C, ...).

    In training the batch's own mean and variance are used, and the running ones move towards them
    by `momentum` (the variance unbiased); else the running ones are used, as constants.
    """

    name = "batch_norm"
    fixed = ("running_mean", "running_var")
    tensors = ("x", "w", "b", "running_mean", "running_var")
    spellings = {"batch_norm.default": _batch_adapt}
    formula = "y = w (x - mean) / sqrt(var + eps) + b over the batch and all places"
    source = "Ioffe and Szegedy 2015"

    @staticmethod
    def forward(
        x: Tensor, w: Tensor | None = None, b: Tensor | None = None,
        running_mean: Tensor | None = None, running_var: Tensor | None = None, *,
        training: bool, momentum: float | None = 0.1, eps: float = 1e-5,
    ) -> tuple[Tensor, Saved]:  # fmt: skip
        """Raises `ModelError` for one value per channel in training: its variance is 0."""
        axes, shape = (0, *range(2, x.dim())), (1, -1, *[1] * (x.dim() - 2))
        if training:
            if x.numel() == x.size(1):
                raise ModelError(
                    f"batch norm in training needs more than one value per channel, given an "
                    f"input of {tuple(x.shape)}: use a larger batch, or eval mode"
                )
            # half precision: statistics are taken in float32, as torch's own do
            wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
            xhat, mean, var, scale = standardise(wide, axes, eps)
        else:
            assert running_mean is not None
            assert running_var is not None
            mean, var = running_mean.view(shape), running_var.view(shape)
            scale = (var + eps).rsqrt()
            xhat = (x - mean) * scale
        y = _affine(xhat, w, b, shape).to(x.dtype)
        return y, (xhat, w, b is not None, scale, mean, var, training, x.dtype)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """In eval mode the statistics are constants, and dx is only scaled."""
        xhat, w, has_bias, scale, _, _, training, dtype = saved
        axes, shape = (0, *range(2, xhat.dim())), (1, xhat.size(1), *[1] * (xhat.dim() - 2))
        d, dw, db = _affine_gradients(dy.to(xhat.dtype), xhat, w, has_bias, shape, (xhat.size(1),))
        dx = standardise_dx(d, xhat, scale, axes) if training else d * scale
        return dx.to(dtype), dw, db, None, None

    @classmethod
    def commit(cls, tensors: Sequence[Any], options: dict[str, Any], saved: Saved) -> None:
        """Move the running statistics, once per training call."""
        x, _, _, running_mean, running_var = tensors
        if not options["training"] or running_mean is None:
            return
        mean, var = saved[4], saved[5]
        n = x.numel() / x.size(1)
        momentum = options["momentum"]
        running_mean.lerp_(mean.view(-1).to(running_mean.dtype), momentum)
        unbiased = var.view(-1).to(running_var.dtype) * (n / (n - 1))
        running_var.lerp_(unbiased, momentum)

    @classmethod
    def fast_forward(cls, *tensors: Any, **options: Any) -> tuple[Output, Saved]:
        """By torch's kernel."""
        x, w, b, running_mean, running_var = tensors
        training, eps = options["training"], options["eps"]
        if training and x.numel() == x.size(1):
            return cls.forward(*tensors, **options)  # which refuses
        if training:
            y, mean, scale = torch.ops.aten.native_batch_norm(x, w, b, None, None, True, 0.0, eps)
            var = scale.pow(-2) - eps
        else:
            y, mean, scale = torch.ops.aten.native_batch_norm(
                x, w, b, running_mean, running_var, False, 0.0, eps
            )
            mean, var = running_mean, running_var
        return y, (x, w, b is not None, scale, mean, var, training, eps)

    @classmethod
    def fast_backward(cls, dy: Any, saved: Saved, needs: tuple[bool, ...]) -> Grads:
        """By torch's kernel."""
        x, w, has_bias, scale, mean, var, training, eps = saved
        wanted = [needs[0], w is not None and needs[1], has_bias and needs[2]]
        running = (None, None) if training else (mean, var)
        found = torch.ops.aten.native_batch_norm_backward(
            dy, x, w, *running, mean, scale, training, eps, wanted
        )
        return (*[g if want else None for g, want in zip(found, wanted, strict=True)], None, None)

    @classmethod
    def macs(cls, shapes: Shapes, **options: Any) -> int:
        """One product per element: scale and shift."""
        return math.prod(shapes.outputs[0])

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Training and eval, without scale, without places, three axes."""
        train = {"training": True, "momentum": 0.1, "eps": 1e-5}
        full = lambda r, *s: (r(*s), r(s[1]), r(s[1]), r(s[1]), r(s[1]).abs() + 0.5)  # noqa: E731
        yield Case("training", lambda r: full(r, 3, 4, 5, 2), train)
        yield Case("eval", lambda r: full(r, 3, 4, 5, 2), {**train, "training": False})
        yield Case("no scale", lambda r: (r(5, 3, 2, 2), None, None, None, None), train)
        yield Case("no places", lambda r: full(r, 7, 3), train)
        yield Case("3-d", lambda r: full(r, 2, 3, 2, 3, 2), train)
        yield Case(
            "one value a channel", lambda r: full(r, 1, 3), train,
            error="needs more than one value per channel",
        )  # fmt: skip


def _layer_adapt(
    input: Tensor, normalized_shape: Sequence[int], weight: Any, bias: Any, eps: float,
    cudnn_enable: bool,
) -> Adapted:  # fmt: skip
    return (input, weight, bias), {"axes": len(normalized_shape), "eps": eps}


@register
class LayerNorm(Op):
    """x (..., *S), w (*S), b (*S) -> the same shape: over the last `axes` axes of each sample."""

    name = "layer_norm"
    tensors = ("x", "w", "b")
    spellings = {"layer_norm.default": _layer_adapt}
    formula = "y = w (x - mean) / sqrt(var + eps) + b over the last axes"
    source = "Ba et al. 2016"

    @staticmethod
    def forward(
        x: Tensor, w: Tensor | None = None, b: Tensor | None = None, *, axes: int, eps: float = 1e-5
    ) -> tuple[Tensor, Saved]:
        """Every sample by its own statistics, in training and eval alike."""
        over = tuple(range(-axes, 0))
        xhat, _, _, scale = standardise(x, over, eps)
        shape = tuple(x.shape[-axes:])
        return _affine(xhat, w, b, shape), (xhat, w, b is not None, scale, over)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """As every norm's."""
        xhat, w, has_bias, scale, over = saved
        shape = tuple(xhat.shape[over[0] :])
        whole = (*[1] * (xhat.dim() - len(over)), *shape)
        d, dw, db = _affine_gradients(dy, xhat, w, has_bias, whole, shape)
        return standardise_dx(d, xhat, scale, over), dw, db

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """Each output reads all of its axes."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """One axis, three axes, no scale."""
        yield Case("one axis", lambda r: (r(2, 3, 7), r(7), r(7)), {"axes": 1})
        yield Case("three axes", lambda r: (r(3, 2, 3, 4), r(2, 3, 4), r(2, 3, 4)), {"axes": 3})
        yield Case("no scale", lambda r: (r(4, 5), None, None), {"axes": 1})


@register
class RootMeanSquareNorm(Op):
    """x (..., *S), w (*S) -> the same shape: over the root of its mean square, not centred."""

    name = "rms_norm"
    tensors = ("x", "w")
    spellings = {
        "rms_norm.default": lambda input, normalized_shape, weight, eps: (
            (input, weight),
            {
                "axes": len(normalized_shape),
                "eps": torch.finfo(input.dtype).eps if eps is None else eps,
            },
        )
    }
    formula = "y = w x / sqrt(mean(x^2) + eps);  dx = s (d - xhat mean(d xhat)), d = dy w"
    source = "Zhang and Sennrich 2019"

    @staticmethod
    def forward(
        x: Tensor, w: Tensor | None = None, *, axes: int, eps: float
    ) -> tuple[Tensor, Saved]:
        """Only the length changes."""
        over = tuple(range(-axes, 0))
        scale = ((x * x).mean(over, keepdim=True) + eps).rsqrt()
        xhat = x * scale
        return (xhat if w is None else xhat * w), (xhat, w, scale, over)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Layer norm's without the mean's part."""
        xhat, w, scale, over = saved
        shape = tuple(xhat.shape[over[0] :])
        whole = (*[1] * (xhat.dim() - len(over)), *shape)
        d, dw, _ = _affine_gradients(dy, xhat, w, False, whole, shape)
        return scale * (d - xhat * (d * xhat).mean(over, keepdim=True)), dw

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """Each output reads all of its axes."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """With and without scale."""
        yield Case("plain", lambda r: (r(2, 3, 7), r(7)), {"axes": 1, "eps": 1e-6})
        yield Case("no scale", lambda r: (r(2, 3, 4), None), {"axes": 2, "eps": 1e-6})


def _group_adapt(
    input: Tensor, num_groups: int, weight: Any, bias: Any, eps: float, cudnn_enabled: bool
) -> Adapted:
    return (input, weight, bias), {"groups": num_groups, "eps": eps}


@register
class GroupNorm(Op):
    """x (N, C, ...), w (C), b (C) -> (N, C, ...): over C / G channels and all places."""

    name = "group_norm"
    tensors = ("x", "w", "b")
    spellings = {"group_norm.default": _group_adapt}
    formula = "y = w (x - mean) / sqrt(var + eps) + b over a group of channels and all places"
    source = "Wu and He 2018"

    @staticmethod
    def forward(
        x: Tensor, w: Tensor | None = None, b: Tensor | None = None, *, groups: int,
        eps: float = 1e-5,
    ) -> tuple[Tensor, Saved]:  # fmt: skip
        """Raises `ModelError` where the groups do not divide the channels."""
        if x.size(1) % groups:
            raise ModelError(f"{groups} groups do not divide {x.size(1)} channels")
        xhat, _, _, scale = standardise(x.reshape(_rows(x, groups)), (2,), eps)
        xhat = xhat.reshape(x.shape)
        shape = (1, x.size(1), *[1] * (x.dim() - 2))
        return _affine(xhat, w, b, shape), (xhat, w, b is not None, scale, groups)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """As every norm's, group by group."""
        xhat, w, has_bias, scale, groups = saved
        shape = (1, xhat.size(1), *[1] * (xhat.dim() - 2))
        d, dw, db = _affine_gradients(dy, xhat, w, has_bias, shape, (xhat.size(1),))
        rows = _rows(xhat, groups)
        dx = standardise_dx(d.reshape(rows), xhat.reshape(rows), scale, (2,))
        return dx.reshape(xhat.shape), dw, db

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """Each output reads all places."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Groups, one group, as many as channels."""
        yield Case("groups", lambda r: (r(2, 6, 3, 5), r(6), r(6)), {"groups": 3})
        yield Case("one group", lambda r: (r(2, 4, 5), r(4), r(4)), {"groups": 1})
        yield Case("no scale", lambda r: (r(2, 4, 3, 2), None, None), {"groups": 4})
        yield Case(
            "groups that do not divide", lambda r: (r(2, 5, 3), None, None), {"groups": 2},
            error="2 groups do not divide 5 channels",
        )  # fmt: skip


def _rows(x: Tensor, groups: int) -> Shape:
    """(N, G, what is in a group)."""
    return (x.size(0), groups, math.prod(x.shape[1:]) // groups)


def _instance_adapt(
    input: Tensor, weight: Any, bias: Any, running_mean: Any, running_var: Any,
    use_input_stats: bool, momentum: float, eps: float, cudnn_enabled: bool,
) -> Adapted | None:  # fmt: skip
    if running_mean is not None or not use_input_stats:
        return None  # tracked statistics: torch takes it apart into batch norm
    return (input, weight, bias), {"eps": eps}


@register
class InstanceNorm(Op):
    """x (N, C, ...), w (C), b (C) -> (N, C, ...): over the places of each channel."""

    name = "instance_norm"
    tensors = ("x", "w", "b")
    spellings = {"instance_norm.default": _instance_adapt}
    formula = "y = w (x - mean) / sqrt(var + eps) + b over the places of one channel"
    source = "Ulyanov et al. 2016"

    @staticmethod
    def forward(
        x: Tensor, w: Tensor | None = None, b: Tensor | None = None, *, eps: float = 1e-5
    ) -> tuple[Tensor, Saved]:
        """Group norm with a group per channel."""
        return GroupNorm.forward(x, w, b, groups=x.size(1), eps=eps)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Group norm's."""
        return GroupNorm.backward(dy, saved)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """Each output reads all places."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """With and without scale."""
        yield Case("plain", lambda r: (r(2, 3, 5, 4), r(3), r(3)))
        yield Case("no scale", lambda r: (r(2, 3, 7), None, None))
