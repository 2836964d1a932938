"""bfloat16 pairs: rounded as PyTorch rounds, and products as exact as float32 sums are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from native_kernel import array, kernel, noise, to_tile, worst

from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.kernels.correlate import Correlate
from hubel.engine.native.kernels.halves import HalfChannels, HalfRows, HalfWeights
from hubel.engine.native.kernels.weight_gradient import (
    WeightGradient,
    packed_floats,
    packing,
)
from hubel.engine.native.machine import this_machine

with_half = pytest.mark.parametrize(
    "machine",
    [m for n in (16, 8) for m in [replace(this_machine(), lanes=n)] if m.half],
    ids=lambda m: f"{m.lanes}lanes",
)
SHAPES = [
    (16, 8, 6, 7, 3, 1, 1),
    (4, 6, 9, 8, 3, 2, 1),
    (2, 4, 7, 9, 1, 2, 0),
    (6, 2, 8, 5, 5, 1, 2),
]


def rounded(values):
    return torch.tensor(np.asarray(values)).bfloat16().float().numpy()


def halves(pairs):
    """The two numbers of every pair: (..., 2)."""
    bits = np.ascontiguousarray(pairs).view(np.uint32)
    low, high = (
        (bits << 16).view(np.float32),
        (bits & 0xFFFF0000).astype(np.uint32).view(np.float32),
    )
    return np.stack([low, high], -1)


@with_half
def test_channels_in_pairs(machine):
    x, y = noise(6, 35, machine.lanes), array(3, 35, machine.lanes)
    x[0, 0, :4] = [np.inf, -np.inf, 0.0, -0.0]
    kernel(HalfChannels(6, 35), machine)(x, y)
    expected = rounded(x).reshape(3, 2, 35, -1).transpose(0, 2, 3, 1)
    assert np.array_equal(halves(y), expected)


@with_half
@pytest.mark.parametrize(("each", "before", "apart", "written"), [(1, 2, 2, 7), (2, 0, 1, 3)])
def test_rows_in_pairs(machine, each, before, apart, written):
    x, y = noise(3, 5, 4, machine.lanes), array(3, written, 4, machine.lanes)
    kernel(HalfRows(3, 5, 4, written, each, before, apart), machine)(x, y, array(4, machine.lanes))
    found = halves(y)
    for q in range(written):
        for place, row in enumerate((q * each - before, q * each - before + apart)):
            there = rounded(x[:, row]) if 0 <= row < 5 else 0
            assert np.array_equal(found[:, q, ..., place], np.broadcast_to(there, x[:, 0].shape))


@with_half
@pytest.mark.parametrize("by_out", [False, True])
def test_weights_in_pairs(machine, by_out):
    w, y = noise(6, 4, 9), array(6 * 4 * 9 // 2)
    outer = 3 if by_out else 6
    kernel(HalfWeights(6, 4, 9, by_out), machine)(w, y, 0, 1)
    kernel(HalfWeights(6, 4, 9, by_out), machine)(w, y, 1, outer)
    shape, turn = ((3, 2, 4, 9), (0, 2, 3, 1)) if by_out else ((6, 2, 2, 9), (0, 1, 3, 2))
    assert np.array_equal(halves(y).reshape(*np.zeros(shape).transpose(turn).shape),
                          rounded(w).reshape(shape).transpose(turn))  # fmt: skip


def axes_of(shape):
    _, _, h, w, k, s, p = shape
    return tuple(Axis(n, (n + 2 * p - k) // s + 1, k, s, p) for n in (h, w))


@with_half
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_and_back_over_pairs_of_channels(machine, shape):
    cin, cout, h, w, k, s, p = shape
    rows, columns = axes_of(shape)
    v, taps = machine.vector, k * k
    weight = noise(cout, cin, k, k)
    exact = torch.tensor(rounded(weight)).double()
    forward = Correlate(
        cin, cout, 1, rows, columns, cin // 2 * taps, taps, h * w * v, w * v, v,
        rows.n_out * columns.n_out * v, columns.n_out * v, v,
    )  # fmt: skip
    x, y = noise(cin, h, w, machine.lanes), array(cout, rows.n_out, columns.n_out, machine.lanes)
    run_half(machine, forward, HalfWeights(cout, cin, taps, False), weight, x, y, cin, h * w)
    images = torch.tensor(rounded(x)).permute(3, 0, 1, 2).double()
    assert worst(y, to_tile(F.conv2d(images, exact, stride=s, padding=p))) < 2e-6
    back = Correlate(
        cout, cin, 1, rows.back(), columns.back(), taps, cin * taps,
        rows.n_out * columns.n_out * v, columns.n_out * v, v, h * w * v, w * v, v,
    )  # fmt: skip
    dy, dx = noise(*y.shape), array(*x.shape)
    run_half(machine, back, HalfWeights(cout, cin, taps, True), weight, dy, dx, cout,
             rows.n_out * columns.n_out)  # fmt: skip
    slopes = torch.tensor(rounded(dy)).permute(3, 0, 1, 2).double()
    expected = torch.nn.grad.conv2d_input(images.shape, exact, slopes, s, p)
    assert worst(dx, to_tile(expected)) < 2e-6


def run_half(machine, spec, weights, weight, x, y, channels, size):
    pairs, packed = array(channels // 2, size, machine.lanes), array(weight.size // 2)
    kernel(HalfChannels(channels, size), machine)(x, pairs)
    outer = weights.out // 2 if weights.by_out else weights.out
    kernel(weights, machine)(weight, packed, 0, outer)
    spec = replace(spec, cin=spec.cin // 2, half=True)
    zeros = array(64, machine.lanes)
    kernel(spec, machine)(pairs, packed, None, y, None, None, None, zeros, 0, spec.rows.n_out)


@with_half
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("packed", [False, True])
def test_weight_gradient_over_pairs_of_rows(machine, shape, packed):
    cin, cout, h, w, k, s, p = shape
    rows, columns = axes_of(shape)
    ho, wo, v = rows.n_out, columns.n_out, machine.vector
    tall, half_rows = h + p, -(-ho // 2)
    x, dy = noise(cin, h, w, machine.lanes), noise(cout, ho, wo, machine.lanes)
    xs, ys = array(cin, tall, w, machine.lanes), array(cout, half_rows, wo, machine.lanes)
    zeros = array(max(w, wo), machine.lanes)
    kernel(HalfRows(cin, h, w, tall, 1, p, s), machine)(x, xs, zeros)
    kernel(HalfRows(cout, ho, wo, half_rows, 2, 0, 1), machine)(dy, ys, zeros)
    spec = WeightGradient(
        cin, cout, 1, Axis(tall, half_rows, k, 2 * s, 0), columns,
        tall * w * v, w * v, half_rows * wo * v, wo * v, packed, half=True,
    )  # fmt: skip
    count = cout * cin * k * k
    g = array(packed_floats(spec, machine)) if packed else array(count, machine.lanes)
    kernel(spec, machine)(xs, ys, g, 0, half_rows)
    found = g[np.array(packing(spec, machine))] if packed else g.astype(np.float64).sum(1)
    images, slopes = (torch.tensor(rounded(a)).permute(3, 0, 1, 2).double() for a in (x, dy))
    expected = torch.nn.grad.conv2d_weight(images, (cout, cin, k, k), slopes, s, p)
    assert worst(found, expected.flatten().numpy()) < 2e-6
