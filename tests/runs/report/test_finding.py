"""What rules share: the verdict on training against validation, and chance."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from hubel.runs.report.finding import Fit, noise


@pytest.mark.parametrize(
    ("train", "val", "tone", "word"),
    [
        (0.9, 0.7, "warn", "overfitting"),
        (0.9, 0.81, "good", "hand in hand"),  # within what is bearable, but no room either
        (0.6, 0.58, "note", "room to learn"),
        (0.6, 0.52, "good", "hand in hand"),
        (0.5, 0.6, "note", "room to learn"),  # dropout and augmentation make training harder
    ],
)
def test_the_verdict(train: float, val: float, tone: str, word: str) -> None:
    finding = Fit(train, val, "It reaches a and b", "less", bearable=0.1, enough=0.8).verdict()
    assert finding.tone == tone
    assert word in finding.title
    assert finding.text.startswith("It reaches a and b")


def test_a_gap_is_told_in_points() -> None:
    text = Fit(0.9, 0.7, "So much", "fewer", 0.1, 0.8).verdict().text
    assert text.startswith("So much, 20.0\u202fpoints fewer. ")


def test_noise_is_half_of_the_normal_interval() -> None:
    low, high = stats.norm.interval(0.95, loc=0.9, scale=math.sqrt(0.9 * 0.1 / 400))
    assert noise(0.9, 400) == pytest.approx((high - low) / 2)
    assert noise(0.9, None) == noise(math.nan, 400) == 0
