"""Class weights by hand."""

import math

import pytest

from hubel.errors import OptionError
from hubel.tasks.segmentation.balance import class_weights


def test_median_frequency_by_hand():
    """Shares 1/2, 3/10, 1/5: the median is 3/10."""
    assert class_weights((0.5, 0.3, 0.2), "balanced") == pytest.approx((0.6, 1.0, 1.5))
    assert class_weights((50, 30, 20), "balanced") == pytest.approx((0.6, 1.0, 1.5))


def test_a_class_that_never_occurs_weighs_one():
    assert class_weights((0.25, 0.0, 0.75), "balanced") == pytest.approx((2.0, 1.0, 2 / 3))


def test_inverse_log_by_hand():
    weights = class_weights((1.0, 0.0), "inverse-log")
    assert weights == pytest.approx((1 / math.log(2.02), 1 / math.log(1.02)))
    assert weights == pytest.approx((1.42, 50.5), abs=0.01)  # the paper wants 1 to 50


def test_what_is_refused():
    with pytest.raises(OptionError, match="did you mean 'balanced'"):
        class_weights((1.0,), "balance")
    for shares in ((0.0, 0.0), (-0.1, 1.1), (float("nan"), 1.0)):
        with pytest.raises(OptionError, match="shares must be 0 or more"):
            class_weights(shares, "balanced")
