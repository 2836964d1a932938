"""Numbers as people read them. Every function answers a dash where there is no number."""

from __future__ import annotations

import math
import numbers
from typing import Any

DASH = "–"
THIN = "\u202f"  # narrow no-break space: a number and its unit stay together


def number(value: Any) -> float:
    """`value` as float; NaN where it is missing or no number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return math.nan
    return float(value)


def percent(share: Any, digits: int = 1) -> str:
    """0.9123 -> "91.2 %". Never rounds up to a perfect score or down to nothing."""
    value = number(share)
    if not math.isfinite(value):
        return DASH
    edge = 10.0**-digits
    shown = round(100 * value, digits)
    if value < 1 and shown >= 100:
        return f">{THIN}{100 - edge:.{digits}f}{THIN}%"
    if value > 0 and shown <= 0:
        return f"<{THIN}{edge:.{digits}f}{THIN}%"
    return f"{shown:.{digits}f}{THIN}%"


def points(difference: float) -> str:
    """A difference of two shares: 0.031 -> "3.1 points"."""
    return f"{abs(100 * difference):.1f}{THIN}points"


def decimal(value: Any, digits: int = 3) -> str:
    """0.28631 -> "0.286". Infinite and undefined numbers are named."""
    if isinstance(value, float) and not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    found = number(value)
    return DASH if math.isnan(found) else f"{found:.{digits}f}"


def count(value: Any) -> str:
    """12345 -> "12,345"."""
    found = number(value)
    return f"{found:,.0f}" if math.isfinite(found) else DASH


def short(value: Any) -> str:
    """1234567 -> "1.23 M": three digits and k, M, G, T."""
    found = number(value)
    if not math.isfinite(found):
        return DASH
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(found) >= 0.9995 * size:
            return f"{found / size:.3g}{THIN}{unit}"
    return f"{found:.3g}"


def rate(value: Any) -> str:
    """A learning rate, as short as it can be: 0.001, 3e-5."""
    found = number(value)
    return f"{found:.3g}" if math.isfinite(found) else DASH


def duration(seconds: Any) -> str:
    """75.2 -> "1 min 15 s"; the two largest units, no more."""
    found = number(seconds)
    if not math.isfinite(found):
        return DASH
    if found < 9.95:
        return f"{found:.1f}{THIN}s"
    whole = round(found)
    minutes, hours = whole // 60, whole // 3600
    if hours:
        return f"{hours}{THIN}h {minutes % 60}{THIN}min"
    return f"{minutes}{THIN}min {whole % 60}{THIN}s" if minutes else f"{whole}{THIN}s"


def milliseconds(value: Any) -> str:
    """12.34 -> "12.3 ms", 0.0123 -> "12.3 µs"."""
    found = number(value)
    if not math.isfinite(found):
        return DASH
    return f"{found:.3g}{THIN}ms" if found >= 0.9995 else f"{1000 * found:.3g}{THIN}µs"


def several(amount: int, one: str, many: str | None = None) -> str:
    """(1, "epoch") -> "1 epoch"; (3, "class", "classes") -> "3 classes"."""
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"
