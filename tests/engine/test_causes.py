"""Causes: each simple mistake is named, in words that say where to look."""

import math

import pytest
import torch

from hubel.engine.causes import likely_cause


def noise(*shape, seed=0):
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=chance, dtype=torch.float64)


def zeroed(g, *places):
    g = g.clone()
    for place in places:
        g[place] = 0
    return g


RIGHT = noise(4, 4, 5, 5)
SLOPES_OF_A_STATISTIC = noise(1, 4, 1, 1, seed=3)


@pytest.mark.parametrize(
    ("got", "says"),
    [
        (-RIGHT, "the sign is turned round"),
        (2 * RIGHT, "added twice"),
        (RIGHT / 2, "only half"),
        (RIGHT * 0, "it is zero: the path back is cut"),
        (RIGHT * 7, "not divided by the batch of 7"),
        (RIGHT / 7, "divided by the batch of 7 once too often"),
        (RIGHT * 1.001, "a factor of 0.999001 is missing"),
        (RIGHT * -3, "a factor of -0.333333 is missing"),
        (RIGHT.flip(2, 3), "the kernel is flipped"),
        (RIGHT.flip(2), "axis 2 is reversed"),
        (RIGHT.flip(3), "axis 3 is reversed"),
        (RIGHT.mT, "transposed kernel"),
        (RIGHT.transpose(0, 1), "axes 0 and 1 are exchanged"),
        (RIGHT.roll(1, 2), "shifted by one along axis 2"),
        (RIGHT.roll(-1, 3), "shifted by one along axis 3"),
        (RIGHT + 3, "its mean over axes 0, 1, 2, 3 was not taken out"),
        (RIGHT + SLOPES_OF_A_STATISTIC, "its mean over axes 0, 2, 3 was not taken out"),
        (RIGHT * torch.arange(1, 5).view(4, 1, 1, 1), "a factor per entry of axis 0"),
        (RIGHT * torch.arange(1, 5).view(1, 4, 1, 1), "a factor per entry of axis 1"),
        (zeroed(RIGHT, (1, 2, 2, 3)), "1 of 400 elements are zero, the first at (1, 2, 2, 3)"),
        (
            zeroed(RIGHT, (3, 0, 1, 1), (1, 2, 2, 3), (1, 3, 2, 2)),
            "3 of 400 elements are zero, the first at (1, 2, 2, 3)",
        ),
        (RIGHT + (noise(*RIGHT.shape, seed=2) > 2), "elements are wrong, the first at"),
        (zeroed(RIGHT, (..., 0)), "only the border is wrong, along axis 3"),
        (zeroed(RIGHT, (slice(None), slice(None), -1)), "only the border is wrong, along axis 2"),
        (noise(*RIGHT.shape, seed=5), "no simple mistake explains it"),
        (RIGHT.sin(), "no simple mistake explains it"),
        (RIGHT * math.nan, "no simple mistake explains it"),
    ],
)
def test_a_mistake_is_named(got, says):
    assert says in likely_cause(got, RIGHT, noise(*RIGHT.shape, seed=8), batch=7)


@pytest.mark.parametrize("share", [0.5, 1e-2, -1e-3])
def test_a_hidden_weight_decay_is_named_with_its_strength(share):
    value = noise(*RIGHT.shape, seed=8)
    said = likely_cause(RIGHT + share * value, RIGHT, value)
    assert f"{share:.3g} times the value itself (a hidden weight decay)" in said


def test_without_a_batch_a_factor_is_a_factor():
    assert "a factor of 0.142857 is missing" in likely_cause(RIGHT * 7, RIGHT)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 1, 3), (2, 3, 1, 1, 2)])
def test_gradients_of_any_shape_have_causes(shape):
    right = noise(*shape) + 5
    assert "sign" in likely_cause(-right, right, noise(*shape, seed=1), batch=3)
    assert likely_cause(right + noise(*shape, seed=2), right, noise(*shape, seed=1), batch=3)


def test_a_true_zero_that_came_out_otherwise_has_no_simple_cause_of_scale():
    said = likely_cause(noise(3, 4), torch.zeros(3, 4, dtype=torch.float64))
    assert "factor" not in said
    assert "twice" not in said


def test_the_gradients_are_left_as_they_were():
    got, right, value = RIGHT + 3, RIGHT.clone(), noise(*RIGHT.shape, seed=8)
    before = [t.clone() for t in (got, right, value)]
    likely_cause(got, right, value, batch=7)
    for now, then in zip((got, right, value), before, strict=True):
        assert torch.equal(now, then)
