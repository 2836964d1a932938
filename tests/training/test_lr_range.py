"""The range test: where a curve of known shape falls fastest, and what happens to the model."""

import math

import pytest

from hubel.errors import TrainingError
from hubel.training.lr_range import HIGHEST, LOWEST, _read


def rates(count=100):
    return [LOWEST * (HIGHEST / LOWEST) ** (k / (count - 1)) for k in range(count)]


def logistic(rate, middle):
    """A loss that falls from 2.3 to 0.3, fastest at `middle`."""
    return 0.3 + 2 / (1 + (rate / middle) ** 2)


@pytest.mark.parametrize("middle", [1e-3, 1e-2, 0.1])
def test_the_steepest_fall_is_found(middle):
    losses = [logistic(rate, middle) for rate in rates()]
    found = _read(rates(), losses)
    assert abs(math.log10(found.suggested / middle)) < 0.2


def test_the_highest_rate_is_the_last_below_the_start():
    losses = [logistic(r, 0.01) + (3 if r > 1 else 0) for r in rates()]
    assert 0.8 < _read(rates(), losses).highest <= 1.0


def test_a_loss_that_only_rises_suggests_no_large_rate():
    losses = [2.3 + k * 0.01 for k in range(100)]
    found = _read(rates(), losses)
    assert found.suggested < 1e-4
    assert found.highest == LOWEST


def test_nothing_to_read():
    with pytest.raises(TrainingError, match="not finite within 3 steps, even at a learning rate"):
        _read(rates()[:3], [1.0, 2.0, 3.0])
