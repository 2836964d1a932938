"""Fully connected layers of small tiles, against sums in float64."""

from dataclasses import replace

import numpy as np
import pytest
from native_kernel import MACHINES, SMALL, array, every, kernel, like, noise, worst

from hubel.engine.native.kernels.dense import row_floats
from hubel.engine.native.kernels.dense_small import DenseRows, DenseRowsBack, DenseWhole
from hubel.engine.native.machine import fitting

few_images = every(
    [SMALL, fitting(MACHINES[0], 4, 1), fitting(MACHINES[-1], 2, 1), replace(SMALL, wide=1)]
)
sizes = pytest.mark.parametrize(
    ("inputs", "outputs"), [(1, 1), (5, 3), (16, 10), (33, 7), (120, 26), (64, 13)]
)


def rows_of(machine, inputs, tiles=1):
    """Rows of images, with NaN behind them that nobody may take in."""
    x = array(tiles * machine.lanes, row_floats(inputs, machine))
    x[:] = np.nan
    x[:, :inputs] = noise(tiles * machine.lanes, inputs)
    return x


@few_images
@sizes
@pytest.mark.parametrize(("bias", "relu"), [(False, False), (True, True)])
def test_forward(inputs, outputs, bias, relu, machine):
    x, w, b = rows_of(machine, inputs), noise(outputs, inputs, seed=1), noise(outputs, seed=2)
    y = array(outputs, machine.lanes)
    kernel(DenseRows(inputs, outputs, bias, relu), machine)(x, w, b if bias else 0, y)
    exact = w.astype(np.float64) @ x[:, :inputs].T.astype(np.float64) + bias * b[:, None]
    assert worst(y, np.maximum(exact, 0) if relu else exact) < 3e-6


@few_images
@sizes
@pytest.mark.parametrize("add", [False, True])
def test_input_gradient(inputs, outputs, add, machine):
    dy, w = noise(outputs, machine.lanes), noise(outputs, inputs, seed=1)
    dx = noise(inputs, machine.lanes, seed=2)
    exact = w.T.astype(np.float64) @ dy + add * dx
    kernel(DenseRowsBack(inputs, outputs, add), machine)(dy, w, dx)
    assert worst(dx, exact) < 3e-6


@few_images
@sizes
@pytest.mark.parametrize("tiles", [1, 3])
def test_weight_gradient_of_all_images_by_two_threads(inputs, outputs, tiles, machine):
    lanes, padded = machine.lanes, row_floats(inputs, machine)
    size = lanes * padded + lanes * outputs + 16  # a tile's rows, its dy, and something else
    memory = array(tiles, size)
    memory[:] = np.nan
    x, dy = rows_of(machine, inputs, tiles), noise(tiles, outputs, lanes, seed=1)
    memory[:, : lanes * padded] = x.reshape(tiles, -1)
    memory[:, lanes * padded : lanes * (padded + outputs)] = dy.reshape(tiles, -1)
    flat = memory.reshape(-1)
    g, n, norm = array(outputs, inputs), tiles * lanes - 1, array(1, dtype=np.float64)
    norm[0] = 2.0
    run = kernel(DenseWhole(inputs, outputs, 4 * size), machine)
    middle = outputs // 2
    for low, high in ((0, middle), (middle, outputs)):
        run(flat, flat[lanes * padded :], g, n, low, high, norm)
    images = x[:, :inputs].reshape(tiles, lanes, inputs).astype(np.float64)
    assert worst(g, np.einsum("tol,tli->oi", dy, images)) < 3e-6
    assert norm[0] - 2 == pytest.approx((g.astype(np.float64) ** 2).sum(), rel=1e-6)


@few_images
def test_not_finite_numbers_stay_so(machine):
    x, w = rows_of(machine, 9), like(np.ones((3, 9)))
    w[1, 8] = np.inf
    y = array(3, machine.lanes)
    kernel(DenseRows(9, 3, bias=False, relu=True), machine)(x, w, 0, y)
    assert np.isfinite(y[[0, 2]]).all()
    assert (y[1][x[:, 8] > 0] == np.inf).all()
    x[0, 3] = np.nan
    kernel(DenseRows(9, 3, bias=False, relu=True), machine)(x, w, 0, y)
    assert np.isnan(y[:, 0]).all()
