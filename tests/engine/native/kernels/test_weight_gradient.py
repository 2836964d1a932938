"""The weight gradient's kernel against PyTorch in float64, kept by lanes and packed."""

import numpy as np
import pytest
import torch
from native_kernel import array, every_tile, kernel, noise, to_torch, worst

from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.kernels.weight_gradient import (
    WeightGradient,
    packed_floats,
    packing,
)

CASES = {  # cin, cout, (H, W), (KH, KW), stride, padding, dilation, groups
    "one": (1, 1, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1), 1),
    "pointwise": (7, 13, (5, 6), (1, 1), (1, 1), (0, 0), (1, 1), 1),
    "three": (3, 5, (7, 9), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "valid": (4, 6, (8, 6), (3, 3), (1, 1), (0, 0), (1, 1), 1),
    "eleven": (2, 4, (23, 19), (11, 11), (4, 4), (2, 2), (1, 1), 1),
    "stride 2": (5, 6, (9, 10), (3, 3), (2, 2), (1, 1), (1, 1), 1),
    "stride 3": (3, 4, (10, 11), (2, 2), (3, 3), (0, 0), (1, 1), 1),
    "uneven": (3, 7, (13, 7), (5, 2), (1, 3), (4, 1), (1, 1), 1),
    "dilated": (3, 4, (13, 17), (3, 3), (3, 2), (3, 2), (2, 3), 1),
    "all padding": (2, 2, (2, 2), (3, 3), (1, 1), (4, 4), (1, 1), 1),
    "whole map": (3, 9, (4, 5), (4, 5), (1, 1), (0, 0), (1, 1), 1),
    "groups": (15, 21, (7, 7), (3, 3), (1, 1), (1, 1), (1, 1), 3),
    "depthwise": (5, 5, (9, 7), (3, 3), (2, 2), (1, 1), (1, 1), 5),
    "wide": (12, 2, (4, 300), (1, 1), (1, 1), (0, 0), (1, 1), 1),  # a row beyond the nearest cache
    "many": (33, 26, (4, 3), (3, 3), (1, 1), (1, 1), (1, 1), 1),
}


def built(case, machine, packed):
    cin, cout, size, taps, stride, padding, dilation, groups = case
    rows, columns = (
        Axis(n, (n + 2 * p - d * (k - 1) - 1) // s + 1, k, s, p, d)
        for n, k, s, p, d in zip(size, taps, stride, padding, dilation, strict=True)
    )
    v = machine.vector
    return WeightGradient(
        cin // groups, cout // groups, groups, rows, columns, rows.n_in * columns.n_in * v,
        columns.n_in * v, rows.n_out * columns.n_out * v, columns.n_out * v, packed,
    )  # fmt: skip


@every_tile
@pytest.mark.parametrize("packed", [False, True], ids=["lanes", "packed"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_against_torch_in_two_parts_on_top_of_what_stands_there(case, packed, machine):
    cin, cout, size, taps, stride, padding, dilation, groups = case
    spec = built(case, machine, packed)
    rows = spec.rows.n_out
    x = noise(cin, *size, machine.lanes)
    dy = noise(cout, rows, spec.columns.n_out, machine.lanes, seed=1)
    shape = (cout, cin // groups, *taps)
    count = int(np.prod(shape))
    g = array(packed_floats(spec, machine)) if packed else array(count, machine.lanes)
    call = kernel(spec, machine)
    for r0, r1 in ((0, rows // 3), (rows // 3, rows), (0, rows)):  # the whole twice over
        call(x, dy, g, r0, r1)
    ours = g[np.array(packing(spec, machine))] if packed else g.astype(np.float64).sum(1)
    theirs = 2 * torch.nn.grad.conv2d_weight(
        to_torch(x), shape, to_torch(dy), stride, padding, dilation, groups
    )
    assert worst(ours, theirs.reshape(-1)) < 5e-6


@every_tile
def test_every_packed_weight_has_a_place_of_its_own(machine):
    for case in CASES.values():
        spec = built(case, machine, True)
        places = packing(spec, machine)
        assert (
            len(set(places))
            == len(places)
            == spec.groups * spec.cout * spec.cin * (spec.rows.kernel * spec.columns.kernel)
        )
        assert max(places) < packed_floats(spec, machine)
