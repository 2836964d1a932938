"""Transposed convolution: a convolution's matrix the other way round, for going up in size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, Literal

from torch import Tensor

from hubel.engine.ops.base import (
    SINGLE,
    Adapted,
    Case,
    Explanation,
    Grads,
    Saved,
    Shapes,
    Term,
    Window,
    register,
    tuple_of,
)  # fmt: skip
from hubel.engine.ops.columns import Geometry, last, toeplitz
from hubel.engine.ops.conv import Conv, correlate, correlate_dw, correlate_dx, options_of
from hubel.errors import ModelError


def _adapt_transposed(
    input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, output_padding: Any,
    groups: int, dilation: Any,
) -> Adapted | Literal["single"]:  # fmt: skip
    n = weight.dim() - 2
    if input.dim() != n + 2:
        return SINGLE
    options = options_of(weight, n, stride, padding, dilation)
    return (input, weight, bias), {
        **options, "output_padding": tuple_of(output_padding, n), "groups": groups,
    }  # fmt: skip


@register
class ConvTransposed(Conv):
    """x (N, C, H, W), w (C, O / G, K, K), b (O) or None -> (N, O, Ho, Wo), Ho > H for S > 1.

    The transpose of a convolution's matrix: forward is that convolution's dx, dx its forward.
    """

    name = "conv_transposed"
    spellings = {
        "conv_transpose1d.default": _adapt_transposed,
        "conv_transpose2d.input": _adapt_transposed,
        "conv_transpose3d.input": _adapt_transposed,
    }
    formula = "y = cols^T(w^T x) + b;  dx = w cols(dy),  dw = x cols(dy)^T,  db = sum dy"
    source = "Zeiler et al. 2010, deconvolutional networks; Long et al. 2015"

    @staticmethod
    def forward(  # type: ignore[override]
        x: Tensor, w: Tensor, b: Tensor | None = None, *, stride: tuple[int, ...],
        padding: tuple[int, ...], dilation: tuple[int, ...], output_padding: tuple[int, ...],
        groups: int = 1,
    ) -> tuple[Tensor, Saved]:  # fmt: skip
        """Every input spreads the kernel over its window; overlaps add up."""
        geometry = Geometry(tuple(w.shape[2:]), stride, padding, dilation)
        if x.size(1) != w.size(0):
            raise ModelError(f"the kernel takes {w.size(0)} channels, the input has {x.size(1)}")
        size = geometry.transposed_out(x.shape[2:], output_padding)
        if min(size) < 1:
            raise ModelError(f"an input of {tuple(x.shape[2:])} would give an output of {size}")
        y = correlate_dx(x, w, geometry, groups, size)
        if b is not None:
            y = y + b.view(-1, *[1] * len(stride))
        return y, (x, w, b is not None, geometry, groups)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """The convolution's forward, and its weight gradient with the roles exchanged."""
        x, w, has_bias, geometry, groups = saved
        dx = correlate(dy, w, geometry, groups)
        dx = dx[last([slice(n) for n in x.shape[2:]])]  # rows that only extra padding made
        dw = correlate_dw(x, dy, tuple(w.shape), geometry, groups)
        db = dy.sum((0, *range(2, dy.dim()))) if has_bias else None
        return dx, dw, db

    @classmethod
    def macs(cls, shapes: Shapes, **options: Any) -> int:
        """Every input takes one product per weight of its kernel."""
        x, w = shapes.inputs[:2]
        assert x is not None
        assert w is not None
        return math.prod(x) * math.prod(w[1:])

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> tuple[Window, ...]:
        """Output i is reached by the inputs (i + P - D (K - 1)) / S .. (i + P) / S."""
        w = shapes.inputs[1]
        assert w is not None
        return tuple(
            Window(Fraction(1, s), Fraction(p - d * (k - 1), s), Fraction(p, s))
            for k, s, p, d in zip(
                w[2:], options["stride"], options["padding"], options["dilation"], strict=True
            )
        )

    @classmethod
    def matrix(cls, tensors: Sequence[Any], options: dict[str, Any], argument: str) -> Tensor:
        """The transpose of the convolution's; by one probe per output for "w"."""
        if argument != "x":
            raise NotImplementedError
        x, w = tensors[0], tensors[1]
        geometry = Geometry(
            tuple(w.shape[2:]), options["stride"], options["padding"], options["dilation"]
        )
        size = geometry.transposed_out(x.shape[2:], options["output_padding"])
        y = x.new_empty(1, w.size(1) * options["groups"], *size)
        whole = toeplitz(y, w, geometry, options["groups"], "x", out=tuple(x.shape[2:]))
        return whole.t().coalesce()

    @classmethod
    def explain(
        cls, tensors: Sequence[Any], options: dict[str, Any], output: Tensor, place: tuple[int, ...]
    ) -> Explanation:
        """The inputs whose spread kernels reach this output."""
        x, w, b = tensors
        n, o, *at = place
        per_group = x.size(1) // options["groups"]
        group, inner = divmod(o, w.size(1))
        terms = []
        for c, *k in itertools.product(range(per_group), *map(range, w.shape[2:])):
            reach = [
                i + p - kk * d
                for i, kk, p, d in zip(at, k, options["padding"], options["dilation"], strict=True)
            ]
            where = [divmod(v, s) for v, s in zip(reach, options["stride"], strict=True)]
            hits = all(
                not rest and 0 <= q < size
                for (q, rest), size in zip(where, x.shape[2:], strict=True)
            )
            if hits:
                spot = (n, group * per_group + c, *[q for q, _ in where])
                terms.append(Term(spot, float(x[spot]), float(w[(spot[1], inner, *k)])))
        rest = () if b is None else (("bias", float(b[o])),)
        sentence = f"output {place} = the {len(terms)} inputs that reach it, times their weights"
        return Explanation(sentence, tuple(terms), rest, float(output[place]))

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Stride, cropping, extra rows, groups, three axes."""
        two = {
            "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "output_padding": (0, 0),
            "groups": 1,
        }  # fmt: skip
        yield Case("plain", lambda r: (r(2, 3, 5, 4), r(3, 2, 3, 2), r(2)), two)
        yield Case(
            "upsampling", lambda r: (r(2, 3, 5, 4), r(3, 2, 4, 4), r(2)),
            {**two, "stride": (2, 2), "padding": (1, 1)},
        )  # fmt: skip
        yield Case(
            "extra rows", lambda r: (r(2, 3, 3, 5), r(3, 4, 3, 3), None),
            {**two, "stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2)},
        )  # fmt: skip
        yield Case(
            "groups and dilation", lambda r: (r(2, 4, 3, 5), r(4, 3, 3, 2), r(6)),
            {**two, "dilation": (2, 1), "groups": 2, "stride": (1, 2)},
        )  # fmt: skip
        yield Case(
            "1-d", lambda r: (r(2, 3, 5), r(3, 2, 3), r(2)),
            {
                "stride": (2,), "padding": (1,), "dilation": (1,), "output_padding": (1,),
                "groups": 1,
            },
        )  # fmt: skip
        yield Case(
            "other channels", lambda r: (r(1, 4, 5, 5), r(3, 2, 3, 3), None), two,
            error="takes 3 channels, the input has 4",
        )  # fmt: skip
