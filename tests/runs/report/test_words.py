"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from hubel.runs.report import words

CASES: list[tuple[Callable[..., str], Any, str]] = [
    (words.percent, 0.9123, "91.2 %"),
    (words.percent, 1.0, "100.0 %"),
    (words.percent, 0.9999, "> 99.9 %"),
    (words.percent, 0.0001, "< 0.1 %"),
    (words.percent, 0.0, "0.0 %"),
    (words.percent, None, "–"),
    (words.percent, math.nan, "–"),
    (words.decimal, 0.28631, "0.286"),
    (words.decimal, math.nan, "not a number"),
    (words.decimal, math.inf, "infinite"),
    (words.decimal, None, "–"),
    (words.count, 12345, "12,345"),
    (words.count, "many", "–"),
    (words.short, 999, "999"),
    (words.short, 999_700, "1 M"),
    (words.short, 1_234_567, "1.23 M"),
    (words.short, 4.1e9, "4.1 G"),
    (words.duration, 1.04, "1.0 s"),
    (words.duration, 9.97, "10 s"),
    (words.duration, 59.6, "1 min 0 s"),
    (words.duration, 75.2, "1 min 15 s"),
    (words.duration, 7261, "2 h 1 min"),
    (words.duration, None, "–"),
    (words.milliseconds, 0.1234, "123 µs"),
    (words.milliseconds, 0.9999, "1 ms"),
    (words.points, -0.031, "3.1 points"),
]


@pytest.mark.parametrize(("say", "value", "expected"), CASES)
def test_words(say: Callable[..., str], value: Any, expected: str) -> None:
    assert say(value).replace(words.THIN, " ") == expected


def test_several() -> None:
    assert words.several(1, "image") == "1 image"
    assert words.several(2_000, "class", "classes") == "2,000 classes"


def test_truth_values_are_no_numbers() -> None:
    assert math.isnan(words.number(True))
