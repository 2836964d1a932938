"""Gates, scales and PReLU against PyTorch in float64, forward and back."""

import pytest
import torch
import torch.nn.functional as F
from native_kernel import array, every_tile, kernel, like, noise, to_tile, to_torch, worst

from hubel.engine.native.kernels.broadcast import BroadcastBack, over

VERBS = {
    "mul": lambda x, g: x * g,
    "add": lambda x, g: x + g,
    "sub": lambda x, g: x - g,
    "rsub": lambda x, g: g - x,
    "prelu": lambda x, g: torch.where(x > 0, x, g * x),
}
SHAPE = (5, 7, 3)
SPREADS = [(5, 1, 1), (1, 7, 3), (1, 1, 1)]
each_verb = pytest.mark.parametrize("verb", VERBS)


@every_tile
@each_verb
@pytest.mark.parametrize("spread", SPREADS, ids=str)
def test_a_map_over_another(verb, spread, machine):
    x, g = noise(*SHAPE, machine.lanes), noise(*spread, machine.lanes, seed=1)
    dy = noise(*x.shape, seed=2)
    exact, gate = to_torch(x).requires_grad_(), to_torch(g).requires_grad_()
    theirs = VERBS[verb](exact, gate)
    theirs.backward(to_torch(dy))
    spec, y = over(verb, SHAPE, spread, weight=False), array(*x.shape)
    kernel(spec, machine)(x, g, y)
    assert worst(y, to_tile(theirs)) < 1e-6
    dx, dg = noise(*x.shape, seed=3), array(*g.shape)
    kernel(BroadcastBack(spec, True, False), machine)(dy, x, g, dx, dg)
    assert worst(dx - noise(*x.shape, seed=3), to_tile(exact.grad)) < 1e-6
    assert worst(dg, to_tile(gate.grad)) < 2e-6
    again = like(dg)
    kernel(BroadcastBack(spec, None, True), machine)(dy, x, g, 0, again)  # only the gate's, added
    assert worst(again, 2 * to_tile(gate.grad)) < 2e-6


@every_tile
@each_verb
@pytest.mark.parametrize("numbers", [5, 1], ids=["one a channel", "one"])
def test_a_parameter(verb, numbers, machine):
    x, dy = noise(*SHAPE, machine.lanes), noise(*SHAPE, machine.lanes, seed=2)
    w = noise(numbers, seed=1)
    exact, weight = to_torch(x).requires_grad_(), torch.tensor(w).double().requires_grad_()
    theirs = VERBS[verb](exact, weight.view(-1, 1, 1))
    theirs.backward(to_torch(dy))
    spec, y = over(verb, SHAPE, (numbers, 1, 1), weight=True), array(*x.shape)
    kernel(spec, machine)(x, w, y)
    assert worst(y, to_tile(theirs)) < 1e-6
    dx, dw = array(*x.shape), array(numbers, machine.lanes)
    back = kernel(BroadcastBack(spec, False, True), machine)
    for _ in range(2):  # two tiles, one after the other
        back(dy, x, w, dx, dw)
    assert worst(dx, to_tile(exact.grad)) < 1e-6
    assert worst(dw.sum(1), 2 * weight.grad) < 2e-6


@every_tile
def test_prelu_at_zero_is_on_the_slope_s_side(machine):
    x, dy, w = array(1, 1, 1, machine.lanes), noise(1, 1, 1, machine.lanes), noise(1)
    spec, dx, dw = over("prelu", (1, 1, 1), (1, 1, 1), True), array(*x.shape), array(machine.lanes)
    kernel(BroadcastBack(spec, False, True), machine)(dy, x, w, dx, dw)
    exact, weight = to_torch(x).requires_grad_(), torch.tensor(w).double().requires_grad_()
    F.prelu(exact, weight).backward(to_torch(dy))
    assert worst(dx, to_tile(exact.grad)) < 1e-6
    assert not dw.any()
