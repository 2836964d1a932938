"""Our gradients held against torch's autograd, for a function of tensors or a whole model."""

import contextlib
import copy

import pytest
import torch
from torch import nn

from hubel.engine.backprop import backpropagate
from hubel.engine.tape import Tape

WAYS = [(kernels, guard) for kernels in ("math", "torch") for guard in ("below", "inference")]
every_way = pytest.mark.parametrize(("kernels", "guard"), WAYS)


def noise(*shape, seed=0):
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=chance, dtype=torch.float64)


def double(model):
    torch.manual_seed(3)
    for p in model.parameters():
        nn.init.normal_(p, std=0.4)
    return model.double()


def with_backward(op, wrong):
    """An operator whose gradients are `wrong(gradients, dy, saved)`."""

    def backward(dy, saved):
        return wrong(list(op.backward(dy, saved)), dy, saved)

    return type(f"Faulty{op.name}", (op,), {"backward": staticmethod(backward)})


def largest_error(ours, theirs, floor=0.0):
    """Largest deviation over the largest element; `floor` keeps a true zero from counting."""
    scale = max(float(theirs.abs().max()), floor, 1e-300)
    return float((ours - theirs).abs().max()) / scale


def gradients_of(call, model, inputs, **options):
    """The tape of `call(model, *inputs)`, its value and the gradients of all that is watched."""
    watch = {f"input{i}": t for i, t in enumerate(inputs) if t.is_floating_point()}
    with Tape(model, watch=watch, **options) as tape:
        value = call(model, *inputs)
    return tape, value, backpropagate(tape, value)


def autograds_of(call, model, inputs, *, overwrites=False):
    """Value and gradients by torch, of copies of the model and of the inputs; and the copy.

    Args:
        overwrites: what autograd saved is copied before it is overwritten, as the tape does:
            without that torch refuses to go back.
    """
    model = copy.deepcopy(model)
    leaves = [t.clone().requires_grad_(t.is_floating_point()) for t in inputs]
    named = {f"input{i}": t for i, t in enumerate(leaves) if t.requires_grad}
    if model is not None:
        named |= {n: p for n, p in model.named_parameters() if p.requires_grad}
    with contextlib.ExitStack() as stack:
        if overwrites:
            stack.enter_context(torch.autograd.graph.allow_mutation_on_saved_tensors())
        value = call(model, *leaves)
        value.backward()
    return value.detach(), {name: t.grad for name, t in named.items()}, model


def assert_same(ours, theirs, tolerance=1e-10, floor=0.0):
    """Every gradient of `theirs` is in `ours`; where autograd has none, ours is absent or zero."""
    assert ours.keys() <= theirs.keys()
    for name, expected in theirs.items():
        if expected is None:
            assert name not in ours or not ours[name].any(), name
        else:
            got = ours.get(name, torch.zeros_like(expected))
            assert got.shape == expected.shape
            assert largest_error(got, expected, floor) <= tolerance, name


def check_against_autograd(
    call, inputs, model=None, *, seed=0, tolerance=1e-10, overwrites=False, **options
):
    """Run `call(model, *inputs)` both ways from the same random numbers; returns the tape."""
    torch.manual_seed(seed)
    expected, theirs, _ = autograds_of(call, model, inputs, overwrites=overwrites)
    torch.manual_seed(seed)
    tape, value, ours = gradients_of(call, model, [t.clone() for t in inputs], **options)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    assert_same(ours, theirs, tolerance)
    return tape
