"""One number of an output, written out; one operator as a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hubel.engine.check import names_of
from hubel.engine.ops.base import Explanation, Op, Shapes, Term
from hubel.errors import OptionError

LARGEST = 2_000_000_000  # bytes that a sparse matrix may take
PROBES = 20_000  # outputs that are asked one by one, at most


def explain(
    op: type[Op],
    tensors: Sequence[Any],
    options: dict[str, Any],
    output: Any,
    place: tuple[int, ...],
) -> Explanation:
    """How output element `place` came about.

    Operators that can say it best do; of the others it is told by which inputs the number moves.
    Raises `OptionError` for a place that is not there.
    """
    first = output[0] if isinstance(output, tuple) else output
    _check_place(place, tuple(first.shape))
    with torch.no_grad():
        found = op.explain(tensors, options, output, place)
        return found or _by_slopes(op, tensors, options, first, place)


def _check_place(place: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if len(place) != len(shape) or any(not 0 <= i < n for i, n in zip(place, shape, strict=True)):
        raise OptionError(f"the output has shape {shape}, given place {place}")


def _by_slopes(
    op: type[Op],
    tensors: Sequence[Any],
    options: dict[str, Any],
    output: Tensor,
    place: tuple[int, ...],
) -> Explanation:
    y, saved = op.forward(*tensors, **options)
    dy: Any = torch.zeros_like(output)
    dy[place] = 1
    if isinstance(y, tuple):
        dy = (dy, *[None] * (len(y) - 1))
    terms = []
    for x, gradient in zip(tensors, op.backward(dy, saved), strict=True):
        if gradient is not None and isinstance(x, Tensor):
            for at in gradient.nonzero().tolist():
                terms.append(Term(tuple(at), float(x[tuple(at)]), float(gradient[tuple(at)])))
    words = f"output {place} of {op.name} ({op.formula}); weights are slopes"
    return Explanation(words, tuple(terms), (), float(output[place]))


def matrix(op: type[Op], tensors: Sequence[Any], options: dict[str, Any], argument: str) -> Tensor:
    """The operator as a sparse matrix (outputs, elements of `argument`), bias aside.

    Of convolutions, fully connected layers and resampling: for one image. Raises `OptionError`
    where the output is not linear in the argument, or where the matrix would be too large.
    """
    names = _linear(op)
    if not names:
        raise OptionError(
            f"{op.name} is not linear in {argument!r}: its matrix exists nowhere; try jacobian()"
        )
    if argument not in names:
        raise OptionError(f"{op.name} is not linear in {argument!r}: allowed: {', '.join(names)}")
    with torch.no_grad():
        _check_room(op, tensors, options)
        try:
            return op.matrix(tensors, options, argument)
        except NotImplementedError:
            return jacobian(op, tensors, options, argument)


def jacobian(
    op: type[Op], tensors: Sequence[Any], options: dict[str, Any], argument: str
) -> Tensor:
    """d output / d argument at these values, sparse (outputs, elements), one backward per output.

    Raises `OptionError` where that would be too many.
    """
    i = names_of(op, tensors).index(argument)
    with torch.no_grad():
        y, saved = op.forward(*tensors, **options)
        first = y[0] if isinstance(y, tuple) else y
        n, width = first.numel(), tensors[i].numel()
        if n > PROBES:
            raise OptionError(
                f"a Jacobian of {n:,} x {width:,} takes {n:,} backward calls "
                f"({n * width * 8 / 1e9:.3g} GB if it were dense): up to {PROBES:,} "
                "outputs are allowed, give a smaller input"
            )
        rows, columns, values = [], [], []
        for row in range(n):
            dy: Any = torch.zeros_like(first).view(-1)
            dy[row] = 1
            dy = dy.view(first.shape)
            dy = (dy, *[None] * (len(y) - 1)) if isinstance(y, tuple) else dy
            gradient = op.backward(dy, saved)[i]
            if gradient is None:
                continue
            flat = gradient.reshape(-1)
            at = flat.nonzero().squeeze(1)
            columns.append(at)
            rows.append(torch.full_like(at, row))
            values.append(flat[at])
    places = torch.stack([torch.cat(rows), torch.cat(columns)])
    return torch.sparse_coo_tensor(
        places, torch.cat(values), (n, width), check_invariants=False
    ).coalesce()


def _linear(op: type[Op]) -> list[str]:
    return [name.removeprefix("*") for name in op.linear_in]


def _check_room(op: type[Op], tensors: Sequence[Any], options: dict[str, Any]) -> None:
    """A matrix of a convolution has as many numbers as the layer has multiply-adds an image."""
    meta = [t.to("meta")[:1] if isinstance(t, Tensor) and i == 0 and t.dim() > 1 else t
            for i, t in enumerate(tensors)]  # fmt: skip
    if op.name not in ("conv", "conv_transposed"):
        return
    x, w = meta[0], tensors[1]
    out = torch.ops.aten.convolution(
        x, w.to("meta"), None, options["stride"], options["padding"], options["dilation"],
        "output_padding" in options, options.get("output_padding", [0] * (x.dim() - 2)),
        options["groups"],
    )  # fmt: skip
    shapes = Shapes((tuple(x.shape), tuple(w.shape), None), (tuple(out.shape),))
    numbers = op.macs(shapes, **options)
    size = numbers * (16 + w.element_size())
    if size > LARGEST:
        raise OptionError(
            f"this layer's matrix is {out.numel():,} x {x.numel():,} with {numbers:,} numbers: "
            f"{size / 1e9:.1f} GB sparse ({out.numel() * x.numel() * 8 / 1e9:,.0f} GB dense), more "
            f"than the allowed {LARGEST / 1e9:.0f} GB: give a smaller image"
        )
