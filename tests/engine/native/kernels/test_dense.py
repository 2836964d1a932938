"""Gradients of fully connected layers and of biases, against sums in float64."""

import numpy as np
import pytest
from native_kernel import array, every_tile, kernel, noise, worst

from hubel.engine.native.kernels.dense import BiasGradient, DenseGradient, row_floats


@every_tile
@pytest.mark.parametrize("tiles", [1, 2, 4])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (5, 3), (16, 10), (33, 7), (120, 26)])
def test_dense_gradient(inputs, outputs, tiles, machine):
    lanes, padded = machine.lanes, row_floats(inputs, machine)
    x = array(tiles * lanes, padded)
    x[:, :inputs] = noise(tiles * lanes, inputs)
    gap = 3 * lanes  # tiles lie further apart than dy is long
    dy = noise(tiles * (outputs * lanes + gap), seed=1)
    g = noise(outputs, padded, seed=2)
    start = g.copy()
    spec = DenseGradient(inputs, outputs, tiles, 4 * (outputs * lanes + gap))
    kernel(spec, machine)(x, dy, g)
    slopes = dy.reshape(tiles, -1)[:, : outputs * lanes].reshape(tiles, outputs, lanes)
    images = x.reshape(tiles, lanes, padded).astype(np.float64)
    exact = start + np.einsum("tol,tli->oi", slopes, images)
    assert worst(g[:, :inputs], exact[:, :inputs]) < 3e-6


@every_tile
def test_a_padded_row_is_whole_vectors(machine):
    for inputs in (1, machine.floats - 1, machine.floats, machine.floats + 1):
        assert row_floats(inputs, machine) % machine.floats == 0
        assert 0 <= row_floats(inputs, machine) - inputs < machine.floats


@every_tile
@pytest.mark.parametrize(("channels", "size"), [(1, 1), (3, 2), (5, 7), (4, 12), (2, 49)])
def test_bias_gradient_keeps_the_lanes_apart(channels, size, machine):
    dy, g = noise(channels, size, machine.lanes), noise(channels, machine.lanes, seed=1)
    exact = g + dy.astype(np.float64).sum(1)
    kernel(BiasGradient(channels, size), machine)(dy, g)
    assert worst(g, exact) < 2e-6
