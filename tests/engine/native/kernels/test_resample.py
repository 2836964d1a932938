"""Resampled planes against PyTorch in float64: every kind, up and down, forward and back."""

import pytest
import torch
import torch.nn.functional as F
from native_kernel import array, every_tile, kernel, noise, to_tile, to_torch, worst

from hubel.engine.native.kernels.resample import UNROLLED, Resample, spans
from hubel.engine.ops.resize import averages, cubic, linear, nearest

KINDS = {  # how PyTorch is asked, and the matrix of one axis
    "bilinear": (
        lambda x, size: F.interpolate(x, size, mode="bilinear"),
        lambda n, m: linear(n, m, None, False),
    ),
    "bilinear, corners": (
        lambda x, size: F.interpolate(x, size, mode="bilinear", align_corners=True),
        lambda n, m: linear(n, m, None, True),
    ),
    "bicubic": (
        lambda x, size: F.interpolate(x, size, mode="bicubic"),
        lambda n, m: cubic(n, m, None, False),
    ),
    "nearest": (
        lambda x, size: F.interpolate(x, size, mode="nearest"),
        lambda n, m: nearest(n, m, None),
    ),
    "adaptive": (F.adaptive_avg_pool2d, averages),
}
SIZES = [
    ((7, 5), (14, 10)),
    ((7, 5), (3, 11)),
    ((2, 2), (7, 7)),
    ((13, 13), (6, 6)),
    ((9, 11), (2, 1)),
]


@every_tile
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_forward_and_back(kind, sizes, machine):
    call, matrix = KINDS[kind]
    ins, outs = sizes
    rows, columns = (matrix(n, m) for n, m in zip(ins, outs, strict=True))
    x, dy = noise(3, *ins, machine.lanes), noise(3, *outs, machine.lanes, seed=1)
    exact = to_torch(x).requires_grad_()
    theirs = call(exact, outs)
    theirs.backward(to_torch(dy))
    y, dx = noise(*dy.shape, seed=2), array(*x.shape)
    kernel(Resample(3, *ins, spans(rows), spans(columns), add=True), machine)(x, y)
    kernel(Resample(3, *outs, spans(rows.mT), spans(columns.mT), add=False), machine)(dy, dx)
    assert worst(y - noise(*dy.shape, seed=2), to_tile(theirs)) < 1e-6
    assert worst(dx, to_tile(exact.grad)) < 1e-6


def test_both_ways_of_writing_are_tried_above():
    longest = {
        max(len(weights) for _, weights in spans(averages(n, m))) for n, m in [(13, 6), (9, 2)]
    }
    assert min(longest) <= UNROLLED < max(longest)


def test_spans_by_hand():
    matrix = torch.tensor([[0, 0.5, 0, 0.25], [0, 0, 0, 0], [0, 0, 1, 0]])
    assert spans(matrix) == ((1, (0.5, 0.0, 0.25)), (0, (0.0,)), (2, (1.0,)))
