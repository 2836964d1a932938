"""A net of every kind: loss, gradients of parameters and inputs, buffers, all as torch has them."""

import pytest
import torch
import torch.nn.functional as F
from against import assert_same, autograds_of, gradients_of
from small_nets import NETS

# A bias before batch norm has a true gradient of 0, of which only rounding is seen: no deviation
# is measured by less than this share of the largest gradient of the net.
FLOOR = {torch.float64: 1e-4, torch.float32: 1e-2}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
BUFFERS = {torch.float64: 1e-12, torch.float32: 1e-6}

every_net = pytest.mark.parametrize("name", NETS)
both_modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
both_kernels = pytest.mark.parametrize("kernels", ["math", "torch"])
both_dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])


def made(name, training, dtype=torch.float64):
    """A call that gives the loss, the net, its inputs."""
    net = NETS[name]
    model, inputs, labels = net.make(0, dtype)
    return (lambda model, *given: net.value(model, given, labels)), model.train(training), inputs


def reference(name, training, dtype, monkeypatch):
    """Loss, gradients and buffers by autograd.

    torch's own backward of hard sigmoid multiplies by 1/6 as a float32 even in float64, which
    puts MobileNet's gradients off by 3e-8. `relu6(x + 3) / 6` is the same function, and exact.
    """
    call, model, inputs = made(name, training, dtype)
    torch.manual_seed(5)
    with monkeypatch.context() as patched:
        patched.setattr(F, "hardsigmoid", lambda x: F.relu6(x + 3) / 6)
        value, gradients, model = autograds_of(call, model, inputs)
    return value, gradients, dict(model.named_buffers())


def assert_as_autograd(name, training, dtype, monkeypatch, **options):
    expected, theirs, buffers = reference(name, training, dtype, monkeypatch)
    call, model, inputs = made(name, training, dtype)
    torch.manual_seed(5)
    tape, value, ours = gradients_of(call, model, inputs, **options)
    assert not [r for r in tape.records if r.borrowed]
    assert ours.keys() == theirs.keys()
    top = max(float(g.abs().max()) for g in theirs.values())
    assert_same(ours, theirs, TOLERANCE[dtype], floor=FLOOR[dtype] * top)
    torch.testing.assert_close(value, expected, rtol=BUFFERS[dtype], atol=BUFFERS[dtype])
    for mine, other in zip(model.buffers(), buffers.values(), strict=True):
        torch.testing.assert_close(mine, other, rtol=BUFFERS[dtype], atol=BUFFERS[dtype])


@every_net
@both_modes
@both_kernels
@both_dtypes
def test_everything_is_as_autograd_has_it(name, training, kernels, dtype, monkeypatch):
    assert_as_autograd(name, training, dtype, monkeypatch, kernels=kernels)


@every_net
@both_kernels
def test_inference_mode_shows_the_same_operators(name, kernels, monkeypatch):
    options = {"kernels": kernels, "guard": "inference"}
    assert_as_autograd(name, True, torch.float64, monkeypatch, **options)


@every_net
@pytest.mark.parametrize("keep", ["statistics", "all"])
def test_keeping_more_changes_nothing(name, keep, monkeypatch):
    assert_as_autograd(name, True, torch.float64, monkeypatch, keep=keep, lines=True, clock=True)


@every_net
def test_the_loss_under_the_tape_needs_no_graph(name):
    call, model, inputs = made(name, True)
    _, value, ours = gradients_of(call, model, inputs)
    assert not value.requires_grad
    assert not any(g.requires_grad for g in ours.values())
    assert all(p.grad is None for p in model.parameters())


def test_torchs_hardsigmoid_is_off_where_ours_is_not():
    x = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    (theirs,) = torch.autograd.grad(F.hardsigmoid(x), x)
    x = x.detach()
    _, _, ours = gradients_of(lambda model, x: F.hardsigmoid(x).sum(), None, [x])
    difference = F.hardsigmoid(x + 1e-3) - F.hardsigmoid(x - 1e-3)
    slope = float(difference) / 2e-3
    assert abs(float(ours["input0"]) - slope) < 1e-12
    assert abs(float(theirs) - slope) > 1e-10
