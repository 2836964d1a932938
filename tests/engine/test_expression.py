"""Small graphs: the lectures' examples worked by hand, autograd as the oracle, bad formulas."""

import doctest
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hubel.engine import expression as module
from hubel.engine.expression import expression
from hubel.errors import OptionError


def test_the_lectures_first_graph():
    graph = expression("(x + y) * z", x=-2, y=5, z=-4)
    assert graph.value == -12
    assert graph.grads == {"x": -4, "y": -4, "z": 3}
    assert graph["a"].value == 3
    assert graph["a"].gradient == -4


def test_the_lectures_neuron():
    graph = expression("1 / (1 + exp(-(w0 * x0 + w1 * x1 + w2)))", w0=2, x0=-1, w1=-3, x1=-2, w2=-3)
    s = 1 / (1 + math.exp(-1))
    assert graph.value == pytest.approx(s)
    slope = s * (1 - s)
    expected = {"w0": -slope, "x0": 2 * slope, "w1": -2 * slope, "x1": -3 * slope, "w2": slope}
    assert graph.grads == pytest.approx(expected)


def test_a_variable_that_is_used_twice_gets_both_gradients():
    assert expression("x * x + x", x=3).grads == {"x": 7}


@given(st.floats(-3, 3), st.floats(0.1, 3))
def test_gradients_are_autograds(a, b):
    text = "max(a, b) * tanh(a) - log(b) / (1 + a ** 2) + sigmoid(a * b) - min(a, 0.5)"
    graph = expression(text, a=a, b=b)
    x, y = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (a, b))
    half = torch.tensor(0.5, dtype=torch.float64)
    f = torch.maximum(x, y) * x.tanh() - y.log() / (1 + x**2)
    f = f + torch.sigmoid(x * y) - torch.minimum(x, half)
    gx, gy = torch.autograd.grad(f, [x, y])
    assert graph.value == pytest.approx(float(f))
    assert graph.grads == pytest.approx({"a": float(gx), "b": float(gy)}, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x +", "cannot read the formula"),
        ("foo(x)", "unknown function 'foo'"),
        ("x if x else 2", "cannot compute"),
        ("x.real", "cannot compute"),
        ("__import__('os')", "cannot compute"),
        ("x + q", "the variable 'q' has no value: given x"),
        ("2 + 3", "has no variable"),
        ("max(x)", "max takes 2 arguments, given 1"),
    ],
)
def test_a_bad_formula_is_one_line(text, message):
    with pytest.raises(OptionError, match=message):
        expression(text, x=1)


def test_an_unknown_node_names_the_known():
    with pytest.raises(OptionError, match="unknown node 'w': .*allowed: f, x"):
        expression("x * 2", x=1)["w"]


def test_the_picture_shows_every_node():
    graph = expression("(x + y) * z", x=-2, y=5, z=-4)
    picture = graph._repr_svg_()
    assert picture.lstrip().startswith("<?xml")
    assert picture.count("<path") > 5


def test_the_docstring_is_true():
    assert doctest.testmod(module).failed == 0
