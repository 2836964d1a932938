"""Functions with a backward of their own, and those that torch writes in Python."""

import threading

import pytest
import torch
import torch.nn.functional as F
from against import (
    assert_same,
    autograds_of,
    check_against_autograd,
    every_way,
    gradients_of,
    noise,
)  # fmt: skip
from torch import nn

from hubel.engine.tape import Tape


class Reversed(torch.autograd.Function):
    """The identity whose gradient is turned round and scaled: domain adaptation does this."""

    @staticmethod
    def forward(ctx, x, strength):
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, dy):
        return -ctx.strength * dy, None


class Doubled(torch.autograd.Function):
    """Two inputs, two outputs, something saved: and a backward that is not the true slope."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w, x * 2

    @staticmethod
    def backward(ctx, dy, dz):
        x, w = ctx.saved_tensors
        return dy @ w.t() * 7 + dz.sign(), x.t() @ dy + 1


@every_way
def test_a_function_with_a_backward_of_its_own_keeps_it(kernels, guard):
    def call(model, x, w):
        return (Reversed.apply(x.sin(), 0.3) @ w).sum()

    inputs = [noise(4, 6), noise(6, 6, seed=1)]
    tape = check_against_autograd(call, inputs, kernels=kernels, guard=guard)
    assert [r.spelling for r in tape.records if r.borrowed] == ["python.Reversed"]


@every_way
def test_a_function_of_two_inputs_and_two_outputs_keeps_its_backward(kernels, guard):
    def call(model, x, w):
        y, z = Doubled.apply(x.sin(), w)
        return (y * y).sum() + (z * noise(4, 6, seed=4)).sum()

    inputs = [noise(4, 6), noise(6, 6, seed=1)]
    check_against_autograd(call, inputs, kernels=kernels, guard=guard)


bound_early = Reversed.apply  # as code that defines a function likes to name it


@every_way
def test_a_function_that_was_named_before_the_tape_keeps_its_backward(kernels, guard):
    def call(model, x, w):
        return (bound_early(x.sin(), 0.3) @ w).sum()

    inputs = [noise(4, 6), noise(6, 6, seed=1)]
    check_against_autograd(call, inputs, kernels=kernels, guard=guard)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("local_response_norm", lambda x: F.local_response_norm(x, 3)),
        ("local_response_norm", nn.LocalResponseNorm(3)),
        ("softsign", F.softsign),
        ("power_pool", lambda x: F.lp_pool2d(x, 2.0, 2)),
    ],
)
def test_functions_that_torch_writes_in_python_are_one_record(name, call):
    x = noise(2, 4, 4, 6)
    tape = check_against_autograd(lambda model, x: (call(x) ** 2).sum(), [x])
    assert tape.records[0].op.name == name


@every_way
def test_only_one_output_of_a_function_is_used(kernels, guard):
    def call(model, x, w):
        return Doubled.apply(x.sin(), w)[0].square().sum()

    inputs = [noise(4, 6), noise(6, 6, seed=1)]
    torch.manual_seed(0)
    _, _, ours = gradients_of(call, None, inputs, kernels=kernels, guard=guard)
    _, theirs, _ = autograds_of(call, None, inputs)
    assert_same(ours, theirs)


def test_what_other_threads_run_meanwhile_is_not_ours():
    """torch's hooks see modules of every thread, and its switches are the process's."""
    torch.backends.mha.set_fastpath_enabled(True)
    nets = [nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)) for _ in range(4)]
    paths, started = {}, threading.Barrier(5, timeout=60)

    def record(place):
        started.wait()
        for _ in range(40):
            with Tape(nets[place]) as tape:
                nets[place](torch.ones(2, 3))
            paths.setdefault(place, []).append([record.path for record in tape.records])

    threads = [threading.Thread(target=record, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    while any(thread.is_alive() for thread in threads):
        nn.Sequential(nn.Linear(3, 3))(torch.ones(2, 3))
    expected = [record.path for record in _records(nets[0])]
    assert set(expected) == {"0", "1", "2"}
    assert all(paths[place] == [expected] * 40 for place in range(4))
    assert torch.backends.mha.get_fastpath_enabled()


def _records(net):
    with Tape(net) as tape:
        net(torch.ones(2, 3))
    return tape.records
