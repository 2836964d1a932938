"""Finite differences: how exact they are, how sure of themselves, and what they do at kinks."""

import math

import pytest
import torch
from against import noise

from hubel.engine.differences import along, at_element, slope


@pytest.mark.parametrize(
    ("f", "true"),
    [
        (lambda t: 3 * t + 1, 3.0),
        (lambda t: math.sin(t + 1), math.cos(1)),
        (math.exp, 1.0),
        (lambda t: (t + 2) ** 5, 80.0),
        (lambda t: 1 / (1 + math.exp(-t)), 0.25),
        (lambda t: t * t, 0.0),
        (lambda t: 5.0, 0.0),
        (lambda t: math.log(t + 0.5), 2.0),
        (lambda t: 1e6 + t, 1.0),
    ],
)
def test_slopes_of_smooth_functions(f, true):
    found = slope(f)
    assert not found.kink
    assert found.value == pytest.approx(true, abs=1e-7)
    assert abs(found.value - true) <= found.uncertainty + 1e-12
    assert found.uncertainty < 1e-4 * max(1, abs(f(0)))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_slopes_of_steep_and_of_flat_functions(scale):
    found = slope(lambda t: math.sin(t / scale), scale=scale)
    assert found.value * scale == pytest.approx(1, abs=1e-9)
    assert not found.kink


@pytest.mark.parametrize("height", [1e-8, 1.0, 1e8])
def test_slopes_of_low_and_of_high_functions(height):
    found = slope(lambda t: height * math.tanh(t + 0.3))
    assert found.value / height == pytest.approx(1 - math.tanh(0.3) ** 2, rel=1e-8)


@pytest.mark.parametrize(
    ("f", "left", "right"),
    [
        (abs, -1, 1),
        (lambda t: max(t, 0.0), 0, 1),
        (lambda t: max(t, 0.2 * t) + 3, 0.2, 1),
        (lambda t: abs(t) * 100 + t * t, -100, 100),
        (lambda t: math.sin(t) + abs(t) / 2, 0.5, 1.5),
    ],
)
def test_at_a_kink_both_sides_are_told(f, left, right):
    found = slope(f)
    assert found.kink
    assert found.left == pytest.approx(left, abs=1e-5)
    assert found.right == pytest.approx(right, abs=1e-5)
    assert found.distance((left + right) / 2) == 0
    assert found.distance(right + 1) == pytest.approx(1, abs=1e-3 * (right - left))


@pytest.mark.parametrize("away", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_a_kink_near_the_point_does_not_spoil_the_slope(away):
    found = slope(lambda t: abs(t - away) + math.sin(t))
    assert found.distance(0.0) <= found.uncertainty + 1e-6
    assert found.distance(0.1) > 0.05


@pytest.mark.parametrize("strength", [1.0, 1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("away", [1e-2, 1e-3, 1e-4, 1e-5])
def test_the_uncertainty_covers_a_weak_kink_nearby(strength, away):
    found = slope(lambda t: strength * abs(t - away) + math.sin(t))
    assert found.distance(1 - strength) <= found.uncertainty + 1e-8


def test_one_element_of_a_tensor_moves_and_comes_back():
    x = noise(3, 4)
    before = x.clone()
    found = at_element(lambda: x.square().sum(), x, (1, 3))
    assert found.value == pytest.approx(2 * float(x[1, 3]))
    assert torch.equal(x, before)


def test_a_direction_sees_all_elements_at_once():
    x, v = noise(3, 4), noise(3, 4, seed=1)
    before = x.clone()
    found = along(lambda: x.pow(3).sum(), x, v)
    assert found.value == pytest.approx(float((3 * x * x * v).sum()))
    assert torch.equal(x, before)
