"""The gradient of Winograd's weight, through to the weight itself, against PyTorch in float64."""

import numpy as np
import pytest
import torch
from native_kernel import MACHINES, array, kernel, noise, to_torch, wide, worst
from native_patches import CASES, axes, every_machine

from hubel.engine.native.kernels.update import Reduce
from hubel.engine.native.kernels.winograd import Form
from hubel.engine.native.kernels.winograd_gradient import (
    WinogradGradient,
    matrix_floats,
    pairs_of,
    together,
)

MORE = {
    "several rounds": (Form(2, 3), 5, 6, (37, 9), (1, 1)),
    "several rounds of four": (Form(4, 3), 5, 6, (38, 34), (1, 1)),
    "rests of blocks": (Form(4, 3), 17, 23, (8, 8), (1, 1)),
}
EVERY = CASES | MORE


@every_machine
@pytest.mark.parametrize("case", EVERY.values(), ids=EVERY.keys())
def test_two_threads_with_two_tiles_each(case, machine):
    form, cin, cout, size, padding = case
    rows, columns = axes(case)
    spec = WinogradGradient(form, cin, cout, rows, columns)
    floats = matrix_floats(spec, machine)
    parts = array(2, form.n**2 * floats)
    scratch, zeros = array(spec.scratch(machine) // 4), array(size[1], machine.lanes)
    expected = 0
    for number in range(4):
        x = noise(cin, *size, machine.lanes, seed=2 * number)
        dy = noise(cout, rows.n_out, columns.n_out, machine.lanes, seed=2 * number + 1)
        kernel(spec, machine)(x, dy, parts[number % 2], zeros, scratch)
        shape = (cout, cin, form.kernel, form.kernel)
        expected += torch.nn.grad.conv2d_weight(
            to_torch(x), shape, to_torch(dy), padding=padding
        ).numpy()
    order = array(floats, dtype=np.int32)
    order[:] = pairs_of(spec, machine)
    g, norm = array(*expected.shape), wide(np.ones(1))
    reduce = Reduce("winograd", form.kernel**2, floats, form)
    turns = reduce.turns(expected.size, machine)
    for i0, i1 in ((0, turns // 2), (turns // 2, turns)):
        kernel(reduce, machine)(parts, parts.strides[0], 2, order, g, norm, i0, i1)
    assert worst(g, expected) < 5e-6
    assert norm[0] - 1 == pytest.approx((expected**2).sum(), rel=1e-5)


@pytest.mark.parametrize("case", EVERY.values(), ids=EVERY.keys())
def test_every_pair_of_channels_has_one_place(case):
    form, cin, cout, _, _ = case
    spec = WinogradGradient(form, cin, cout, *axes(case))
    for machine in MACHINES:
        found = [pair for pair in pairs_of(spec, machine) if pair >= 0]
        assert sorted(found) == list(range(cin * cout))


def test_rows_of_patches_that_go_together():
    assert together(8, 8) == 4
    assert together(2, 2) == 2
    assert together(100, 100) == 1
