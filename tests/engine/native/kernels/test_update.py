"""Gradients gathered from the threads, and the optimisers' steps."""

import numpy as np
import pytest
import torch
from native_kernel import array, every_tile, kernel, like, noise, worst

from hubel.engine.native.kernels.update import FIGURES, Reduce, Update
from hubel.training.optimiser import MomentumSGD, apply_decay

COUNTS = [1, 5, 16, 37]


def reduced(spec, parts, order, count, machine):
    """The gradient from three threads' parts, gathered in two goes; and its norm is right."""
    g, norm = noise(count, seed=5), array(1, dtype=np.float64)
    norm[0] = 2.0
    call = kernel(spec, machine)
    end = count // spec.row
    for i0, i1 in ((0, end // 2), (end // 2, end)):
        call(parts, parts[0].nbytes, 3, order, g, norm, i0, i1)
    assert norm[0] - 2 == pytest.approx((g.astype(np.float64) ** 2).sum(), rel=1e-12)
    return g


@every_tile
@pytest.mark.parametrize("count", COUNTS)
def test_gradients_of_all_threads_are_added_up(count, machine):
    lanes = machine.lanes
    parts = noise(3, count, lanes)
    g = reduced(Reduce("lanes"), parts, 0, count, machine)
    assert worst(g, parts.astype(np.float64).sum((0, 2))) < 1e-5
    places = np.random.default_rng(0).permutation(count + 9)[:count]
    order = array(count, dtype=np.int32)
    order[:] = places
    parts = noise(3, count + 9, seed=1)
    g = reduced(Reduce("packed"), parts, order, count, machine)
    assert worst(g, parts.astype(np.float64).sum(0)[places]) < 1e-6


@every_tile
@pytest.mark.parametrize("row", [1, 3, 8, 21])
def test_padded_rows_lose_their_padding(row, machine):
    padded = -(-row // machine.lanes) * machine.lanes
    parts = noise(3, 4, padded)
    g = reduced(Reduce("rows", row, padded), parts, 0, 4 * row, machine)
    assert worst(g.reshape(4, row), parts.astype(np.float64).sum(0)[:, :row]) < 1e-6


@every_tile
@pytest.mark.parametrize("row", [1, 5, 16])
def test_what_is_ready_only_counts_for_the_norm(row, machine):
    g = reduced(Reduce("ready", row), noise(3, 1), 0, 3 * row, machine)
    np.testing.assert_array_equal(g, noise(3 * row, seed=5))


# ---- the optimisers


def figures(**known):
    found = array(len(FIGURES))
    for number, word in enumerate(FIGURES):
        found[number] = known.get(word, 0.0)
    return found


def stepped(update, machine, theirs, weight, *, steps=4, figures_at, clip=1.0):
    """Our weights after some steps with two threads' parts, beside those of an optimiser."""
    count = len(weight)
    w, v, s = like(weight.detach()), array(count), array(count)
    call = kernel(update, machine)
    middle = count // 3
    for step in range(steps):
        g = noise(count, seed=100 + step)
        weight.grad = torch.tensor(g, dtype=torch.float64) * clip
        theirs(step)
        for i0, i1 in ((0, middle), (middle, count)):
            call(w, g, v, s, figures_at(step), clip, i0, i1)
        assert worst(w, weight.detach()) < 1e-6 * (step + 1)
    return w


@every_tile
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("decay", ["l2", "decoupled", "none"])
@pytest.mark.parametrize("form", ["velocity", "average", "nesterov", "pytorch"])
def test_the_four_forms_of_sgd(form, decay, count, machine):
    """Against the library's own optimiser, the rate falling half way."""
    weight = torch.nn.Parameter(torch.tensor(noise(count, seed=3), dtype=torch.float64))
    theirs = MomentumSGD([{"params": [weight], "decay": 0.05}], 0.1, 0.9, form)
    rates = [0.1, 0.1, 0.02, 0.02]

    def step(number):
        theirs.param_groups[0]["lr"] = rates[number]
        if decay != "none":
            apply_decay(theirs, decay)
        theirs.step()

    stepped(
        Update(form, decay), machine, step, weight, clip=0.5,
        figures_at=lambda n: figures(rate=rates[n], momentum=0.9, decay=0.05),
    )  # fmt: skip


@every_tile
@pytest.mark.parametrize("nesterov", [False, True])
def test_pytorchs_own_sgd(nesterov, machine):
    """With a rate that stands still Sutskever's form takes PyTorch's Nesterov path."""
    weight = torch.nn.Parameter(torch.tensor(noise(21, seed=3), dtype=torch.float64))
    theirs = torch.optim.SGD([weight], 0.1, 0.9, weight_decay=0.05, nesterov=nesterov)
    stepped(
        Update("nesterov" if nesterov else "pytorch", "l2"), machine, lambda n: theirs.step(),
        weight, figures_at=lambda n: figures(rate=0.1, momentum=0.9, decay=0.05),
    )  # fmt: skip


@every_tile
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("decay", ["l2", "decoupled", "none"])
def test_adam_and_adamw(decay, count, machine):
    weight = torch.nn.Parameter(torch.tensor(noise(count, seed=3), dtype=torch.float64))
    kind = torch.optim.AdamW if decay == "decoupled" else torch.optim.Adam
    strength = 0.0 if decay == "none" else 0.05
    theirs = kind([weight], 0.01, (0.9, 0.99), 1e-6, strength)
    stepped(
        Update("adam", decay), machine, lambda n: theirs.step(), weight, clip=2.0,
        figures_at=lambda n: figures(
            rate=0.01, momentum=0.9, decay=strength, beta2=0.99, eps=1e-6,
            warm1=1 - 0.9 ** (n + 1), warm2=np.sqrt(1 - 0.99 ** (n + 1)),
        ),
    )  # fmt: skip
