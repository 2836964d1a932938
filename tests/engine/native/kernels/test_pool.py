"""Pooling, forward and back, against PyTorch in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from native_kernel import array, every_tile, kernel, like, noise, to_tile, to_torch, worst

from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.kernels.pool import Pool, PoolBack, Whole, WholeBack, covers_once

CASES = {  # (H, W), kernel, stride, padding, dilation, ceil_mode
    "halves": ((6, 8), (2, 2), (2, 2), (0, 0), (1, 1), False),
    "halves of odd": ((7, 9), (2, 2), (2, 2), (0, 0), (1, 1), False),
    "overlapping": ((9, 11), (3, 3), (2, 2), (0, 0), (1, 1), False),
    "padded": ((8, 9), (3, 3), (2, 2), (1, 1), (1, 1), False),
    "uneven": ((10, 7), (4, 2), (1, 3), (2, 0), (1, 1), False),
    "apart": ((11, 11), (2, 2), (3, 4), (0, 0), (1, 1), False),
    "ceil": ((8, 10), (3, 3), (2, 2), (0, 0), (1, 1), True),
    "ceil, padded": ((9, 6), (3, 2), (2, 3), (1, 1), (1, 1), True),
    "dilated": ((11, 9), (3, 2), (2, 1), (1, 1), (2, 3), False),
    "one": ((3, 3), (3, 3), (3, 3), (0, 0), (1, 1), False),
}
MEANS = [n for n, case in CASES.items() if case[4] == (1, 1) and not case[5]]


def built(kind, case, channels, padding_counts=True):
    size, taps, stride, padding, dilation, ceil = case
    shape = F.max_pool2d(torch.zeros(1, *size), taps, stride, padding, dilation, ceil).shape[1:]
    rows, columns = (
        Axis(*them) for them in zip(size, shape, taps, stride, padding, dilation, strict=True)
    )
    return Pool(kind, channels, rows, columns, padding_counts)


def there_and_back(spec, x, dy, machine):
    """y, and dx on top of what stood there, both in two parts."""
    outs = spec.rows.n_out
    y, which = array(*dy.shape), array(*dy.shape, dtype=np.uint8)
    call = kernel(spec, machine)
    dx = noise(*x.shape, seed=9)
    back = kernel(PoolBack(spec, add=True), machine)
    for r0, r1 in ((0, outs // 2), (outs // 2, outs)):
        call(x, y, which, r0, r1)
        back(dy, dx, which, r0, r1)
    if covers_once(spec):
        fresh = noise(*x.shape, seed=10)
        kernel(PoolBack(spec, add=False), machine)(dy, fresh, which, 0, outs)
        assert worst(fresh + noise(*x.shape, seed=9), dx) < 1e-6
    return y, dx - noise(*x.shape, seed=9)


def assert_as_in_torch(call, spec, x, machine):
    exact = to_torch(x).requires_grad_()
    theirs = call(exact)
    dy = noise(*to_tile(theirs).shape, seed=1)
    theirs.backward(to_torch(dy))
    y, dx = there_and_back(spec, x, dy, machine)
    assert worst(y, to_tile(theirs)) < 1e-6
    assert worst(dx, to_tile(exact.grad)) < 1e-6


@every_tile
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_max(case, machine):
    size, taps, stride, padding, dilation, ceil = case
    x = noise(3, *size, machine.lanes)
    x[0, 1::2] = np.round(x[0, 1::2])  # ties: the first of equals gets the gradient, as in torch
    assert_as_in_torch(
        lambda t: F.max_pool2d(t, taps, stride, padding, dilation, ceil),
        built("max", case, 3), x, machine,
    )  # fmt: skip


@every_tile
@pytest.mark.parametrize("padding_counts", [True, False])
@pytest.mark.parametrize("name", MEANS)
def test_mean(name, padding_counts, machine):
    case = CASES[name]
    size, taps, stride, padding, _, _ = case
    assert_as_in_torch(
        lambda t: F.avg_pool2d(t, taps, stride, padding, False, padding_counts),
        built("mean", case, 3, padding_counts), noise(3, *size, machine.lanes), machine,
    )  # fmt: skip


@every_tile
def test_nan_wins_and_negative_maps_keep_their_sign(machine):
    x = like(np.full((1, 4, 4, machine.lanes), -2.0))
    x[0, 1, 1, 0], x[0, 2, 3, 1] = np.nan, np.inf
    spec = built("max", ((4, 4), *CASES["halves"][1:]), 1)
    y, which = array(1, 2, 2, machine.lanes), array(1, 2, 2, machine.lanes, dtype=np.uint8)
    kernel(spec, machine)(x, y, which, 0, 2)
    theirs = to_tile(F.max_pool2d(to_torch(x), 2))
    np.testing.assert_array_equal(y, theirs)
    assert which[0, 0, 0, 0] == 3


def test_windows_that_tile_the_map_cover_it_once():
    once = {name for name, case in CASES.items() if covers_once(built("max", case, 1))}
    assert once == {"halves", "one"}


@every_tile
@pytest.mark.parametrize("kind", ["max", "mean"])
@pytest.mark.parametrize(("channels", "size"), [(1, 1), (3, 7), (2, 12)])
@pytest.mark.parametrize("add", [False, True])
def test_whole_maps(kind, channels, size, add, machine):
    x = noise(channels, 1, size, machine.lanes)
    x[..., ::2] = np.round(x[..., ::2])  # equal largest ones share the gradient, as in amax
    exact = to_torch(x).requires_grad_()
    theirs = exact.amax((2, 3)) if kind == "max" else exact.mean((2, 3))
    dy = noise(channels, machine.lanes, seed=1)
    theirs.backward(to_torch(dy))
    y, dx = array(channels, machine.lanes), noise(*x.shape, seed=2)
    start = dx.copy() if add else 0
    spec = Whole(kind, channels, size)
    kernel(spec, machine)(x, y)
    kernel(WholeBack(spec, add), machine)(dy, dx, x, y)
    assert worst(y, to_tile(theirs)) < 1e-6
    assert worst(dx - start, to_tile(exact.grad)) < 1e-6
