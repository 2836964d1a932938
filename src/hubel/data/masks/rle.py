"""COCO's run-length encoding of a region: runs of outside and inside by turns, down the columns.

As a list ("uncompressed") it is the lengths of the runs, the first of which is outside and may be
0. As text ("compressed") each length from the fourth on is written as its difference from the one
two before it; a number is cut into groups of 5 bits, the lowest first, and a group becomes the
character 48 + group, plus 32 where more groups follow; bit 4 of the last is the sign. Source: the
format of the COCO API (Lin, Dollar), maskApi.c.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hubel.errors import DataError

FIRST, LAST = 48, 48 + 63  # "0" to "o"


def encode(region: NDArray[np.bool_]) -> list[int]:
    """The runs of a region (H, W)."""
    flat = np.asarray(region, np.bool_).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs: list[int] = np.diff(np.r_[0, changes, flat.size]).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def decode(counts: Sequence[int] | NDArray[np.int64], height: int, width: int) -> NDArray[np.bool_]:
    """The region of these runs: bool (height, width).

    Raises:
        DataError: a run that is negative or no whole number; runs that are not height x width
            pixels in sum.
    """
    try:
        runs = np.asarray(counts, np.float64)
    except (TypeError, ValueError):
        raise DataError("its runs are not all numbers") from None
    if runs.ndim != 1 or (runs != np.floor(runs)).any() or not np.isfinite(runs).all():
        raise DataError("its runs must be one list of whole numbers")
    if (runs < 0).any():
        place = int(np.argmax(runs < 0))
        raise DataError(f"run {place} is {runs[place]:.0f}; allowed: 0 and more")
    if runs.sum() != height * width:
        raise DataError(
            f"its runs are {runs.sum():.0f} pixels in sum; {height} x {width} pixels "
            f"(height x width) are {height * width}"
        )
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs.astype(np.int64)).reshape(width, height).T


def to_text(counts: Sequence[int]) -> str:
    """Runs as text."""
    text = bytearray()
    for place, count in enumerate(counts):
        number = count - counts[place - 2] if place > 2 else count
        while True:
            group, number = number & 31, number >> 5
            done = number == (-1 if group & 16 else 0)
            text.append(FIRST + group + (0 if done else 32))
            if done:
                break
    return text.decode("ascii")


def from_text(text: str | bytes) -> NDArray[np.int64]:
    """The runs that a text says: int64 (R,).

    Raises:
        DataError: a character outside of the 64 that occur, or a number without its end.
    """
    raw = text.encode("utf-8", "replace") if isinstance(text, str) else text
    codes = np.frombuffer(raw, np.uint8).astype(np.int64)
    wrong = np.flatnonzero((codes < FIRST) | (codes > LAST))
    if len(wrong):
        given = chr(int(codes[wrong[0]]))
        raise DataError(f"character {wrong[0]} of its text is {given!r}; allowed: '0' to 'o'")
    if not len(codes):
        return np.empty(0, np.int64)
    codes -= FIRST
    ends = codes & 32 == 0
    if not ends[-1]:
        raise DataError("its text ends within a number")
    number = np.cumsum(ends) - ends  # which number a group belongs to
    starts = np.flatnonzero(np.r_[True, ends[:-1]])
    place = np.arange(len(codes)) - starts[number]
    if place.max() > 11:
        raise DataError("its text has a number of more than 60 bits")
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    lengths = place[ends] + 1
    negative = codes[ends] & 16 != 0
    values[negative] -= np.int64(1) << (5 * lengths[negative])
    for first in (1, 2):  # the differences, summed up along every second number
        values[first::2] = np.cumsum(values[first::2])
    return values
