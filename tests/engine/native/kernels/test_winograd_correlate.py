"""Winograd's convolution against PyTorch in float64, and against the plain kernel's tails."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from native_kernel import MACHINES, array, kernel, noise, to_tile, to_torch, wide, worst
from native_patches import CASES, axes, every_machine

from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.kernels.winograd import WinogradWeights
from hubel.engine.native.kernels.winograd_correlate import WinogradCorrelate, block_of

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
TAILED = ("2 of 3, odd", "2 of 3, small", "4 of 3", "4 of 3, odd", "2 of 5, odd")


def spec_of(case, machine, rows=None, columns=None, back=False, **tail):
    form, cin, cout, _, _ = case
    if back:
        cin, cout = cout, cin
    if rows is None:
        rows, columns = axes(case)
    block = block_of(form, cin, cout, columns.n_out, machine)
    return WinogradCorrelate(form, cin, cout, rows, columns, block, **tail)


def run(spec, machine, x, w, y, back=False, bias=0, extra=0, shift=0, present=0):
    """Weights transformed, then the kernel in two parts."""
    weights = WinogradWeights(spec.form, *w.shape[:2], back, spec.block[0])
    u = array(weights.floats)
    kernel(weights, machine)(w, u, 0, spec.cout)
    scratch, zeros = array(spec.scratch(machine) // 4), array(x.shape[2], machine.lanes)
    tall = spec.patches[0]
    for r0, r1 in ((tall // 2, tall), (0, tall // 2)):
        kernel(spec, machine)(x, u, bias, y, extra, shift, present, zeros, scratch, r0, r1)


def materials(case, machine):
    """x, weight, bias and dy."""
    form, cin, cout, size, _ = case
    rows, columns = axes(case)
    return (
        noise(cin, *size, machine.lanes), noise(cout, cin, form.kernel, form.kernel, seed=1),
        noise(cout, seed=2), noise(cout, rows.n_out, columns.n_out, machine.lanes, seed=3),
    )  # fmt: skip


def convolved(x, w, b, case):
    return F.conv2d(
        to_torch(x), torch.tensor(w).double(), torch.tensor(b).double(), padding=case[4]
    )


@every_machine
@each_case
def test_forward(case, machine):
    x, w, b, dy = materials(case, machine)
    y = array(*dy.shape)
    run(spec_of(case, machine, bias=True), machine, x, w, y, bias=b)
    assert worst(y, to_tile(convolved(x, w, b, case))) < 5e-6


@every_machine
@each_case
def test_the_way_back_to_the_input_on_top_of_what_stands_there(case, machine):
    x, w, _, dy = materials(case, machine)
    expected = torch.nn.grad.conv2d_input(
        (machine.lanes, *x.shape[:3]), torch.tensor(w).double(), to_torch(dy), padding=case[4]
    )
    rows, columns = (
        Axis(a.n_out, a.n_in, a.kernel, padding=a.kernel - 1 - a.padding) for a in axes(case)
    )
    dx = noise(*x.shape, seed=9)
    start = dx.copy()
    spec = spec_of(case, machine, rows, columns, back=True, add=True)
    run(spec, machine, dy, w, dx, back=True)
    assert worst(dx, to_tile(expected) + start) < 5e-6


@every_machine
@pytest.mark.parametrize("name", TAILED)
def test_relu_and_the_sums_of_batch_norm(name, machine):
    case = CASES[name]
    x, w, b, dy = materials(case, machine)
    cout, lanes = case[2], machine.lanes
    shift, present = noise(cout, seed=5), array(lanes)
    present[: lanes - 1] = 1
    y, sums = array(*dy.shape), wide(np.ones((cout, 2, lanes)))
    spec = spec_of(case, machine, bias=True, sums=True)
    run(spec, machine, x, w, y, bias=b, extra=sums, shift=shift, present=present)
    exact = to_tile(convolved(x, w, b, case)) - shift[:, None, None, None]
    assert worst(sums[:, 0] - 1, exact.sum((1, 2)) * present) < 1e-5
    assert worst(sums[:, 1] - 1, (exact**2).sum((1, 2)) * present) < 1e-5
    run(spec_of(case, machine, bias=True, relu=True), machine, x, w, y, bias=b)
    assert worst(y, np.maximum(to_tile(convolved(x, w, b, case)), 0)) < 5e-6


@every_machine
@pytest.mark.parametrize("relu", [False, True], ids=["plain", "relu"])
@pytest.mark.parametrize("name", [name for name in TAILED if "small" not in name])
def test_max_pooling_on_the_way_out(name, relu, machine):
    case = CASES[name]
    x, w, b, dy = materials(case, machine)
    cout, tall, wide_, lanes = dy.shape[0], dy.shape[1] // 2, dy.shape[2] // 2, machine.lanes
    rows, columns = (
        Axis(a.n_in, a.n_out // 2 * 2, a.kernel, padding=a.padding) for a in axes(case)
    )
    y, which = array(cout, tall, wide_, lanes), array(cout, tall, wide_, lanes, dtype=np.uint8)
    spec = spec_of(case, machine, rows, columns, bias=True, relu=relu, pool=True)
    run(spec, machine, x, w, y, bias=b, extra=which)
    exact = to_tile(convolved(x, w, b, case))
    exact = np.maximum(exact, 0) if relu else exact
    four = [exact[:, r : 2 * tall : 2, c : 2 * wide_ : 2] for r in (0, 1) for c in (0, 1)]
    assert worst(y, np.maximum.reduce(four)) < 5e-6
    chosen = np.take_along_axis(np.stack(four), np.minimum(which, 3)[None].astype(int), 0)[0]
    chosen = np.where(which == 4, 0, chosen)
    assert relu or (which < 4).all()
    assert worst(chosen, y) < 5e-6


def test_what_is_not_finite_is_not_lost():
    case = CASES["4 of 3"]
    machine = MACHINES[0]
    for bad in (np.nan, np.inf):
        x, w, b, dy = materials(case, machine)
        x[2, 3, 4, 1] = bad
        y = array(*dy.shape)
        run(spec_of(case, machine, bias=True), machine, x, w, y, bias=b)
        touched = ~np.isfinite(convolved(x, w, b, case).numpy()).transpose(1, 2, 3, 0)
        assert not np.isfinite(y[touched]).any()
        assert np.isfinite(np.delete(y, 1, -1)).all()  # other images know nothing of it


def test_the_work_is_counted():
    case = CASES["4 of 3"]
    spec = spec_of(case, MACHINES[0])
    taken = [sum(1 for o in range(n) for k in range(3) if 0 <= o + k - 1 < n) for n in (8, 12)]
    assert spec.macs == 6 * 9 * taken[0] * taken[1]
    assert spec.products == 6 * 9 * 2 * 3 * 36
