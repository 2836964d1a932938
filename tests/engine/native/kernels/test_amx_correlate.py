"""Convolutions on matrices in registers, against PyTorch in float64."""

import numpy as np
import torch
import torch.nn.functional as F
from native_kernel import array, kernel, noise, to_tile, to_torch, wide, worst
from native_matrices import CASES, STILL, axes, each_of, has_matrices, materials, on_both_tiles

from hubel.engine.native.kernels.amx_correlate import AmxCorrelate, AmxMap, AmxWeights
from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.kernels.correlate import Correlate

pytestmark = [has_matrices, on_both_tiles]


def run(machine, case, x, w, y, back=False, bias=0, extra=0, shift=0, present=0, **tail):
    """The map in pairs, the weights as matrices, then the kernel in two parts."""
    cin, cout, _, _, k, _, p = case
    v, (rows, columns) = machine.vector, axes(case)
    if back:
        rows, columns = (Axis(a.n_out, a.n_in, k, padding=k - 1 - p) for a in (rows, columns))
        cin, cout = cout, cin
    if tail.get("pool"):
        rows, columns = (Axis(a.n_in, a.n_out // 2 * 2, k, 1, p) for a in (rows, columns))
    height, width = y.shape[1:3]
    plain = Correlate(
        cin, cout, 1, rows, columns, 0, 0, rows.n_in * columns.n_in * v, columns.n_in * v, v,
        height * width * v, width * v, v, bias=not isinstance(bias, int), **tail,
    )  # fmt: skip
    as_pairs, weights = AmxMap(cin, rows, columns), AmxWeights(*w.shape[:3], back)
    pairs, u, scratch = (
        array(as_pairs.vectors, machine.lanes),
        array(weights.floats),
        array(4, 16, machine.lanes),
    )
    pairs[:] = np.nan
    kernel(as_pairs, machine)(x, pairs)
    kernel(weights, machine)(w, u, 0, 1)
    kernel(weights, machine)(w, u, 1, cout)
    for r0, r1 in ((height // 2, height), (0, height // 2)):
        done = kernel(AmxCorrelate(plain, weights), machine)
        done(pairs, u, bias, y, extra, shift, present, scratch, r0, r1)


def convolved(x, w, b, case):
    weight, bias = torch.tensor(w).double(), torch.tensor(b).double()
    return to_tile(F.conv2d(to_torch(x), weight, bias, stride=case[5], padding=case[6]))


@each_of(CASES)
def test_forward(case, machine):
    x, w, b, dy = materials(case, machine.lanes)
    y = array(*dy.shape)
    run(machine, case, x, w, y, bias=b)
    assert worst(y, convolved(x, w, b, case)) < 2e-6


@each_of(STILL)
def test_the_way_back_to_the_input_on_top_of_what_stands_there(case, machine):
    x, w, _, dy = materials(case, machine.lanes)
    expected = torch.nn.grad.conv2d_input(
        (machine.lanes, *x.shape[:3]), torch.tensor(w).double(), to_torch(dy), padding=case[6]
    )
    dx = noise(*x.shape, seed=9)
    start = dx.copy()
    run(machine, case, dy, w, dx, back=True, add=True)
    assert worst(dx, to_tile(expected) + start) < 2e-6


@each_of(CASES)
def test_relu_and_the_sums_of_batch_norm(case, machine):
    x, w, b, dy = materials(case, machine.lanes)
    cout, exact = case[1], convolved(x, w, b, case)
    shift, present = noise(cout, seed=5), array(machine.lanes)
    present[:-1] = 1
    y, sums = array(*dy.shape), wide(np.ones((cout, 2, machine.lanes)))
    run(machine, case, x, w, y, bias=b, extra=sums, shift=shift, present=present, sums=True)
    moved = exact - shift[:, None, None, None]
    assert worst(sums[:, 0] - 1, moved.sum((1, 2)) * present) < 1e-5
    assert worst(sums[:, 1] - 1, (moved**2).sum((1, 2)) * present) < 1e-5
    run(machine, case, x, w, y, bias=b, relu=True)
    assert worst(y, np.maximum(exact, 0)) < 2e-6


@each_of(STILL)
def test_max_pooling_on_the_way_out(case, machine):
    x, w, b, dy = materials(case, machine.lanes)
    cout, tall, wide_ = case[1], dy.shape[1] // 2, dy.shape[2] // 2
    y, which = (
        array(cout, tall, wide_, machine.lanes),
        array(cout, tall, wide_, machine.lanes, dtype=np.uint8),
    )
    run(machine, case, x, w, y, bias=b, extra=which, relu=True, pool=True)
    exact = np.maximum(convolved(x, w, b, case), 0)
    four = [exact[:, r : 2 * tall : 2, c : 2 * wide_ : 2] for r in (0, 1) for c in (0, 1)]
    assert worst(y, np.maximum.reduce(four)) < 2e-6
    chosen = np.take_along_axis(np.stack(four), np.minimum(which, 3)[None].astype(int), 0)[0]
    assert worst(np.where(which == 4, 0, chosen), y) < 2e-6


def test_a_number_that_is_not_finite_stays_among_the_pixels_that_read_it(machine):
    case = CASES["16 of each"]
    for bad in (np.nan, np.inf):
        x, w, b, dy = materials(case, machine.lanes)
        x[2, 3, 4, 1] = bad
        y = array(*dy.shape)
        run(machine, case, x, w, y, bias=b)
        assert np.array_equal(np.isfinite(y), np.isfinite(convolved(x, w, b, case)))
