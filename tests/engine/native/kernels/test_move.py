"""Moving numbers about, against NumPy's transposes and slices."""

import numpy as np
import pytest
from native_kernel import array, every_tile, kernel, like, noise

from hubel.engine.native.kernels.move import Copy, Fill, Pack, Unpack


@every_tile
@pytest.mark.parametrize("floats", [1, 3, 16, 17, 48, 75])
def test_images_into_tiles_and_back(floats, machine):
    lanes = machine.lanes
    for n in (1, lanes - 1, lanes, lanes + 5):
        there = min(n, lanes)
        images = noise(there, floats)
        tile = noise(floats, lanes, seed=1)
        kernel(Pack(floats), machine)(images, n, tile, array(floats + lanes))
        np.testing.assert_array_equal(tile[:, :there], images.T)
        assert not tile[:, there:].any()
        rows = array(there, floats)
        kernel(Unpack(floats, floats, padded=False), machine)(tile, n, rows)
        np.testing.assert_array_equal(rows, images)


@every_tile
@pytest.mark.parametrize("floats", [1, 5, 16, 33])
def test_padded_rows_end_in_zeros(floats, machine):
    lanes = machine.lanes
    stride = -(-floats // lanes) * lanes
    tile, rows = noise(floats, lanes), noise(lanes, stride, seed=1)
    kernel(Unpack(floats, stride, padded=True), machine)(tile, lanes, rows)
    np.testing.assert_array_equal(rows[:, :floats], tile.T)
    assert not rows[:, floats:].any()


@every_tile
def test_fill(machine):
    y = noise(6, machine.lanes)
    before = y.copy()
    kernel(Fill(), machine)(y, 4 * machine.vector)
    assert not y[:4].any()
    np.testing.assert_array_equal(y[4:], before[4:])
    kernel(Fill(), machine)(y, 0)
    np.testing.assert_array_equal(y[4:], before[4:])


@every_tile
@pytest.mark.parametrize("add", [False, True])
def test_copies_with_steps(add, machine):
    """x[:, ::2, ::3] into the middle channels of y."""
    v = machine.vector
    x, y = noise(3, 5, 7, machine.lanes), noise(5, 3, 3, machine.lanes, seed=1)
    expected = y.copy()
    expected[1:4] = x[:, ::2, ::3] + (y[1:4] if add else 0)
    spec = Copy(3, 3, 3, 35 * v, 14 * v, 3 * v, 9 * v, 3 * v, v, add)
    kernel(spec, machine)(x, y.ctypes.data + 9 * v)
    np.testing.assert_array_equal(y, expected)


@every_tile
def test_a_copy_of_nothing_but_a_row(machine):
    x, y = noise(4, machine.lanes), array(4, machine.lanes)
    kernel(Copy(1, 1, 4, 0, 0, machine.vector, 0, 0, machine.vector, False), machine)(x, y)
    np.testing.assert_array_equal(x, like(y))
