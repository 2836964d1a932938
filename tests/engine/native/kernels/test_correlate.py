"""The convolution's kernel, forward and back, against PyTorch in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from native_kernel import array, every_tile, kernel, noise, to_tile, to_torch, wide, worst

from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.kernels.correlate import Correlate

CASES = {  # cin, cout, (H, W), (KH, KW), stride, padding, dilation, groups
    "one": (1, 1, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1), 1),
    "pointwise": (7, 13, (5, 6), (1, 1), (1, 1), (0, 0), (1, 1), 1),
    "three": (3, 5, (7, 9), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "valid": (4, 6, (8, 6), (3, 3), (1, 1), (0, 0), (1, 1), 1),
    "five": (2, 3, (11, 8), (5, 5), (1, 1), (2, 2), (1, 1), 1),
    "eleven": (2, 4, (23, 19), (11, 11), (4, 4), (2, 2), (1, 1), 1),
    "long": (3, 4, (9, 13), (1, 7), (1, 2), (0, 3), (1, 1), 1),
    "stride 2": (5, 6, (9, 10), (3, 3), (2, 2), (1, 1), (1, 1), 1),
    "stride 3": (3, 4, (10, 11), (2, 2), (3, 3), (0, 0), (1, 1), 1),
    "thin": (4, 8, (9, 8), (1, 1), (2, 2), (0, 0), (1, 1), 1),
    "uneven": (3, 7, (13, 7), (5, 2), (1, 3), (4, 1), (1, 1), 1),
    "dilated": (2, 5, (11, 12), (3, 3), (1, 1), (2, 2), (2, 2), 1),
    "dilated, strided": (3, 4, (13, 17), (3, 3), (3, 2), (3, 2), (2, 3), 1),
    "dilated as strided": (2, 3, (12, 12), (3, 3), (2, 2), (0, 1), (2, 4), 1),
    "all padding": (2, 2, (2, 2), (3, 3), (1, 1), (4, 4), (1, 1), 1),
    "whole map": (3, 9, (4, 5), (4, 5), (1, 1), (0, 0), (1, 1), 1),
    "groups": (6, 9, (7, 7), (3, 3), (1, 1), (1, 1), (1, 1), 3),
    "depthwise": (5, 5, (9, 7), (3, 3), (2, 2), (1, 1), (1, 1), 5),
    "depthwise by two": (4, 8, (6, 7), (5, 5), (1, 1), (2, 2), (1, 1), 4),
    "many": (33, 26, (4, 3), (3, 3), (1, 1), (1, 1), (1, 1), 1),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def axes(case):
    _, _, size, taps, stride, padding, dilation, _ = case
    return tuple(
        Axis(n, (n + 2 * p - d * (k - 1) - 1) // s + 1, k, s, p, d)
        for n, k, s, p, d in zip(size, taps, stride, padding, dilation, strict=True)
    )


def forward_spec(case, machine, **options):
    """The convolution's own kernel."""
    cin, cout, _, _, _, _, _, groups = case
    rows, columns = axes(case)
    v, taps = machine.vector, rows.kernel * columns.kernel
    return Correlate(
        cin // groups, cout // groups, groups, rows, columns, cin // groups * taps, taps,
        rows.n_in * columns.n_in * v, columns.n_in * v, v,
        rows.n_out * columns.n_out * v, columns.n_out * v, v, **options,
    )  # fmt: skip


def back_spec(case, machine, **options):
    """The kernel that carries dy to dx: transposed axes, the weight's axes exchanged."""
    cin, cout, _, _, _, _, _, groups = case
    rows, columns = (axis.back() for axis in axes(case))
    v, taps = machine.vector, rows.kernel * columns.kernel
    return Correlate(
        cout // groups, cin // groups, groups, rows, columns, taps, cin // groups * taps,
        rows.n_in * columns.n_in * v, columns.n_in * v, v,
        rows.n_out * columns.n_out * v, columns.n_out * v, v, **options,
    )  # fmt: skip


def materials(case, machine):
    """x, weight, bias and dy."""
    cin, cout, size, taps, *_, groups = case
    rows, columns = axes(case)
    return (
        noise(cin, *size, machine.lanes), noise(cout, cin // groups, *taps, seed=1),
        noise(cout, seed=2), noise(cout, rows.n_out, columns.n_out, machine.lanes, seed=3),
    )  # fmt: skip


def convolved(x, w, b, case):
    _, _, _, _, stride, padding, dilation, groups = case
    bias = None if b is None else torch.tensor(b).double()
    return F.conv2d(to_torch(x), torch.tensor(w).double(), bias, stride, padding, dilation, groups)


def zeros_row(x, machine):
    return array(x.shape[2] + 1, machine.lanes)


@every_tile
@each_case
def test_forward(case, machine):
    x, w, b, dy = materials(case, machine)
    y, rows = array(*dy.shape), dy.shape[1]
    call = kernel(forward_spec(case, machine, bias=True), machine)
    split = rows // 2
    for r0, r1 in ((split, rows), (0, split)):
        before = y.copy()
        call(x, w, b, y, 0, 0, 0, zeros_row(x, machine), r0, r1)
        np.testing.assert_array_equal(
            np.delete(y, range(r0, r1), 1), np.delete(before, range(r0, r1), 1)
        )
    assert worst(y, to_tile(convolved(x, w, b, case))) < 3e-6


@every_tile
@each_case
def test_the_way_back_to_the_input(case, machine):
    x, w, _, dy = materials(case, machine)
    _, _, _, _, stride, padding, dilation, groups = case
    expected = torch.nn.grad.conv2d_input(
        (machine.lanes, *x.shape[:3]), torch.tensor(w).double(), to_torch(dy), stride, padding,
        dilation, groups,
    )  # fmt: skip
    dx = noise(*x.shape, seed=9)  # with `add` the gradient comes on top of what stands there
    start, rows = dx.copy(), x.shape[1]
    call = kernel(back_spec(case, machine, add=True), machine)
    for r0, r1 in ((0, rows // 3), (rows // 3, rows)):
        call(dy, w, 0, dx, 0, 0, 0, zeros_row(dy, machine), r0, r1)
    assert worst(dx, to_tile(expected) + start) < 3e-6
    fresh = noise(*x.shape, seed=10)
    kernel(back_spec(case, machine), machine)(
        dy, w, 0, fresh, 0, 0, 0, zeros_row(dy, machine), 0, rows
    )
    assert worst(fresh, to_tile(expected)) < 3e-6


TAILED = [name for name in CASES if name not in ("one", "whole map", "eleven", "many")]


@every_tile
@pytest.mark.parametrize("name", TAILED)
def test_relu_and_pooling_on_the_way_out(name, machine):
    case = CASES[name]
    x, w, b, dy = materials(case, machine)
    exact = convolved(x, w, b, case)
    y = array(*dy.shape)
    call = kernel(forward_spec(case, machine, bias=True, relu=True), machine)
    call(x, w, b, y, 0, 0, 0, zeros_row(x, machine), 0, dy.shape[1])
    assert worst(y, to_tile(exact.relu())) < 3e-6
    channels, tall, wide = dy.shape[0], dy.shape[1] // 2, dy.shape[2] // 2
    if not tall * wide:
        return
    for relu in (False, True):
        v = machine.vector
        spec = forward_spec(case, machine, bias=True, relu=relu, pool=True)
        spec = replace(spec, y_plane=tall * wide * v, y_row=wide * v)
        small = array(channels, tall, wide, machine.lanes)
        which = array(channels, tall, wide, machine.lanes, dtype=np.uint8)
        call = kernel(spec, machine)
        for r0, r1 in ((0, 1), (1, tall)):
            call(x, w, b, small, which, 0, 0, zeros_row(x, machine), r0, r1)
        pooled, places = F.max_pool2d(exact, 2, return_indices=True)
        assert worst(small, to_tile(pooled.relu() if relu else pooled)) < 3e-6
        corner = places // dy.shape[2] % 2 * 2 + places % dy.shape[2] % 2
        expected = torch.where(pooled > 0, corner, 4) if relu else corner
        assert (which == to_tile(expected)).all()


@every_tile
@pytest.mark.parametrize("name", ["three", "stride 2", "depthwise", "many"])
def test_the_sums_for_batch_norm_leave_absent_images_out(name, machine):
    case = CASES[name]
    x, w, b, dy = materials(case, machine)
    present = array(machine.lanes)
    present[: machine.lanes - 1] = 1
    shift, sums = noise(dy.shape[0], seed=5), wide(noise(dy.shape[0], 2, machine.lanes, seed=6))
    start, y = sums.copy(), array(*dy.shape)
    call = kernel(forward_spec(case, machine, bias=True, sums=True), machine)
    call(x, w, b, y, sums, shift, present, zeros_row(x, machine), 0, dy.shape[1])
    moved = (to_tile(convolved(x, w, b, case)) - shift[:, None, None, None]) * present
    expected = np.stack([moved.sum((1, 2)), (moved**2).sum((1, 2))], 1)
    assert worst(sums, expected + start) < 1e-5


@every_tile
def test_nan_and_infinity_are_not_swallowed(machine):
    case = CASES["three"]
    x, w, b, dy = materials(case, machine)
    x[1, 3, 4, 0], x[2, 0, 0, 1] = np.nan, np.inf
    exact = to_tile(convolved(x, w, b, case).relu())
    y = array(*dy.shape)
    call = kernel(forward_spec(case, machine, bias=True, relu=True), machine)
    call(x, w, b, y, 0, 0, 0, zeros_row(x, machine), 0, dy.shape[1])
    np.testing.assert_allclose(y, exact, rtol=1e-4, atol=1e-5, equal_nan=True)
    assert np.isnan(y[..., 0]).any()
    assert not np.isnan(y[..., 2:]).any()


@every_tile
def test_a_row_of_tiles_is_a_fully_connected_layer(machine):
    inputs, outputs, tiles, v = 19, 11, 3, machine.vector
    x, w, b = noise(tiles, inputs, machine.lanes), noise(outputs, inputs, seed=1), noise(outputs)
    y = array(tiles, outputs, machine.lanes)
    spec = Correlate(
        inputs, outputs, 1, Axis(1, 1, 1), Axis(tiles, tiles, 1), inputs, 1,
        v, 0, inputs * v, v, 0, outputs * v, bias=True,
    )  # fmt: skip
    kernel(spec, machine)(x, w, b, y, 0, 0, 0, array(4, machine.lanes), 0, 1)
    exact = np.einsum("oi,til->tol", w.astype(float), x.astype(float)) + b[:, None]
    assert worst(y, exact) < 3e-6


def test_multiply_adds_are_counted_without_padding():
    spec = Correlate(2, 3, 1, *[Axis(4, 4, 3, 1, 1)] * 2, *[1] * 8)
    ones = torch.ones(1, 2, 4, 4)
    assert spec.macs == int(F.conv2d(ones, torch.ones(3, 2, 3, 3), padding=1).sum())
