"""What the tests of kernels on matrices in registers share."""

import numpy as np
import pytest
import torch
from native_kernel import noise

from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.machine import fitting, this_machine

# cin, cout, rows, columns, kernel, stride, padding
CASES = {
    "16 of each": (16, 16, 8, 8, 3, 1, 1),
    "odd channels": (5, 7, 9, 6, 3, 1, 1),
    "three inputs": (3, 20, 6, 10, 3, 1, 1),
    "more than a matrix": (34, 40, 5, 4, 3, 1, 1),
    "kernel of 5": (6, 16, 14, 14, 5, 1, 0),
    "kernel of 5, one output": (6, 1, 7, 9, 5, 1, 2),
    "kernel of 1": (18, 12, 5, 7, 1, 1, 0),
    "kernel of 7": (4, 6, 9, 8, 7, 1, 3),
    "stride": (8, 17, 9, 12, 3, 2, 1),
    "stride, unread rest": (4, 3, 10, 11, 3, 3, 0),
}
STILL = {name: case for name, case in CASES.items() if case[5] == 1}

has_matrices = pytest.mark.skipif(not this_machine().amx, reason="this processor has no AMX")
on_both_tiles = pytest.mark.parametrize(
    "machine", [this_machine(), fitting(this_machine(), 8, 1)], ids=["16 images", "8 images"]
)


def each_of(cases):
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


def axes(case):
    _, _, h, w, k, s, p = case
    return tuple(Axis(n, (n + 2 * p - k) // s + 1, k, s, p) for n in (h, w))


def materials(case, lanes):
    """x, weight, bias and dy, as bfloat16 has them."""
    cin, cout, h, w, k, _, _ = case
    rows, columns = axes(case)
    found = (
        noise(cin, h, w, lanes), noise(cout, cin, k, k, seed=1), noise(cout, seed=2),
        noise(cout, rows.n_out, columns.n_out, lanes, seed=3),
    )  # fmt: skip
    for one in found:
        one[...] = torch.tensor(np.array(one)).bfloat16().float().numpy()
    return found
