"""One gradient against finite differences: element by element, or by samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hubel.engine.causes import likely_cause
from hubel.engine.differences import Slope, along, at_element
from hubel.engine.verdict import Verdict

EXHAUSTIVE = 150  # tensors of so few elements are checked element by element
BRIEFLY = 16  # the same where many tensors wait


PROBES = 10  # elements of larger tensors that are tried one by one, beside two directions


TOLERANCE = 1e-6  # against finite differences, of the largest element


def judge(
    name: str, gradient: Tensor, x: Tensor, loss: Callable[[], Tensor], seed: int,
    tolerance: float, *, floor: float = 0.0, batch: int | None = None, thorough: bool = True,
) -> Verdict:  # fmt: skip
    """One gradient (any shape) against finite differences: every element, or samples.

    Errors are related to the largest element, but to `floor` at least. `batch`: images in it.
    `thorough`: more of the elements one by one; else the random directions do most of the work.
    """
    x_flat, g = x.detach(), gradient.detach().double()
    scale = float(g.abs().max()) if g.numel() else 0.0
    if not g.numel():
        return Verdict(name, 0.0, True, "finite differences")
    if not bool(torch.isfinite(g).all()):
        place = place_of(int((~torch.isfinite(g)).flatten().int().argmax()), g)
        return Verdict(
            name, math.inf, False, "finite differences", place, math.nan, float(g[place]),
            "it is not finite",
        )  # fmt: skip
    every = g.numel() <= (EXHAUSTIVE if thorough else BRIEFLY)
    places = range(g.numel()) if every else _probes(g, seed, PROBES if thorough else 2)
    slopes = {i: at_element(loss, x_flat, place_of(i, g)) for i in places}
    scale = max(scale, floor, *(abs(s.value) for s in slopes.values()))
    checked = [
        _Checked.of(s, float(g.reshape(-1)[i]), scale, place_of(i, g)) for i, s in slopes.items()
    ]
    if not every:
        checked += list(_directions(loss, x_flat, g, seed, floor))
    worst = max(checked, key=lambda c: c.excess)
    kinks = sum(c.kink for c in checked)
    fine = worst.excess <= tolerance
    error = max(c.error for c in checked) if fine else worst.error
    cause = "" if fine else _cause(g, x, slopes if every else None, batch)
    return Verdict(
        name,
        error,
        fine,
        "finite differences",
        worst.place,
        worst.expected,
        worst.got,
        cause,
        kinks,
        min(_worst_doubt(checked), error),
    )


def _worst_doubt(checked: Sequence[_Checked]) -> float:
    """How far the slopes themselves may be off, related like the errors."""
    return max(c.error - c.excess for c in checked)


@dataclass(frozen=True)
class _Checked:
    """One slope held against one claim. `excess` leaves the uncertainty of the slope aside."""

    error: float
    excess: float
    place: tuple[int, ...] | None
    expected: float
    got: float
    kink: bool

    @classmethod
    def of(cls, slope: Slope, got: float, scale: float, place: tuple[int, ...] | None) -> _Checked:
        scale = max(scale, 1e-300)
        off = slope.distance(got)
        doubt = 0.0 if slope.kink else slope.uncertainty
        return cls(
            off / scale,
            max(off - doubt, 0) / scale,
            place,
            slope.value,
            got,
            slope.kink or slope.stepped,
        )


def _directions(
    loss: Callable[[], Tensor], x: Tensor, g: Tensor, seed: int, floor: float
) -> Iterator[_Checked]:
    """Random directions see every element at once."""
    chance = torch.Generator().manual_seed(seed + 1)
    for _ in range(2):
        v = torch.randn(x.shape, generator=chance, dtype=x.dtype)
        v *= x.abs().mean().clamp(min=1e-3) / v.abs().mean()
        claimed = float((g * v).sum())
        spread = float((g * v).square().sum().sqrt())  # what one direction's sum varies by
        spread = max(spread, floor * float(v.norm()))
        yield _Checked.of(along(loss, x, v), claimed, spread, None)


def _probes(g: Tensor, seed: int, count: int) -> list[int]:
    """The largest elements, the corners, and a few by chance."""
    flat = g.abs().reshape(-1)
    chance = torch.Generator().manual_seed(seed)
    some = torch.randint(flat.numel(), (count,), generator=chance).tolist()
    return sorted(
        {*flat.topk(min(count, flat.numel())).indices.tolist(), 0, flat.numel() - 1, *some}
    )


def _cause(g: Tensor, x: Tensor, slopes: dict[int, Slope] | None, batch: int | None) -> str:
    if slopes is None:
        return "too large to try causes; check a smaller input"
    expected = torch.tensor([slopes[i].value for i in range(g.numel())], dtype=g.dtype)
    return likely_cause(g, expected.view_as(g), x.double(), batch)


def place_of(flat: int, x: Tensor) -> tuple[int, ...]:
    """Row-major position in x (any shape) as indices."""
    place = []
    for extent in reversed(x.shape):
        flat, i = divmod(flat, extent)
        place.append(i)
    return tuple(reversed(place))
