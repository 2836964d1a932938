"""Borders: NumPy's reflection at any width, fillings and cuts by hand."""

import numpy as np
import pytest
import torch

from hubel.models.margin import cut, filled, framed, mirrored, size_of


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 5), (7, 13)])
@pytest.mark.parametrize("border", [(0, 0, 0, 0), (1, 0, 2, 3), (9, 4, 0, 31)])
def test_mirrored_is_numpys_reflection_however_wide(size, border):
    x = torch.randn(2, 3, *size)
    top, bottom, left, right = border
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (top, bottom), (left, right)), mode="reflect")
    assert mirrored(x, *border).numpy().tolist() == expected.tolist()


def test_by_hand():
    row = torch.tensor([1.0, 2, 3]).view(1, 1, 1, 3)
    assert mirrored(row, 0, 0, 5, 3).flatten().tolist() == [2, 1, 2, 3, 2, 1, 2, 3, 2, 1, 2]
    assert framed(row, 1).shape == (1, 1, 3, 5)


def test_gradients_come_back_from_every_copy():
    x = torch.randn(1, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: framed(t, 4).square(), x)


def test_filled_grows_below_and_at_the_right_only():
    x = torch.randn(1, 2, 5, 9)
    assert size_of(filled(x, (1, 1), 4)) == (8, 12)
    assert size_of(filled(x, (20, 3), 4)) == (20, 12)
    assert filled(x, (1, 1), 4)[..., :5, :9].equal(x)
    assert filled(x, (5, 9), 1).equal(x)


def test_cut():
    x = torch.arange(20.0).view(1, 1, 4, 5)
    assert cut(x, (2, 3)).flatten().tolist() == [0, 1, 2, 5, 6, 7]
    assert cut(x, (1, 2), 2).flatten().tolist() == [12, 13]
