"""Intervals against SciPy, and one worked by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from hubel.tasks.interval import STUDENT, interval, intervals, student


def test_the_table_is_scipys_to_three_decimals():
    for degrees, value in STUDENT.items():
        assert value == pytest.approx(stats.t.ppf(0.975, degrees), abs=0.0005001)


def test_between_the_rows_it_is_never_too_small():
    for degrees in range(1, 500):
        exact = stats.t.ppf(0.975, degrees)
        assert exact - 0.0005001 <= student(degrees) <= 1.02 * exact


@pytest.mark.parametrize("count", [2, 3, 5, 10, 31])
def test_against_scipy(count):
    values = np.random.default_rng(count).normal(0.9, 0.01, count)
    found = interval(values.tolist())
    mean, error = values.mean(), stats.sem(values)
    low, high = stats.t.interval(0.95, count - 1, loc=mean, scale=error)
    assert found.mean == pytest.approx(mean)
    assert found.std == pytest.approx(values.std(ddof=1))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.0006 * error)
    assert found.half == pytest.approx((high - low) / 2, rel=1e-3)
    assert found.count == count


def test_by_hand():
    """1, 2, 3: mean 2, deviation 1, t = 4.303 with 2 degrees: 2 -+ 4.303 / sqrt(3)."""
    found = interval([1.0, 2.0, 3.0])
    assert (found.mean, found.std) == (2.0, 1.0)
    assert found.half == pytest.approx(4.303 / math.sqrt(3))


def test_one_value_has_no_spread_and_nan_stays_nan():
    assert math.isnan(interval([0.5]).std)
    assert interval([0.5]).mean == 0.5
    assert math.isnan(interval([0.5, math.nan]).mean)
    assert math.isnan(interval([0.5, math.nan]).low)


def test_scores_that_all_have():
    found = intervals([{"accuracy": 0.5, "top5": 1.0}, {"accuracy": 0.7}])
    assert list(found) == ["accuracy"]
    assert found["accuracy"].mean == pytest.approx(0.6)
    assert found["accuracy"].to_json().keys() == {"mean", "std", "low", "high", "count"}
