"""The numbers a net is built from, checked once at the door."""

from __future__ import annotations

import operator
from typing import Any

from hubel.errors import ModelError


def whole(name: str, value: Any, least: int = 1) -> int:
    """`value` as an int of at least `least`. Raises `ModelError`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise ModelError(f"{name} must be a whole number of at least {least}, given {value!r}")
    return number


def share(name: str, value: Any) -> float:
    """`value` as a float in 0 <= value < 1. Raises `ModelError`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ModelError(f"{name} must be a number from 0 to below 1, given {value!r}")
    return float(value)


def yes_no(name: str, value: Any) -> bool:
    """`value`, a bool. Raises `ModelError`."""
    if not isinstance(value, bool):
        raise ModelError(f"{name} must be True or False, given {value!r}")
    return value


def image_size(value: Any) -> tuple[int, int]:
    """`value` as (H, W), both at least 1. Raises `ModelError`."""
    try:
        height, width = value
    except (TypeError, ValueError):
        raise ModelError(f"size must be (height, width) in pixels, given {value!r}") from None
    return whole("height", height), whole("width", width)
