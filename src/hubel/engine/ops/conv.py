"""Convolution in one, two and three dimensions, its transpose, and true convolution.

What the field calls convolution is cross-correlation: the kernel slides unflipped.

    y[n, o, i] = b[o] + sum over c, k of  w[o, c, k] * x[n, c, i * S - P + k * D]

Gather every window into a column (im2col) and it is one matrix product, y = w @ cols(x). Both
gradients follow from that product: dw = dy @ cols(x)^T, and dx = cols^T(w^T @ dy), where cols^T
(col2im) adds every column back to the places it was read from.
"""

from __future__ import annotations

import itertools
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
    Shape,
    Shapes,
    Term,
    Window,
    register,
    tuple_of,
)  # fmt: skip
from hubel.engine.ops.columns import Geometry, columns, toeplitz, uncolumns
from hubel.errors import ModelError


def correlate(x: Tensor, w: Tensor, geometry: Geometry, groups: int) -> Tensor:
    """y = w @ cols(x). x (N, C, H, W), w (O, C / G, K, K) -> (N, O, Ho, Wo)."""
    out = geometry.out(x.shape[2:])
    cols = columns(x, geometry, out).reshape(x.size(0), groups, -1, math.prod(out))
    y = w.reshape(groups, w.size(0) // groups, -1) @ cols
    return y.reshape(x.size(0), w.size(0), *out)


def correlate_dx(
    dy: Tensor, w: Tensor, geometry: Geometry, groups: int, size: Sequence[int]
) -> Tensor:
    """dx = cols^T(w^T @ dy). dy (N, O, Ho, Wo) -> (N, C, *size)."""
    n, out = dy.size(0), dy.shape[2:]
    dcols = w.reshape(groups, w.size(0) // groups, -1).mT @ dy.reshape(
        n, groups, w.size(0) // groups, -1
    )
    return uncolumns(dcols.reshape(n, -1, *geometry.kernel, *out), geometry, size)


def correlate_dw(dy: Tensor, x: Tensor, shape: Shape, geometry: Geometry, groups: int) -> Tensor:
    """dw = sum over images of dy @ cols(x)^T, in the kernel's `shape` (O, C / G, K, K)."""
    n, out = dy.size(0), dy.shape[2:]
    cols = columns(x, geometry, out).reshape(n, groups, -1, math.prod(out))
    dy = dy.reshape(n, groups, shape[0] // groups, -1)
    return (dy @ cols.mT).sum(0).reshape(shape)


def options_of(w: Tensor, n: int, stride: Any, padding: Any, dilation: Any) -> dict[str, Any]:
    """Stride, padding and dilation for w (O, C / G, K...), as torch's layers take them."""
    if isinstance(padding, str):
        spread = [d * (k - 1) for d, k in zip(tuple_of(dilation, n), w.shape[2:], strict=True)]
        if padding == "same" and any(v % 2 for v in spread):
            raise _Uneven
        padding = [v // 2 for v in spread] if padding == "same" else 0
    return {
        "stride": tuple_of(stride, n),
        "padding": tuple_of(padding, n),
        "dilation": tuple_of(dilation, n),
    }


class _Uneven(Exception):
    """Padding "same" that is wider on one side: torch pads first, then convolves without."""


def _adapt(
    input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Adapted | Literal["single"] | None:
    n = weight.dim() - 2
    if input.dim() != n + 2:
        return SINGLE
    try:
        options = options_of(weight, n, stride, padding, dilation)
    except _Uneven:
        return None
    return (input, weight, bias), {**options, "groups": groups}


def _adapt_plain(
    input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Adapted | Literal["single"] | None:  # fmt: skip
    """What torch makes of "same" padding that is wider on one side, after padding."""
    return None if transposed else _adapt(input, weight, bias, stride, padding, dilation, groups)


def _check(x: Tensor, channels: int, geometry: Geometry) -> None:
    if x.size(1) != channels:
        raise ModelError(f"the kernel takes {channels} channels, the input has {x.size(1)}")
    out = geometry.out(x.shape[2:])
    if min(out) < 1:
        raise ModelError(
            f"an input of {tuple(x.shape[2:])} with padding {geometry.padding} is smaller than "
            f"the kernel's reach (kernel {geometry.kernel}, dilation {geometry.dilation})"
        )


@register
class Conv(Op):
    """x (N, C, H, W), w (O, C / G, K, K), b (O) or None -> (N, O, Ho, Wo); 1 to 3 axes."""

    name = "conv"
    tensors = ("x", "w", "b")
    spellings = {
        "conv1d.default": _adapt, "conv2d.default": _adapt, "conv3d.default": _adapt,
        "conv1d.padding": _adapt, "conv2d.padding": _adapt, "conv3d.padding": _adapt,
        "convolution.default": _adapt_plain,
    }  # fmt: skip
    formula = "y = w cols(x) + b;  dx = cols^T(w^T dy),  dw = dy cols(x)^T,  db = sum dy"
    source = "LeCun et al. 1989; im2col: Chellapilla et al. 2006"
    linear_in = ("x", "w")

    @staticmethod
    def forward(
        x: Tensor, w: Tensor, b: Tensor | None = None, *, stride: tuple[int, ...],
        padding: tuple[int, ...], dilation: tuple[int, ...], groups: int = 1,
    ) -> tuple[Tensor, Saved]:  # fmt: skip
        """Slide the kernel over the input, unflipped. Raises `ModelError` where it cannot fit."""
        geometry = Geometry(tuple(w.shape[2:]), stride, padding, dilation)
        _check(x, w.size(1) * groups, geometry)
        y = correlate(x, w, geometry, groups)
        if b is not None:
            y = y + b.view(-1, *[1] * len(stride))
        return y, (x, w, b is not None, geometry, groups)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Both gradients are products with the same columns."""
        x, w, has_bias, geometry, groups = saved
        dx = correlate_dx(dy, w, geometry, groups, x.shape[2:])
        dw = correlate_dw(dy, x, tuple(w.shape), geometry, groups)
        db = dy.sum((0, *range(2, dy.dim()))) if has_bias else None
        return dx, dw, db

    @classmethod
    def fast_forward(cls, x: Any, w: Any, b: Any = None, **options: Any) -> tuple[Tensor, Saved]:
        """By torch's convolution kernel."""
        geometry = (options["stride"], options["padding"], options["dilation"])
        transposed = "output_padding" in options
        rest = (transposed, options.get("output_padding", [0] * (x.dim() - 2)), options["groups"])
        y = torch.ops.aten.convolution(x, w, b, *geometry, *rest)
        return y, (x, w, b is not None, geometry, rest)

    @classmethod
    def fast_backward(cls, dy: Any, saved: Saved, needs: tuple[bool, ...]) -> Grads:
        """By torch's backward kernel, which computes only what is needed."""
        x, w, has_bias, geometry, rest = saved
        outputs = w.size(1) * rest[2] if rest[0] else w.size(0)
        wanted = [needs[0], needs[1], has_bias and needs[2]]
        found = torch.ops.aten.convolution_backward(dy, x, w, [outputs], *geometry, *rest, wanted)
        return tuple(g if want else None for g, want in zip(found, wanted, strict=True))

    @classmethod
    def macs(cls, shapes: Shapes, **options: Any) -> int:
        """Every output takes one product per weight of its kernel."""
        w, y = shapes.inputs[1], shapes.outputs[0]
        assert w is not None
        return math.prod(y) * math.prod(w[1:])

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> tuple[Window, ...]:
        """Output i reads i S - P .. i S - P + D (K - 1)."""
        w = shapes.inputs[1]
        assert w is not None
        return tuple(
            Window(Fraction(s), Fraction(-p), Fraction(d * (k - 1) - p))
            for k, s, p, d in zip(
                w[2:], options["stride"], options["padding"], options["dilation"], strict=True
            )
        )

    @classmethod
    def matrix(cls, tensors: Sequence[Any], options: dict[str, Any], argument: str) -> Tensor:
        """Doubly blocked Toeplitz: y = W x for "x" (outputs, inputs), y = X w for "w"."""
        x, w = tensors[0], tensors[1]
        geometry = Geometry(
            tuple(w.shape[2:]), options["stride"], options["padding"], options["dilation"]
        )
        return toeplitz(x[:1], w, geometry, options["groups"], argument)

    @classmethod
    def explain(
        cls, tensors: Sequence[Any], options: dict[str, Any], output: Tensor, place: tuple[int, ...]
    ) -> Explanation:
        """The window under this output, times the kernel, plus the bias."""
        x, w, b = tensors
        geometry = Geometry(
            tuple(w.shape[2:]), options["stride"], options["padding"], options["dilation"]
        )
        n, o, *at = place
        group = o // (w.size(0) // options["groups"])
        terms = []
        for c, *k in itertools.product(*map(range, w.shape[1:])):
            where = [
                i * s - p + kk * d for i, kk, s, p, d in zip(at, k, *geometry[1:], strict=True)
            ]
            inside = all(0 <= v < size for v, size in zip(where, x.shape[2:], strict=True))
            channel = group * w.size(1) + c
            value = float(x[(n, channel, *where)]) if inside else 0.0
            terms.append(Term((n, channel, *where), value, float(w[(o, c, *k)])))
        rest = () if b is None else (("bias", float(b[o])),)
        sentence = (
            f"output {place} = the window of {'x'.join(map(str, w.shape[1:]))} inputs under it, "
            f"times kernel {o}" + (", plus its bias" if rest else "")
        )
        return Explanation(sentence, tuple(terms), rest, float(output[place]))

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Prime and unequal sizes; every option; the lectures' one-dimensional example."""
        one = {"stride": (1,), "padding": (0,), "dilation": (1,), "groups": 1}
        two = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
        yield Case("1-d", lambda r: (r(2, 3, 11), r(4, 3, 3), r(4)), one)
        yield Case("plain", lambda r: (r(2, 3, 7, 11), r(5, 3, 3, 2), r(5)), two)
        yield Case("no bias", lambda r: (r(2, 3, 7, 5), r(4, 3, 3, 3), None), two)
        yield Case(
            "stride and padding", lambda r: (r(2, 3, 11, 7), r(4, 3, 5, 3), r(4)),
            {**two, "stride": (2, 3), "padding": (2, 1)},
        )  # fmt: skip
        yield Case(
            "dilation", lambda r: (r(2, 2, 11, 13), r(3, 2, 3, 2), r(3)),
            {**two, "dilation": (2, 3), "padding": (1, 2)},
        )  # fmt: skip
        yield Case("groups", lambda r: (r(2, 4, 7, 5), r(6, 2, 3, 3), r(6)), {**two, "groups": 2})
        yield Case(
            "depthwise", lambda r: (r(2, 3, 7, 5), r(3, 1, 3, 3), r(3)),
            {**two, "groups": 3, "padding": (1, 1)},
        )  # fmt: skip
        yield Case("1x1", lambda r: (r(3, 5, 3, 2), r(2, 5, 1, 1), r(2)), two)
        yield Case(
            "3-d", lambda r: (r(2, 2, 5, 3, 4), r(3, 2, 2, 3, 2), r(3)),
            {"stride": (2, 1, 1), "padding": (1, 1, 0), "dilation": (1, 1, 2), "groups": 1},
        )  # fmt: skip
        yield Case(
            "other channels", lambda r: (r(1, 4, 5, 5), r(2, 3, 3, 3), None), two,
            error="takes 3 channels, the input has 4",
        )  # fmt: skip
        yield Case(
            "kernel too large", lambda r: (r(1, 1, 3, 3), r(1, 1, 5, 5), None), two,
            error="smaller than the kernel's reach",
        )  # fmt: skip


@register
class TrueConvolution(Op):
    """x (N, C, H, W), w (O, C, K, K) -> (N, O, Ho, Wo): the kernel slides flipped on every axis.

    The mathematicians' convolution. A net that learns its kernels learns them flipped and is the
    same net; it matters where kernels are given, as in signal processing.
    """

    name = "true_convolution"
    tensors = ("x", "w")
    formula = "y = conv(x, flip(w));  dw = flip(dw of conv)"
    source = "scipy.signal.convolve is the oracle of its test"
    linear_in = ("x", "w")

    @staticmethod
    def forward(
        x: Tensor, w: Tensor, *, stride: tuple[int, ...], padding: tuple[int, ...]
    ) -> tuple[Tensor, Saved]:
        """Flip, then correlate."""
        flat = tuple(1 for _ in stride)
        flipped = w.flip(tuple(range(2, w.dim())))
        return Conv.forward(x, flipped, stride=stride, padding=padding, dilation=flat)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """The kernel's gradient flips back."""
        dx, dw, _ = Conv.backward(dy, saved)
        assert dw is not None
        return dx, dw.flip(tuple(range(2, dw.dim())))

    @classmethod
    def macs(cls, shapes: Shapes, **options: Any) -> int:
        """As convolution."""
        return Conv.macs(shapes, **options)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> tuple[Window, ...]:
        """As convolution."""
        return Conv.windows(shapes, **options, dilation=tuple(1 for _ in options["stride"]))

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """One and two axes."""
        yield Case("1-d", lambda r: (r(2, 1, 7), r(2, 1, 3)), {"stride": (1,), "padding": (2,)})
        yield Case(
            "2-d", lambda r: (r(2, 3, 7, 5), r(4, 3, 3, 2)), {"stride": (1, 2), "padding": (1, 0)}
        )
