"""Fused programs, forward and back, against the same lines in PyTorch; and dropout's chance."""

import numpy as np
import pytest
import torch
from native_kernel import MACHINES, array, every_tile, kernel, like, noise, wide, worst

from hubel.engine.native.kernels.pointwise import (
    Pointwise,
    PointwiseBack,
    gradient_lines,
    leaves,
    operands,
)

VERBS = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "relu": torch.relu,
    "tanh": torch.tanh, "sigmoid": torch.sigmoid, "linear": lambda x, a, b: a * x + b,
}  # fmt: skip
PROGRAMS = {
    "leaf": (("leaf", 0),),
    "norm": (("norm", 0),),
    "norm, relu": (("norm", 0), ("relu", 0)),
    "residual": (("norm", 0), ("leaf", 1), ("add", 0, 1), ("relu", 2)),
    "two norms": (("norm", 0), ("norm", 1), ("add", 0, 1), ("tanh", 2)),
    "difference": (("leaf", 0), ("leaf", 1), ("sub", 0, 1)),
    "gate": (("leaf", 0), ("norm", 1), ("sigmoid", 1), ("mul", 0, 2)),
    "sum of three": (("leaf", 0), ("leaf", 1), ("add", 0, 1), ("norm", 2), ("add", 2, 3)),
    "deep": (
        ("norm", 0), ("leaf", 1), ("mul", 0, 1), ("linear", 2, -2.0, 0.5), ("leaf", 2),
        ("sub", 3, 4), ("tanh", 5), ("leaf", 3), ("add", 6, 7), ("sigmoid", 8),
    ),
}  # fmt: skip
each_program = pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())


def material(program, channels, rows, row, machine):
    """Maps and, for the norms, their rows of figures: scale, shift, mean, 1 / std."""
    maps = [noise(channels, rows, row, machine.lanes, seed=n) for n in range(len(leaves(program)))]
    figures = [noise(4, channels, seed=20 + n) for n in range(len(maps))]
    given = []
    for line in leaves(program):
        given.append(maps[line[1]])
        if line[0] == "norm":
            given.append(figures[line[1]])
    return maps, figures, given


def every_line(program, maps, figures):
    """Each line's value by PyTorch, with its gradient kept."""
    values = []
    for verb, *rest in program:
        if verb in ("leaf", "norm"):
            value = torch.tensor(maps[rest[0]], dtype=torch.float64)
            if verb == "norm":
                f = torch.tensor(figures[rest[0]], dtype=torch.float64)[..., None, None, None]
                value = value * f[0] + f[1]
            value.requires_grad_()
        else:
            count = 2 if verb in ("add", "sub", "mul") else 1
            value = VERBS[verb](*[values[n] for n in rest[:count]], *rest[count:])
        value.retain_grad()
        values.append(value)
    return values


@every_tile
@each_program
@pytest.mark.parametrize("shape", [(3, 2, 4), (2, 5, 3), (4, 3, 5), (1, 1, 1)])
def test_forward_and_back(program, shape, machine):
    maps, figures, given = material(program, *shape, machine)
    values = every_line(program, maps, figures)
    forward = Pointwise(*shape, program)
    y, rows = array(*shape, machine.lanes), shape[1]
    for r0, r1 in ((0, rows // 2), (rows // 2, rows)):
        kernel(forward, machine)(y, 0, 0, *given, r0, r1)
    assert worst(y, values[-1].detach()) < 2e-6
    dy = noise(*y.shape, seed=50)
    values[-1].backward(torch.tensor(dy, dtype=torch.float64))
    lines = sorted(set(gradient_lines(program).values()))
    outs = [noise(*y.shape, seed=60 + line) for line in lines]
    spec = PointwiseBack(forward, tuple(lines))
    sums = [wide(noise(shape[0], 2, machine.lanes, seed=70 + n)) for n in spec.norms]
    sums_before = [s.copy() for s in sums]
    for r0, r1 in ((0, rows // 2), (rows // 2, rows)):
        kernel(spec, machine)(dy, 0, 0, *given, *outs, *sums, r0, r1)
    for out, line in zip(outs, lines, strict=True):
        # few numbers may all be what is left of larger ones
        assert worst(out, values[line].grad) < (3e-6 if out.size > 4 else 1e-5)
    for line, ours, before in zip(spec.norms, sums, sums_before, strict=True):
        leaf = program[line][1]
        d = values[line].grad.numpy()
        raw = maps[leaf] - figures[leaf][2][:, None, None, None].astype(np.float64)
        exact = np.stack([d.sum((1, 2)), (d * raw).sum((1, 2))], 1) + before
        assert worst(ours, exact) < 5e-6


@each_program
def test_a_leafs_gradient_may_be_taken_where_a_sum_handed_it_down(program):
    maps, figures, _ = material(program, 2, 2, 2, MACHINES[0])
    values = every_line(program, maps, figures)
    values[-1].backward(torch.randn_like(values[-1]))
    holders = gradient_lines(program)
    assert set(holders) == {n for n, line in enumerate(program) if line[0] in ("leaf", "norm")}
    for leaf, holder in holders.items():
        torch.testing.assert_close(values[leaf].grad, values[holder].grad)


def test_residual_sums_share_one_gradient():
    program = PROGRAMS["residual"]
    holders = gradient_lines(program)
    assert holders[0] == holders[1]
    assert operands(program[2]) == (0, 1)
    assert operands(program[3]) == (2,)
    assert operands(program[0]) == ()


# ---- dropout


def kept(machine, *, p=0.3, layer=7, seed=1, first=0, size=256, tiles=1):
    """Which of `size` numbers each of the images from `first` on keeps: (tiles lanes, size)."""
    x = like(np.ones((1, 1, size, machine.lanes)))
    spec = Pointwise(1, 1, size, (("leaf", 0), ("dropout", 0, p, layer)))
    found = []
    for tile in range(tiles):
        y = array(*x.shape)
        kernel(spec, machine)(y, seed, first + tile * machine.lanes, x, 0, 1)
        found.append(y[0, 0].T.copy())
    return np.concatenate(found)


@every_tile
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_kept_and_what_it_is_multiplied_by(p, machine):
    y = kept(machine, p=p, size=1024, tiles=64 // machine.lanes)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / (1 - p))}
    count = y.size
    assert abs((y > 0).mean() - (1 - p)) < 4 * np.sqrt(p * (1 - p) / count)
    for axis in (0, 1):  # as even for each image and for each place
        means = (y > 0).mean(axis)
        spread = np.sqrt(p * (1 - p) / y.shape[axis])
        assert abs(means - (1 - p)).max() < 5.5 * spread


def test_chance_is_the_same_on_every_tile_and_however_the_batch_is_cut():
    masks = [kept(m, tiles=32 // m.lanes) for m in MACHINES]
    for other in masks[1:]:
        np.testing.assert_array_equal(masks[0], other)
    small = MACHINES[-1]
    later = kept(small, first=small.lanes)
    np.testing.assert_array_equal(later, masks[0][small.lanes : 2 * small.lanes])


def test_seed_layer_and_image_each_change_the_mask():
    machine = MACHINES[0]
    base = kept(machine) > 0
    np.testing.assert_array_equal(base, kept(machine) > 0)
    for other in (kept(machine, seed=2), kept(machine, layer=8), kept(machine, first=16)):
        agree = (base == (other > 0)).mean()
        independent = 0.7**2 + 0.3**2
        assert abs(agree - independent) < 5 * np.sqrt(0.25 / base.size)
    images = (base[:, None] == base[None]).mean(-1)[np.triu_indices(machine.lanes, 1)]
    assert images.max() < 0.9  # no two images have one mask


@every_tile
def test_the_way_back_drops_what_the_way_there_dropped(machine):
    x, dy = noise(2, 3, 4, machine.lanes), noise(2, 3, 4, machine.lanes, seed=1)
    x[np.abs(x) < 0.01] = 1.0
    program = (("leaf", 0), ("dropout", 0, 0.4, 3))
    spec = Pointwise(2, 3, 4, program)
    y, dx = array(*x.shape), array(*x.shape)
    kernel(spec, machine)(y, 11, 32, x, 0, 3)
    for r0, r1 in ((0, 1), (1, 3)):
        kernel(PointwiseBack(spec, (0,)), machine)(dy, 11, 32, x, dx, r0, r1)
    np.testing.assert_allclose(dx, dy * (y / x), rtol=1e-5)
    assert 0 < (y == 0).mean() < 1


@every_tile
def test_dropping_all_or_nothing(machine):
    assert not kept(machine, p=1.0).any()
    assert (kept(machine, p=0.0) == 1).all()
