"""The weight's gradient on matrices in registers, against PyTorch in float64."""

import numpy as np
import torch
from native_kernel import array, kernel, to_torch, worst
from native_matrices import STILL, axes, each_of, has_matrices, materials, on_both_tiles

from hubel.engine.native.kernels.amx_gradient import AmxGradient, AmxSlopes, AmxTurned, order_of

pytestmark = [has_matrices, on_both_tiles]


@each_of(STILL)
def test_sums_over_images_and_pixels(case, machine):
    cin, cout, *_, padding = case
    x, w, _, dy = materials(case, machine.lanes)
    rows, columns = axes(case)
    turned = AmxTurned(cin, rows, columns)
    slopes = AmxSlopes(cout, rows.n_out, columns.n_out)
    spec = AmxGradient(cin, cout, rows, columns)
    x_turned, dy_told = (
        array(turned.vectors, machine.lanes),
        array(slopes.vectors(machine), machine.lanes),
    )
    x_turned[:] = np.nan
    g = array(spec.floats)
    kernel(turned, machine)(x, x_turned)
    kernel(slopes, machine)(dy, dy_told)
    middle = rows.n_out // 2
    for r0, r1 in ((0, middle), (middle, rows.n_out), (0, rows.n_out)):  # twice the whole
        kernel(spec, machine)(x_turned, dy_told, g, r0, r1)
    expected = torch.nn.grad.conv2d_weight(
        to_torch(x), w.shape, to_torch(dy), padding=padding
    ).numpy()
    assert worst(g[list(order_of(spec))].reshape(w.shape), 2 * expected) < 2e-6
