"""Numbers at the door: what passes, and what is said of what does not."""

import numpy as np
import pytest

from hubel.errors import ModelError
from hubel.models.check import image_size, share, whole, yes_no


def test_whole_numbers_pass_as_ints():
    assert whole("width", np.int64(3)) == 3
    assert type(whole("width", np.int64(3))) is int


@pytest.mark.parametrize("value", [0, -1, 2.0, "3", None, True])
def test_what_is_no_whole_number_is_named(value):
    with pytest.raises(ModelError, match="width must be a whole number of at least 1, given"):
        whole("width", value)


def test_share_takes_zero_and_refuses_one():
    assert share("dropout", 0) == 0.0
    assert share("dropout", 0.999) == 0.999
    for value in (1, 1.0, -0.1, "half", float("nan"), True):
        with pytest.raises(ModelError, match="dropout must be a number from 0 to below 1"):
            share("dropout", value)


def test_image_size_is_height_then_width():
    assert image_size([28, 30]) == (28, 30)
    with pytest.raises(ModelError, match="width must be"):
        image_size((28, 0))
    for value in (28, (28,), (1, 2, 3), None):
        with pytest.raises(ModelError, match=r"size must be \(height, width\)"):
            image_size(value)


def test_yes_no_takes_nothing_that_only_looks_like_it():
    assert yes_no("aux", True) is True
    for value in ("no", 1, None):
        with pytest.raises(ModelError, match="aux must be True or False, given"):
            yes_no("aux", value)
