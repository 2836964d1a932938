"""Outlines against the shapes and types that the operators really give."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hubel.probe.outline import outline


class Seen(TorchDispatchMode):
    """Runs on ordinary tensors, and asks for the outline of the same call on meta tensors."""

    def __init__(self):
        super().__init__()
        self.told = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        there = torch.utils._pytree.tree_map(meta, args)
        guess = outline(func, there, kwargs or {})
        first = args[0].shape if isinstance(args[0], torch.Tensor) else None
        output = func(*args, **(kwargs or {}))
        if guess is not None:
            assert isinstance(guess, tuple) == isinstance(output, tuple)
            pairs = (
                zip(guess, output, strict=True) if isinstance(guess, tuple) else [(guess, output)]
            )
            for told, real in list(pairs)[:1]:
                assert (told.shape, told.dtype) == (real.shape, real.dtype), func
                assert told.is_meta
            if func._schema.is_mutable:
                assert guess is there[0]
                assert guess.shape == first
            self.told.append(func._overloadpacket.__name__)
        return output


def meta(value):
    return value.to("meta") if isinstance(value, torch.Tensor) else value


X, ROW, WIDE = torch.rand(2, 3, 4, 5), torch.rand(3, 1, 1), torch.rand(6, 2, 3, 4, 5)
NORM = (torch.zeros(3), torch.ones(3))
CALLS = {
    "relu": lambda x: x.relu(),
    "relu_": lambda x: x.relu_(),
    "hardtanh": F.relu6,
    "sigmoid": lambda x: x.sigmoid(),
    "neg": lambda x: -x,
    "add": lambda x: x + x,
    "add_": lambda x: x.add_(ROW),
    "mul": lambda x: x * WIDE,
    "div": lambda x: x / 3,
    "pow": lambda x: x**0.75,
    "sub": lambda x: ROW - x,
    "native_batch_norm": lambda x: F.batch_norm(x, *NORM),
    "addmm": lambda x: F.linear(x[0, 0], torch.rand(7, 5), torch.rand(7)),
    "mean": lambda x: x.mean((2, 3)),
    "cat": lambda x: torch.cat([x, x[:, :2]], 1),
}


@pytest.mark.parametrize(("name", "call"), CALLS.items())
def test_shapes_and_types_are_the_real_ones(name, call):
    with Seen() as seen, torch.no_grad():
        call(X.clone())
    assert name in seen.told


@pytest.mark.parametrize("axes", [0, (-1, 1), None])
@pytest.mark.parametrize("keep", [True, False])
def test_means_over_other_axes(axes, keep):
    with Seen() as seen:
        X.mean(axes, keepdim=keep)
    assert seen.told == ["mean"]


ODD = {
    "types that mix": lambda x: x.half() + x,
    "whole numbers": lambda x: x.int() + 1.5,
    "a mean in another type": lambda x: x.mean(1, dtype=torch.float64),
    "types that mix, joined": lambda x: torch.cat([x, x.double()]),
    "the old empty tensor, joined": lambda x: torch.cat([torch.zeros(0), x]),
    "axis from behind, joined": lambda x: torch.cat([x, x], -1),
}


@pytest.mark.parametrize("call", ODD.values(), ids=ODD)
def test_where_it_is_less_plain_the_answer_is_right_or_left_to_torch(call):
    with Seen():
        call(X)


def test_it_says_nothing_of_tensors_with_numbers():
    assert outline(torch.ops.aten.relu.default, (X,), {}) is None
