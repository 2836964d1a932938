"""Optimisers against torch's own, against the formula by hand, and decay where it belongs."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from hubel.training.optimiser import (
    DiagonalLM,
    MomentumSGD,
    apply_decay,
    build_optimiser,
    set_rate,
)
from hubel.training.plan import Optimiser


def walk(optimiser, weights, steps=5, rates=None):
    """Follow a fixed series of gradients; the weights after it, as one float64 tensor."""
    draw = torch.Generator().manual_seed(0)
    for step in range(steps):
        if rates is not None:
            set_rate(optimiser, rates[step])
        for w in weights:
            w.grad = torch.randn(w.shape, generator=draw, dtype=w.dtype)
        optimiser.step()
    return torch.cat([w.detach().flatten() for w in weights])


def fresh():
    draw = torch.Generator().manual_seed(1)
    return [
        nn.Parameter(torch.randn(s, generator=draw, dtype=torch.float64)) for s in [(3, 2), (5,)]
    ]


@pytest.mark.parametrize(("form", "nesterov"), [("pytorch", False), ("nesterov", True)])
def test_constant_rate_equals_torch_sgd(form, nesterov):
    ours, theirs = fresh(), fresh()
    found = walk(MomentumSGD(ours, 0.1, 0.9, form), ours)
    expected = walk(torch.optim.SGD(theirs, 0.1, momentum=0.9, nesterov=nesterov), theirs)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_velocity_equals_pytorch_form_until_the_rate_changes():
    ours, theirs = fresh(), fresh()
    same = [
        walk(MomentumSGD(w, 0.1, 0.9, f), w) for w, f in ((ours, "velocity"), (theirs, "pytorch"))
    ]
    torch.testing.assert_close(same[0], same[1], rtol=1e-12, atol=1e-14)
    ours, theirs = fresh(), fresh()
    rates = [0.1, 0.1, 0.1, 0.01, 0.01]
    other = [
        walk(MomentumSGD(w, 0.1, 0.9, f), w, rates=rates)
        for w, f in ((ours, "velocity"), (theirs, "pytorch"))
    ]
    assert (other[0] - other[1]).abs().max() > 0.01


def test_pytorch_form_follows_torch_through_a_rate_change():
    ours, theirs = fresh(), fresh()
    rates = [0.1, 0.1, 0.01, 0.01, 0.5]
    found = walk(MomentumSGD(ours, 0.1, 0.9, "pytorch"), ours, rates=rates)
    expected = walk(torch.optim.SGD(theirs, 0.1, momentum=0.9), theirs, rates=rates)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_moving_average_by_hand():
    """mu = 0.5, lr = 1, gradients 4, 2: m = 2, 2; w = 0 - 2 - 2."""
    w = nn.Parameter(torch.zeros(1))
    optimiser = MomentumSGD([w], 1.0, 0.5, "average")
    for gradient, expected in ((4.0, -2.0), (2.0, -4.0)):
        w.grad = torch.tensor([gradient])
        optimiser.step()
        assert w.item() == expected


def test_velocity_by_hand_across_a_rate_change():
    """mu = 0.5: v = -0.1*4 = -0.4, w = -0.4; then lr 0.01: v = -0.2 - 0.02 = -0.22, w = -0.62."""
    w = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimiser = MomentumSGD([w], 0.1, 0.5, "velocity")
    for rate, gradient in ((0.1, 4.0), (0.01, 2.0)):
        set_rate(optimiser, rate)
        w.grad = torch.tensor([gradient], dtype=torch.float64)
        optimiser.step()
    assert w.item() == pytest.approx(-0.62, abs=1e-12)


def test_sdlm_by_hand():
    """lr 0.1, mu 0.5: rates 0.1 / (0.5 + h) = 0.2, 0.1 and 0.025 for h = 0, 0.5 and 3.5."""
    w = nn.Parameter(torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64))
    optimiser = DiagonalLM([w], 0.1, 0.5)
    optimiser.measured({w: torch.tensor([0.0, 0.5, 3.5], dtype=torch.float64)})
    w.grad = torch.tensor([1.0, -2.0, 4.0], dtype=torch.float64)
    optimiser.step()
    assert w.tolist() == pytest.approx([0.8, 1.2, 0.9], abs=1e-12)
    optimiser.param_groups[0]["lr"] = 0.2
    optimiser.step()
    assert w.tolist() == pytest.approx([0.4, 1.6, 0.7], abs=1e-12)


def test_sdlm_reaches_the_bottom_of_a_bowl_in_one_step_where_sgd_does_not():
    """On a diagonal quadratic with the true h, no mu and rate 1 it is Newton's method."""
    bends = torch.tensor([0.01, 1.0, 100.0], dtype=torch.float64)
    w = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimiser = DiagonalLM([w], 1.0, 1e-300)
    optimiser.measured({w: bends})
    (bends * w * w / 2).sum().backward()
    optimiser.step()
    assert w.abs().max() < 1e-12


def test_sdlm_keeps_its_curvature_in_its_state():
    """What `State.export` reads and `State.restore` puts back."""
    ours, theirs = fresh(), fresh()
    one, other = DiagonalLM(ours, 0.1), DiagonalLM(theirs, 0.1)
    one.measured({w: torch.rand_like(w) for w in ours})
    other.load_state_dict(one.state_dict())
    assert walk(one, ours).equal(walk(other, theirs))


def test_sdlm_is_built_by_the_plan():
    net = nn.Linear(3, 2)
    optimiser = build_optimiser(net, Optimiser(name="sdlm", lr=0.1, mu=0.3))
    assert isinstance(optimiser, DiagonalLM)
    assert {group["mu"] for group in optimiser.param_groups} == {0.3}


def test_parameters_without_gradient_stand_still():
    w, idle = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimiser = MomentumSGD([w, idle], 0.1)
    w.grad = torch.ones(2)
    optimiser.step()
    assert idle.equal(torch.ones(2))
    assert not w.equal(torch.ones(2))


def test_decay_spares_biases_and_norms_unless_asked():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    optimiser = build_optimiser(net, Optimiser(weight_decay=0.1))
    groups = {group["decay"]: group["params"] for group in optimiser.param_groups}
    assert [p.ndim for p in groups[0.1]] == [4, 2]
    assert all(p.ndim == 1 for p in groups[0.0])
    assert len(groups[0.0]) == 4
    everything = build_optimiser(net, Optimiser(weight_decay=0.1, decay_all=True))
    assert [g["decay"] for g in everything.param_groups] == [0.1]


TORCH = {
    "adam": lambda w: torch.optim.Adam(w, 0.01, weight_decay=0.1),
    "adamw": lambda w: torch.optim.AdamW(w, 0.01, weight_decay=0.1),
    "adagrad": lambda w: torch.optim.Adagrad(w, 0.01, eps=1e-8, weight_decay=0.1),
    "rmsprop": lambda w: torch.optim.RMSprop(w, 0.01, alpha=0.999, momentum=0.9, weight_decay=0.1),
}


@pytest.mark.parametrize("name", TORCH)
def test_decay_equals_torch(name):
    """L2 in the gradient for all, and AdamW's decoupled form, against torch's own weight_decay."""
    ours, theirs = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
    theirs.load_state_dict(ours.state_dict())
    plan = Optimiser(name=name, lr=0.01, weight_decay=0.1, decay_all=True)
    optimiser, oracle = build_optimiser(ours, plan), TORCH[name](theirs.parameters())
    draw = torch.Generator().manual_seed(2)
    for _ in range(4):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.grad = torch.randn(a.shape, generator=draw, dtype=a.dtype)
            b.grad = a.grad.clone()
        apply_decay(optimiser, "decoupled" if name == "adamw" else "l2")
        optimiser.step()
        oracle.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_decoupled_decay_by_hand():
    """w = 2, lr = 0.5, decay = 0.1, no gradient: w <- 2 (1 - 0.05) = 1.9."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 2.0)
    optimiser = build_optimiser(net, Optimiser(lr=0.5, weight_decay=0.1, decay="decoupled"))
    net.weight.grad = torch.zeros(1, 1)
    apply_decay(optimiser, "decoupled")
    assert net.weight.item() == pytest.approx(1.9)


def test_a_training_begins_without_pytorchs_compiler():
    """PyTorch imports it for its own optimisers and for deterministic kernels: over a second."""
    script = (
        "import sys, torch\n"
        "from hubel.training.optimiser import build_optimiser\n"
        "from hubel.training.plan import Optimiser\n"
        "from hubel.training.repeat import repeatable\n"
        "with repeatable():\n"
        "    for name in ('sgd', 'adam', 'adagrad', 'rmsprop', 'sdlm'):\n"
        "        build_optimiser(torch.nn.Linear(2, 2), Optimiser(name=name)).zero_grad()\n"
        "sys.exit({'torch._dynamo', 'torch._inductor'} & sys.modules.keys() and 'imported' or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
