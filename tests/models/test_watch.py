"""Watching leaves no trace, not even after an error."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from hubel.models.watch import is_leaf, tensors, untouched, watch


class Restless(nn.Module):
    """Changes all it can while it runs."""

    def __init__(self, fails=False):
        super().__init__()
        self.norm = nn.BatchNorm2d(2)
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("none", None)
        self.fails = fails

    def forward(self, x):
        self.seen += 1
        self.seen = self.seen * torch.rand(1)  # another tensor under the same name
        random.random()
        np.random.rand()  # noqa: NPY002
        self.norm.eval()
        if self.fails:
            raise RuntimeError("as planned")
        return self.norm(x)


def state_of(model):
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [module.training for module in model.modules()],
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
    )


def same(one, other):
    weights = all(other[0][name].equal(value) for name, value in one[0].items())
    return weights and one[1] == other[1] and one[2].equal(other[2]) and one[3:] == other[3:]


def look(model, training):
    with untouched(model, training=training), watch(model, enter=ignore, leave=ignore):
        model(torch.randn(4, 2, 3, 3))


def ignore(*what):
    pass


@pytest.mark.parametrize("training", [None, True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_as_before(training, fails):
    model = Restless(fails)
    model.norm.eval()  # a mode of its own, unlike its parent's
    seen = model.seen
    before = state_of(model)
    if fails:
        with pytest.raises(RuntimeError, match="as planned"):
            look(model, training)
    else:
        look(model, training)
    assert same(before, state_of(model))
    assert model.seen is seen


def test_the_same_run_without_protection_does_leave_traces():
    model = Restless()
    before = state_of(model)
    model(torch.randn(4, 2, 3, 3))
    assert not same(before, state_of(model))


def test_tells_in_order_with_inputs_and_outputs():
    inner = nn.Sequential(nn.ReLU(), nn.Flatten())
    model = nn.Sequential(inner, nn.Linear(4, 1))
    told = []
    with watch(
        model,
        enter=lambda path, module, inputs: told.append(("enter", path)),
        leave=lambda path, module, inputs, output: told.append(("leave", path, output.shape)),
    ):
        model(torch.ones(2, 2, 2))
    assert told == [
        ("enter", ""),
        ("enter", "0"),
        ("enter", "0.0"),
        ("leave", "0.0", (2, 2, 2)),
        ("enter", "0.1"),
        ("leave", "0.1", (2, 4)),
        ("leave", "0", (2, 4)),
        ("enter", "1"),
        ("leave", "1", (2, 1)),
        ("leave", "", (2, 1)),
    ]


def test_tensors_are_found_in_any_nest_and_leaves_are_leaves():
    a, b, c = (torch.tensor(float(n)) for n in range(3))
    assert [t.item() for t in tensors({"x": a, "y": [b, (c, "no")], "z": None})] == [0.0, 1.0, 2.0]
    assert is_leaf(nn.ReLU())
    assert not is_leaf(nn.Sequential(nn.ReLU()))
