"""Why a gradient is wrong: what would have to be undone to make it right. Found by trying."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

CLOSE = 1e-5  # a repaired gradient is this near the expected one, of its largest element


def likely_cause(
    got: Tensor, expected: Tensor, value: Tensor | None = None, batch: int | None = None
) -> str:
    """One sentence: the mistake that explains `got` (any shape) where `expected` was right.

    Args:
        got, expected: two gradients of one shape (any), float64.
        value: what the gradient belongs to; tells a hidden decay.
        batch: images in the batch; tells a mean from a sum.
    """
    for sentence, repaired in _repairs(got, expected, value, batch):
        if _near(repaired, expected):
            return sentence
    return _few(got, expected) or "no simple mistake explains it"


def _near(a: Tensor, b: Tensor) -> bool:
    scale = float(b.abs().max())
    return (
        a.shape == b.shape
        and bool(torch.isfinite(a).all())
        and float((a - b).abs().max()) <= CLOSE * scale
    )


def _repairs(
    got: Tensor, expected: Tensor, value: Tensor | None, batch: int | None
) -> Iterator[tuple[str, Tensor]]:
    if not torch.isfinite(got).all():
        return
    if not expected.any():
        yield "it should be zero: something flows in that does not move the loss", expected
        return
    if not got.any():
        yield "it is zero: the path back is cut (detached, or never added)", expected
        return
    yield "the sign is turned round", -got
    yield "it was added twice", got / 2
    yield "only half of it was added", got * 2
    if batch and batch > 1:
        yield f"it is not divided by the batch of {batch} (sum instead of mean)", got / batch
        yield f"it is divided by the batch of {batch} once too often", got * batch
    yield from _turned(got)
    yield from _shifted(got, expected)
    yield from _means(got, expected)
    if value is not None and value.shape == got.shape and value.any():
        rest = got - expected
        share = float((rest * value).sum() / (value * value).sum())
        yield (
            f"it contains {share:.3g} times the value itself (a hidden weight decay)",
            got - share * value,
        )
    factor = float((got * expected).sum() / (got * got).sum())
    yield f"a factor of {factor:.6g} is missing", got * factor
    yield from _factors_by_axis(got, expected)


def _turned(got: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Kernels the wrong way round."""
    n = got.dim()
    if n >= 3:
        spatial = tuple(range(2, n))
        yield "the kernel is flipped (convolution for correlation)", got.flip(spatial)
        for axis in spatial:
            yield f"axis {axis} is reversed", got.flip(axis)
    for a, b in itertools.combinations(range(n), 2):
        if got.shape[a] == got.shape[b] and got.shape[a] > 1:
            what = "transposed kernel" if {a, b} == {n - 2, n - 1} else "exchanged axes"
            yield f"axes {a} and {b} are exchanged ({what})", got.transpose(a, b)


def _shifted(got: Tensor, expected: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Off by one: equal after a shift, but for the border that the shift left behind."""
    for axis in range(got.dim()):
        n = got.size(axis)
        if n < 3:
            continue
        for shift in (1, -1):
            inner = slice(1, n - 1)
            place = (*[slice(None)] * axis, inner)
            back = got.roll(shift, axis)
            if expected[place].any() and _near(back[place], expected[place]):
                words = f"it is shifted by one along axis {axis} (padding on the wrong side)"
                yield words, expected


def _means(got: Tensor, expected: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The difference does not change along some axes: a mean was not taken out."""
    rest = got - expected
    axes = range(got.dim())
    for count in range(got.dim(), 0, -1):
        for over in itertools.combinations(axes, count):
            if all(got.shape[a] == 1 for a in over):
                continue
            mean = rest.mean(over, keepdim=True)
            named = ", ".join(map(str, over))
            yield (
                f"its mean over axes {named} was not taken out (a statistic treated as a constant)",
                got - mean,
            )


def _factors_by_axis(got: Tensor, expected: Tensor) -> Iterator[tuple[str, Tensor]]:
    """One factor per entry of one axis: a scale left out, or put in twice."""
    for axis in range(got.dim()):
        over = tuple(a for a in range(got.dim()) if a != axis)
        if not over or got.size(axis) < 2:
            continue
        top = (got * expected).sum(over, keepdim=True)
        factor = top / (got * got).sum(over, keepdim=True).clamp(min=1e-300)
        yield f"a factor per entry of axis {axis} is missing (a scale left out)", got * factor


def _few(got: Tensor, expected: Tensor) -> str | None:
    """Most elements are right: name those that are not."""
    scale = float(expected.abs().max())
    wrong = ~((got - expected).abs() <= CLOSE * scale)
    count, total = int(wrong.sum()), got.numel()
    if not count or count > 0.25 * total:
        return None
    border = _on_border(wrong)
    if border is not None:
        return f"only the border is wrong, along axis {border} (padding)"
    first = tuple(int(i) for i in wrong.nonzero()[0])
    zero = bool((got[wrong] == 0).all())
    return (
        f"{count} of {total} elements are {'zero' if zero else 'wrong'}, the first at {first}; "
        "all others are right"
    )


def _on_border(wrong: Tensor) -> int | None:
    """The axis whose first or last entries hold all that is wrong, and are mostly wrong."""
    for axis in range(2, wrong.dim()):
        n = wrong.size(axis)
        if n > 2 and not wrong.narrow(axis, 1, n - 2).any():
            edges = (wrong.select(axis, 0), wrong.select(axis, n - 1))
            if max(float(edge.double().mean()) for edge in edges) > 0.5:
                return axis
    return None
