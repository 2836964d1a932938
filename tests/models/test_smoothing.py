"""Smoothing: SciPy's filters with the same borders."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from hubel.models.smoothing import BINOMIAL, bell, smoothed


@pytest.mark.parametrize("deviation", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (33, 20)])
def test_a_bell_is_scipys_gaussian(deviation, size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = ndimage.gaussian_filter(x.numpy(), deviation, mode="mirror", truncate=3, axes=(2, 3))
    torch.testing.assert_close(smoothed(x, bell(deviation)), torch.from_numpy(expected))


def test_no_deviation_changes_nothing():
    x = torch.randn(1, 2, 4, 5)
    assert bell(0.0) == [1.0]
    assert smoothed(x, bell(0.0)).equal(x)


def test_the_binomial_is_pascals_row():
    x = np.random.default_rng(0).normal(size=(1, 1, 9, 11))
    row = np.array([1, 4, 6, 4, 1]) / 16
    expected = ndimage.convolve(x[0, 0], np.outer(row, row), mode="mirror")
    found = smoothed(torch.from_numpy(x), BINOMIAL)[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)
