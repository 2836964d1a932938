"""Local response normalisation against PyTorch in float64, forward and back."""

import pytest
import torch.nn.functional as F
from native_kernel import array, every_tile, kernel, noise, to_tile, to_torch, worst

from hubel.engine.native.kernels.response import Response, ResponseBack, ResponseParts

CASES = [  # channels, size, alpha as PyTorch has it, beta, k
    (9, 5, 1e-4, 0.75, 2.0),
    (9, 5, 2.0, 0.75, 2.0),
    (6, 4, 1.0, 0.75, 1.0),
    (7, 3, 1.0, 0.5, 1.0),
    (5, 2, 1.5, 1.0, 0.5),
    (4, 3, 1.0, 0.6, 1.5),
    (3, 9, 1.0, 0.75, 1.0),
    (4, 1, 1.0, 0.75, 1.0),
]


@every_tile
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_back(case, machine):
    channels, size, alpha, beta, k = case
    x, dy = noise(channels, 3, 5, machine.lanes), noise(channels, 3, 5, machine.lanes, seed=1)
    exact = to_torch(x).requires_grad_()
    theirs = F.local_response_norm(exact, size, alpha, beta, k)
    theirs.backward(to_torch(dy))
    spec = Response(channels, 15, size, alpha / size, beta, k)
    y, t, u, dx = (array(*x.shape) for _ in range(4))
    kernel(spec, machine)(x, y)
    assert worst(y, to_tile(theirs)) < 1e-6
    kernel(ResponseParts(spec), machine)(dy, x, t, u)
    kernel(ResponseBack(spec, False), machine)(u, x, t, dx)
    assert worst(dx, to_tile(exact.grad)) < 2e-6


@every_tile
def test_in_place_and_on_top(machine):
    """The first half over dy itself, the second added to another gradient: the same numbers."""
    spec = Response(6, 4, 5, 0.3, 0.75, 1.0)
    x, dy = noise(6, 4, machine.lanes), noise(6, 4, machine.lanes, seed=1)
    t, u, dx = (array(*x.shape) for _ in range(3))
    kernel(ResponseParts(spec), machine)(dy, x, t, u)
    kernel(ResponseBack(spec, False), machine)(u, x, t, dx)
    kernel(ResponseParts(spec), machine)(dy, x, t, dy)
    assert (dy == u).all()
    sum_ = noise(*x.shape, seed=2)
    kernel(ResponseBack(spec, True), machine)(dy, x, t, sum_)
    assert worst(sum_ - noise(*x.shape, seed=2), dx) < 1e-6
