"""Functions of one number against PyTorch in float64: near 0, far out, at infinity and NaN."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from native_kernel import array, compiled, every_tile, kernel, like

from hubel.engine.native.emit import PTR, Function
from hubel.engine.native.kernels.functions import UNARY, exponential, logarithm
from hubel.engine.native.kernels.pointwise import Pointwise, PointwiseBack

THEIRS = {
    ("relu",): F.relu,
    ("leaky_relu", 0.1): lambda x: F.leaky_relu(x, 0.1),
    ("hardtanh", -0.5, 2.0): lambda x: F.hardtanh(x, -0.5, 2.0),
    ("hardtanh", 0.0, 6.0): F.relu6,
    ("sigmoid",): torch.sigmoid,
    ("tanh",): torch.tanh,
    ("gelu",): F.gelu,
    ("silu",): F.silu,
    ("hardswish",): F.hardswish,
    ("elu", 1.0): F.elu,
    ("elu", 0.3): lambda x: F.elu(x, 0.3),
    ("clamp", -1.0, 3.0): lambda x: x.clamp(-1, 3),
    ("gelu_tanh",): lambda x: F.gelu(x, approximate="tanh"),
    ("hardsigmoid",): F.hardsigmoid,
    ("softplus", 1.0, 20.0): F.softplus,
    ("softplus", 2.0, 5.0): lambda x: F.softplus(x, 2.0, 5.0),
    ("mish",): F.mish,
    ("square",): torch.square,
    ("abs",): torch.abs,
    ("linear", -2.5, 0.75): lambda x: -2.5 * x + 0.75,
}
CORNERS = [0.0, -0.0, 1.0, -1.0, 3.0, -3.0, 6.0, 0.35, -0.35, 1e-3, -1e-3]
FAR = [1e-20, 1e-40, 30.0, 87.0, 87.3, 88.6, 100.0, 104.0, 1e18, 1e30]
LOOSE = {
    "gelu_tanh": 4e-6
}  # 1 + tanh cancels where x is about -5: there PyTorch's float32 is off, too
each_function = pytest.mark.parametrize("line", THEIRS, ids=str)


def test_every_function_is_here():
    assert {line[0] for line in THEIRS} >= set(UNARY)


def points(machine):
    """Numbers from -12 to 12, the places where formulas change, and far ones; whole tiles."""
    values = np.concatenate([np.linspace(-12, 12, 2048), CORNERS, FAR, np.negative(FAR)]).astype(
        np.float32
    )
    return like(np.resize(values, (-(-len(values) // machine.lanes), machine.lanes)))


def program(line):
    return (("leaf", 0), (line[0], 0, *line[1:]))


def forward(line, x, machine):
    y = array(*x.shape)
    kernel(Pointwise(1, 1, len(x), program(line)), machine)(y, 0, 0, x, 0, 1)
    return y


def backward(line, x, dy, machine):
    dx = array(*x.shape)
    spec = PointwiseBack(Pointwise(1, 1, len(x), program(line)), (0,))
    kernel(spec, machine)(dy, 0, 0, x, dx, 0, 1)
    return dx


@every_tile
@each_function
def test_forward_and_backward(line, machine):
    x = points(machine)
    exact = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = THEIRS[line](exact)
    (slope,) = torch.autograd.grad(y.sum(), exact)
    with np.errstate(over="ignore"):
        theirs = y.detach().numpy().astype(np.float32)  # the square of 1e30 is infinite there
    # absolute 2e-7 near 0 (half a unit at 1), relative 1e-6 elsewhere
    np.testing.assert_allclose(forward(line, x, machine), theirs, rtol=1e-6, atol=2e-7)
    dy = like(np.where(np.arange(x.size).reshape(x.shape) % 2, 1.0, -3.0))
    loose = LOOSE.get(line[0], 1e-6)
    np.testing.assert_allclose(
        backward(line, x, dy, machine), slope.numpy() * dy, rtol=2e-6, atol=loose
    )


@every_tile
@each_function
def test_infinities_and_nan_come_out_as_in_torch(line, machine):
    x = like(np.resize(np.array([np.inf, -np.inf, np.nan, 1.0]), (4, machine.lanes)))
    theirs = THEIRS[line](torch.tensor(x, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(forward(line, x, machine), theirs, rtol=1e-6)


@every_tile
@pytest.mark.parametrize("name", ["sigmoid", "tanh", "silu"])
def test_small_results_keep_their_figures(name, machine):
    """Relative, not absolute: the tails of sigmoid, and tanh around 0."""
    low = -60.0 if name != "tanh" else -1e-6
    x = like(np.linspace(low, -1e-9, 64 * machine.lanes).reshape(-1, machine.lanes))
    theirs = THEIRS[name,](torch.tensor(x, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(forward((name,), x, machine), theirs, rtol=4e-6)


def ulps(ours, exact):
    """How many floats lie between."""
    return np.abs(ours.astype(np.float64) - exact) / np.spacing(exact.astype(np.float32))


def on_numbers(write, machine):
    """4096 vectors through a function: what calls it."""
    f = Function("f", [("x", PTR), ("y", PTR)], machine.lanes)
    with f.loop(0, 4096) as i:
        place = i * machine.vector
        f.store(write(f, f.load(f.arg("x").at(place))), f.arg("y").at(place))
    return compiled(f, machine)


@every_tile
def test_exponential_is_right_to_two_units_in_the_last_place(machine):
    call = on_numbers(exponential, machine)
    x = array(4096, machine.lanes)
    x[...] = np.linspace(-87, 88, x.size).reshape(x.shape)
    y = array(*x.shape)
    call(x, y)
    assert ulps(y, np.exp(x.astype(np.float64))).max() < 2
    x.flat[:4] = [np.inf, -np.inf, np.nan, 0.0]
    x.flat[4:8] = [-88.0, -1e30, 89.0, 1e30]
    call(x, y)
    found = y.flat[:8].tolist()
    assert [found[n] for n in (0, 1, 3, 5, 6, 7)] == [math.inf, 0.0, 1.0, 0.0, math.inf, math.inf]
    assert math.isnan(found[2])
    assert 0 <= found[4] < 1e-38


@every_tile
def test_logarithm_is_right_to_two_units_in_the_last_place(machine):
    call = on_numbers(logarithm, machine)
    x = array(4096, machine.lanes)
    x[...] = np.exp(np.linspace(-87, 88, x.size)).reshape(x.shape)
    x[:2048] = np.linspace(0.4, 2.5, x[:2048].size).reshape(x[:2048].shape)
    y = array(*x.shape)
    call(x, y)
    exact = np.log(x.astype(np.float64))
    assert (np.abs(x - 1) < 1e-3).any()  # where a difference from 1 is all there is
    assert ulps(y, exact).max() < 2
    x.flat[:4] = [np.inf, np.nan, 1.0, np.finfo(np.float32).tiny]
    call(x, y)
    found = y.flat[:4].tolist()
    assert found[0] == math.inf
    assert math.isnan(found[1])
    assert found[2] == 0.0
    assert found[3] == pytest.approx(math.log(np.finfo(np.float32).tiny))
