"""Slopes by finite differences, each with its own uncertainty, and kinks told apart.

A central difference over step h errs by h^2 from curvature and by 1 / h from rounding, so several
steps are tried, each with Richardson's correction; the one whose halves agree best is taken.
A kink spoils that without being seen: one near the point, within the long steps, or one at the
point itself. So the slopes over a very short step, from the left, from the right and across, are
held against it. At a kink no number is right: then both sides' slopes are given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

STEPS = (1e-2, 3e-3, 1e-3, 1e-4, 1e-5)
SHORT = 1e-6
KINK = 1e-4  # sides that differ by less of their size are one slope


class Slope(NamedTuple):
    """The slope of a function of one number at 0."""

    value: float
    uncertainty: float
    left: float  # the same where the function is smooth
    right: float
    stepped: bool = False  # a kink was near: only short steps counted

    @property
    def kink(self) -> bool:
        """Whether left and right differ."""
        return self.left != self.right

    def distance(self, claimed: float) -> float:
        """How far a claimed slope is off; at a kink anything between left and right is right."""
        if self.kink:
            low, high = sorted((self.left, self.right))
            return max(low - self.uncertainty - claimed, claimed - high - self.uncertainty, 0.0)
        return abs(claimed - self.value)


def slope(f: Callable[[float], float], scale: float = 1.0) -> Slope:
    """Slope of `f` at 0. `scale`: the size of the point, so that steps fit it.

    A smooth, well-behaved f is called 7 times, the worst 31 times.
    """
    middle = f(0.0)
    left, right = _sides(f, middle, SHORT * scale)
    if _differ(left, right, _noise(middle, SHORT * scale)):
        closer = [_sides(f, middle, SHORT * scale / n) for n in (8, 64)]
        told_apart = abs(right - left) > 8 * _noise(middle, SHORT * scale / 64)
        # a bend closes as the step shrinks, and so do many small kinks; a kink here does not
        if told_apart and all(
            abs(upper - lower) > 0.5 * abs(right - left) for lower, upper in closer
        ):
            doubt = KINK * abs(right - left) + _noise(middle, SHORT * scale)
            return Slope((left + right) / 2, doubt, left, right)
    across, near_doubt = _near(f, middle, scale, left, right)
    value, doubt = _far(f, middle, scale)
    if abs(across - value) > doubt + near_doubt + 1e-9 * abs(value):
        again = _across(f, middle, SHORT * scale / 10)
        return Slope(across, near_doubt + abs(again - across), across, across, stepped=True)
    return Slope(value, max(doubt, near_doubt), value, value)


def _differ(left: float, right: float, noise: float) -> bool:
    return abs(right - left) > KINK * max(abs(left), abs(right)) + 4 * noise


def _noise(middle: float, h: float) -> float:
    """What rounding may do to a difference quotient over a step `h`: a net adds up thousands."""
    return 16 * abs(middle) * torch.finfo(torch.float64).eps / h


def _near(
    f: Callable[[float], float], middle: float, scale: float, left: float, right: float
) -> tuple[float, float]:
    """Slope and uncertainty over very short steps: sides that differ leave it open by as much."""
    across = (left + right) / 2
    doubt = 2 * _noise(middle, SHORT * scale) + abs(right - left) / 2
    if not _differ(left, right, _noise(middle, SHORT * scale)):
        return across, doubt
    closer = _across(f, middle, SHORT * scale / 10)  # fewer kinks within, more rounding
    return across, doubt + abs(closer - across)


def _across(f: Callable[[float], float], middle: float, h: float) -> float:
    left, right = _sides(f, middle, h)
    return (left + right) / 2


def _sides(f: Callable[[float], float], middle: float, h: float) -> tuple[float, float]:
    return (middle - f(-h)) / h, (f(h) - middle) / h


def _far(f: Callable[[float], float], middle: float, scale: float) -> tuple[float, float]:
    """Slope and uncertainty from longer steps."""
    best = (0.0, math.inf)
    for step in STEPS:
        h = step * scale
        wide = (f(h) - f(-h)) / (2 * h)
        narrow = (f(h / 2) - f(-h / 2)) / h
        value = (4 * narrow - wide) / 3  # Richardson: the h^2 terms cancel
        doubt = abs(narrow - wide) + _noise(middle, h) if math.isfinite(value) else math.inf
        if doubt < best[1]:
            best = (value, doubt)
        if best[1] <= 1e-9 * max(abs(best[0]), 1e-6):
            break
    return best


def along(f: Callable[[], Tensor], x: Tensor, direction: Tensor) -> Slope:
    """Slope of the scalar `f()` as `x` (any shape, changed in place meanwhile) moves."""
    start = x.clone()

    def at(t: float) -> float:
        x.copy_(start + t * direction)
        return float(f())

    try:
        return slope(at, scale=max(float(start.abs().mean()), 1e-3) if start.numel() else 1.0)
    finally:
        x.copy_(start)


def at_element(f: Callable[[], Tensor], x: Tensor, place: tuple[int, ...]) -> Slope:
    """Slope of the scalar `f()` by the element at `place` of `x` (any shape), changed meanwhile."""
    start = float(x[place])

    def at(t: float) -> float:
        x[place] = start + t
        return float(f())

    try:
        return slope(at, scale=max(abs(start), 0.1))
    finally:
        x[place] = start
