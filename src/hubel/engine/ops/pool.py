"""Pooling over sliding windows: the largest value, the mean, or the p-norm.

Max pooling remembers where each winner stood; its backward sends each gradient there, and nowhere
else. Average pooling spreads each gradient evenly over its window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor

from hubel.engine.ops.base import (
    SINGLE,
    Adapted,
    Case,
    Explanation,
    Grads,
    Op,
    Saved,
    Shapes,
    Term,
    Window,
    register,
    tuple_of,
)  # fmt: skip
from hubel.engine.ops.columns import Geometry, columns, uncolumns
from hubel.errors import ModelError


def pooled_size(size: Sequence[int], geometry: Geometry, ceil_mode: bool) -> tuple[int, ...]:
    """Sizes out. With `ceil_mode` a last, partial window counts if it starts inside the input."""
    out = []
    for n, k, s, p, d in zip(size, *geometry, strict=True):
        span = n + 2 * p - d * (k - 1) - 1
        o = -(-span // s) + 1 if ceil_mode else span // s + 1
        out.append(o - 1 if ceil_mode and (o - 1) * s >= n + p else o)
    return tuple(out)


def geometry_of(
    n: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any = 1
) -> dict[str, Any]:
    """Kernel, stride, padding and dilation as torch's poolings take them, on n axes."""
    kernel = tuple_of(kernel_size, n)
    return {
        "kernel": kernel,
        "stride": tuple_of(stride, n) if stride else kernel,
        "padding": tuple_of(padding, n),
        "dilation": tuple_of(dilation, n),
    }


def check_window(x: Tensor, geometry: Geometry, ceil_mode: bool) -> tuple[int, ...]:
    """Sizes out of x (N, C, ...). Raises `ModelError` for a window that does not fit."""
    out = pooled_size(x.shape[2:], geometry, ceil_mode)
    if min(out) < 1:
        raise ModelError(
            f"an input of {tuple(x.shape[2:])} is smaller than a pooling window of "
            f"{geometry.kernel} (padding {geometry.padding}, dilation {geometry.dilation})"
        )
    if any(2 * p > k for p, k in zip(geometry.padding, geometry.kernel, strict=True)):
        raise ModelError(
            f"padding may be at most half the window: window {geometry.kernel}, "
            f"padding {geometry.padding}"
        )
    return out


class Pool(Op):
    """What the poolings share: their windows."""

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> tuple[Window, ...]:
        """Output i reads i S - P .. i S - P + D (K - 1)."""
        dilation = options.get("dilation") or (1,) * len(options["kernel"])
        return tuple(
            Window(Fraction(s), Fraction(-p), Fraction(d * (k - 1) - p))
            for k, s, p, d in zip(
                options["kernel"], options["stride"], options["padding"], dilation, strict=True
            )
        )


def _max_adapter(n: int, indices: bool) -> Any:
    def adapt(
        self: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
    ) -> Adapted | Literal["single"]:
        if self.dim() != n + 2:
            return SINGLE
        options = geometry_of(n, kernel_size, stride, padding, dilation)
        return (self,), {**options, "ceil_mode": ceil_mode, "indices": indices}

    return adapt


@register
class MaxPool(Pool):
    """x (N, C, H, W) -> (N, C, Ho, Wo); 1 to 3 axes. Ties: the first in reading order wins.

    With `indices` also the winners' places, row-major in the input's plane, int64.
    """

    name = "max_pool"
    spellings = {
        f"max_pool{n}d{tail}.default": _max_adapter(n, bool(tail))
        for n in (1, 2, 3)
        for tail in ("", "_with_indices")
    }
    formula = "y = max over the window of x;  dx = dy at the winner's place, else 0"
    source = "Yamaguchi et al. 1990; Riesenhuber and Poggio 1999"

    @staticmethod
    def forward(
        x: Tensor, *, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...],
        dilation: tuple[int, ...], ceil_mode: bool = False, indices: bool = False,
    ) -> tuple[Any, Saved]:  # fmt: skip
        """Outside of the input stands minus infinity: it never wins."""
        geometry = Geometry(kernel, stride, padding, dilation)
        out = check_window(x, geometry, ceil_mode)
        cols = columns(x, geometry, out, fill=-math.inf).flatten(2, 1 + len(kernel))
        y, winner = cols.max(2)
        saved = (winner, tuple(x.shape), geometry)
        return ((y, _places(winner, geometry, x.shape[2:])), saved) if indices else (y, saved)

    @staticmethod
    def backward(dy: Any, saved: Saved) -> Grads:
        """Each output sends its gradient to its winner; overlapping windows add up."""
        winner, shape, geometry = saved
        dy = dy[0] if isinstance(dy, tuple) else dy
        cols = dy.new_zeros(*dy.shape[:2], math.prod(geometry.kernel), *dy.shape[2:])
        cols.scatter_(2, winner.unsqueeze(2), dy.unsqueeze(2))
        return (uncolumns(cols.unflatten(2, geometry.kernel), geometry, shape[2:]),)

    @classmethod
    def fast_forward(cls, x: Any, **options: Any) -> tuple[Any, Saved]:
        """By torch's kernel, in two and three dimensions."""
        n = len(options["kernel"])
        if n == 1:
            return cls.forward(x, **options)
        geometry = [options[key] for key in ("kernel", "stride", "padding", "dilation")]
        kernel = getattr(torch.ops.aten, f"max_pool{n}d_with_indices")
        y, places = kernel(x, *geometry, options["ceil_mode"])
        saved = (x, places, geometry, options["ceil_mode"])
        return ((y, places) if options["indices"] else y), saved

    @classmethod
    def fast_backward(cls, dy: Any, saved: Saved, needs: tuple[bool, ...]) -> Grads:
        """By torch's kernel."""
        if len(saved) == 3:
            return cls.backward(dy, saved)
        x, places, geometry, ceil_mode = saved
        dy = dy[0] if isinstance(dy, tuple) else dy
        kernel = getattr(torch.ops.aten, f"max_pool{len(geometry[0])}d_with_indices_backward")
        return (kernel(dy.contiguous(), x, *geometry, ceil_mode, places),)

    @classmethod
    def explain(
        cls, tensors: Sequence[Any], options: dict[str, Any], output: Any, place: tuple[int, ...]
    ) -> Explanation:
        """The values under the window, the winner with weight 1."""
        x = tensors[0]
        y = output[0] if isinstance(output, tuple) else output
        spots = [
            spot
            for spot in _window(place, options, x.shape)
            if all(0 <= v < n for v, n in zip(spot[2:], x.shape[2:], strict=True))
        ]
        best = max(spots, key=lambda spot: float(x[spot]))
        terms = tuple(Term(spot, float(x[spot]), float(spot == best)) for spot in spots)
        sentence = f"output {place} = the largest of the {len(spots)} inputs under its window"
        return Explanation(sentence, terms, (), float(y[place]))

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Overlap, padding, dilation, partial windows, one and three axes."""
        two: dict[str, Any] = {
            "kernel": (3, 2), "stride": (3, 2), "padding": (0, 0), "dilation": (1, 1),
            "ceil_mode": False, "indices": False,
        }  # fmt: skip
        yield Case("plain", lambda r: (r(2, 3, 7, 5),), two)
        yield Case("overlapping", lambda r: (r(2, 3, 7, 5),), {**two, "stride": (2, 1)})
        yield Case("padded", lambda r: (r(2, 3, 7, 5),), {**two, "padding": (1, 1)})
        yield Case("dilated", lambda r: (r(1, 2, 11, 7),), {**two, "dilation": (2, 3)})
        yield Case("partial windows", lambda r: (r(2, 3, 8, 7),), {**two, "ceil_mode": True})
        yield Case("with places", lambda r: (r(2, 3, 7, 5),), {**two, "indices": True})
        one = {
            "kernel": (3,), "stride": (2,), "padding": (1,), "dilation": (1,),
            "ceil_mode": False, "indices": False,
        }  # fmt: skip
        yield Case("1-d", lambda r: (r(2, 3, 11),), one)
        three = {key: v * 3 if isinstance(v, tuple) else v for key, v in one.items()}
        yield Case("3-d", lambda r: (r(1, 2, 5, 7, 3),), three)
        yield Case(
            "window too large",
            lambda r: (r(1, 1, 2, 2),),
            two,
            error="smaller than a pooling window",
        )
        yield Case(
            "padding too wide", lambda r: (r(1, 1, 7, 7),), {**two, "padding": (2, 2)},
            error="at most half the window",
        )  # fmt: skip


def _places(winner: Tensor, geometry: Geometry, size: Sequence[int]) -> Tensor:
    """From the winner's number inside its window to its place in the input's plane."""
    flat = torch.zeros_like(winner)
    rest = winner
    inner = math.prod(geometry.kernel)
    for axis, extent in enumerate(size):
        inner //= geometry.kernel[axis]
        step, rest = rest.div(inner, rounding_mode="floor"), rest % inner
        start = torch.arange(winner.size(2 + axis), device=winner.device) * geometry.stride[axis]
        start = start.view(-1, *[1] * (len(size) - axis - 1)) - geometry.padding[axis]
        flat = flat * extent + start + step * geometry.dilation[axis]
    return flat


def _window(
    place: tuple[int, ...], options: dict[str, Any], shape: Sequence[int]
) -> list[tuple[int, ...]]:
    """Places of the inputs that a window covers, some of them perhaps outside."""
    n, c, *at = place
    kernel = options["kernel"]
    dilation = options.get("dilation") or (1,) * len(kernel)
    starts = [i * s - p for i, s, p in zip(at, options["stride"], options["padding"], strict=True)]
    steps = torch.cartesian_prod(*map(torch.arange, kernel)).view(-1, len(kernel)).tolist()
    return [
        (n, c, *[a + k * d for a, k, d in zip(starts, ks, dilation, strict=True)]) for ks in steps
    ]


def _average_adapter(n: int) -> Any:
    def adapt(
        self: Tensor, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool,
        count_include_pad: bool, divisor_override: int | None = None,
    ) -> Adapted | Literal["single"]:  # fmt: skip
        if self.dim() != n + 2:
            return SINGLE
        options = geometry_of(n, kernel_size, stride, padding)
        del options["dilation"]
        return (self,), {
            **options, "ceil_mode": ceil_mode, "count_padding": count_include_pad,
            "divisor": divisor_override,
        }  # fmt: skip

    return adapt


@register
class AveragePool(Pool):
    """x (N, C, H, W) -> (N, C, Ho, Wo); 1 to 3 axes.

    `count_padding`: whether zeros of the padding count in the mean; `divisor` replaces the count.
    """

    name = "average_pool"
    spellings = {f"avg_pool{n}d.default": _average_adapter(n) for n in (1, 2, 3)}
    formula = "y = sum of the window / count;  dx = dy / count, to every place of the window"
    source = "LeCun et al. 1989, subsampling"
    linear_in = ("x",)

    @staticmethod
    def forward(
        x: Tensor, *, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...],
        ceil_mode: bool = False, count_padding: bool = True, divisor: int | None = None,
    ) -> tuple[Tensor, Saved]:  # fmt: skip
        """Sum every window, then divide by how many it holds."""
        geometry = Geometry(kernel, stride, padding, (1,) * len(kernel))
        out = check_window(x, geometry, ceil_mode)
        cols = columns(x, geometry, out)
        window = tuple(range(2, 2 + len(kernel)))
        count = window_sizes(x, geometry, out, count_padding) if divisor is None else divisor
        return cols.sum(window) / count, (tuple(x.shape), count, geometry)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """The same share to every place under the window."""
        shape, count, geometry = saved
        n = len(geometry.kernel)
        share = (dy / count).reshape(*dy.shape[:2], *[1] * n, *dy.shape[2:])
        cols = share.expand(*dy.shape[:2], *geometry.kernel, *dy.shape[2:])
        return (uncolumns(cols, geometry, shape[2:]),)

    @classmethod
    def fast_forward(cls, x: Any, **options: Any) -> tuple[Any, Saved]:
        """By torch's kernel, in two and three dimensions."""
        n = len(options["kernel"])
        if n == 1:
            return cls.forward(x, **options)
        rest = [options[key] for key in ("ceil_mode", "count_padding", "divisor")]
        geometry = [options[key] for key in ("kernel", "stride", "padding")]
        kernel = getattr(torch.ops.aten, f"avg_pool{n}d")
        return kernel(x, *geometry, *rest), (x, geometry, rest, n)

    @classmethod
    def fast_backward(cls, dy: Any, saved: Saved, needs: tuple[bool, ...]) -> Grads:
        """By torch's kernel."""
        if len(saved) == 3:
            return cls.backward(dy, saved)
        x, geometry, rest, n = saved
        kernel = getattr(torch.ops.aten, f"avg_pool{n}d_backward")
        return (kernel(dy.contiguous(), x, *geometry, *rest),)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Overlap, padding counted and not, a divisor, partial windows, one and three axes."""
        two: dict[str, Any] = {
            "kernel": (3, 2), "stride": (2, 2), "padding": (0, 0), "ceil_mode": False,
            "count_padding": True, "divisor": None,
        }  # fmt: skip
        padded = {**two, "padding": (1, 1)}
        yield Case("plain", lambda r: (r(2, 3, 7, 5),), two)
        yield Case("padding counts", lambda r: (r(2, 3, 7, 5),), padded)
        yield Case(
            "padding does not", lambda r: (r(2, 3, 7, 5),), {**padded, "count_padding": False}
        )
        yield Case("a divisor", lambda r: (r(2, 3, 7, 5),), {**padded, "divisor": 5})
        yield Case("partial windows", lambda r: (r(2, 3, 8, 7),), {**padded, "ceil_mode": True})
        yield Case(
            "partial, uncounted", lambda r: (r(2, 3, 8, 7),),
            {**padded, "ceil_mode": True, "count_padding": False},
        )  # fmt: skip
        yield Case(
            "1-d", lambda r: (r(2, 3, 11),),
            {**two, "kernel": (3,), "stride": (2,), "padding": (1,)},
        )  # fmt: skip
        yield Case(
            "3-d", lambda r: (r(1, 2, 5, 7, 3),),
            {**two, "kernel": (2, 3, 2), "stride": (1, 2, 1), "padding": (1, 1, 0)},
        )  # fmt: skip


def window_sizes(x: Tensor, geometry: Geometry, out: Sequence[int], count_padding: bool) -> Tensor:
    """How many places each window over x (N, C, ...) holds, with its padding or without."""
    size = x.shape[2:]
    axes = []
    for n, o, k, s, p in zip(size, out, *geometry[:3], strict=True):
        start = torch.arange(o, device=x.device) * s - p
        low, high = (-p, n + p) if count_padding else (0, n)
        axes.append((start + k).clamp(max=high) - start.clamp(min=low))
    count = axes[0]
    for axis in axes[1:]:
        count = count.unsqueeze(-1) * axis
    return count.to(x.dtype)
