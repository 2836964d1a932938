"""Whole steps of small nets, one for each thing a net may do, against float64 autograd.

Smooth nets (tanh, average pooling) have no kinks: float32 may be off by rounding alone, a few units
in 1e-6. The seeds of those with ReLU and max pooling were looked at: no number comes so close to a
kink that rounding could push it over, so that they are held to the same.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from native_kernel import MACHINES
from native_nets import Wired, assert_agrees, batch, conv, pooled, seeded
from torch import nn

import hubel
from hubel.engine.native.kernels.correlate import Correlate
from hubel.engine.native.kernels.weight_gradient import WeightGradient
from hubel.engine.native.kernels.winograd_correlate import WinogradCorrelate
from hubel.engine.native.kernels.winograd_gradient import WinogradGradient
from hubel.engine.native.lower import winograd
from hubel.engine.native.machine import Machine, this_machine
from hubel.engine.native.plan import Aim
from hubel.engine.native.step import compile_step


def wired(forward, **modules):
    return lambda: Wired(forward, **{name: make() for name, make in modules.items()})


SMOOTH = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5)),
    "no bias": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5, bias=False)),
    "three layers": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(192, 33), nn.Tanh(), nn.Linear(33, 18), nn.Sigmoid(),
        nn.Linear(18, 5),
    ),
    "convolution": lambda: nn.Sequential(conv(), nn.Tanh(), nn.Flatten(), nn.Linear(256, 5)),
    "strided, dilated, grouped": lambda: nn.Sequential(
        conv(3, 6, 3, stride=2), nn.Tanh(), conv(6, 4, 3, padding=2, dilation=2, groups=2),
        nn.Tanh(), conv(4, 4, 3, groups=4), pooled(),
    ),
    "without tail": lambda: nn.Sequential(conv(), conv(4, 6), nn.Flatten(), nn.Linear(384, 5)),
    "average pooling": lambda: nn.Sequential(
        conv(), nn.Tanh(), nn.AvgPool2d(3, 2, 1), conv(4, 4),
        nn.AvgPool2d(2, count_include_pad=False), pooled(),
    ),
    "whole convolution": lambda: nn.Sequential(
        conv(), nn.Tanh(), nn.Conv2d(4, 5, 8), nn.Flatten()
    ),
    "many weights": lambda: nn.Sequential(conv(3, 20), nn.Tanh(), conv(20, 26), pooled(26)),
    "batch norm": lambda: nn.Sequential(
        conv(bias=False), nn.BatchNorm2d(4), nn.Tanh(), conv(4, 6), nn.BatchNorm2d(6), pooled(6)
    ),
    "batch norm first": lambda: nn.Sequential(nn.BatchNorm2d(3), conv(), pooled()),
    "batch norm last": lambda: nn.Sequential(
        conv(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5)
    ),
    "batch norm of features": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(192, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 5)
    ),
    "batch norm after flatten": lambda: nn.Sequential(
        conv(), nn.Tanh(), nn.Flatten(), nn.BatchNorm1d(256), nn.Linear(256, 5)
    ),
    "batch norm without weights": lambda: nn.Sequential(
        conv(), nn.BatchNorm2d(4, affine=False, momentum=0.3, eps=1e-2), pooled()
    ),
    "batch norm without statistics": lambda: nn.Sequential(
        conv(), nn.BatchNorm2d(4, track_running_stats=False), pooled()
    ),
    "two norms in a row": lambda: nn.Sequential(
        conv(), nn.BatchNorm2d(4), nn.BatchNorm2d(4), pooled()
    ),
    "activations": lambda: nn.Sequential(
        conv(), nn.SiLU(), conv(4, 4), nn.GELU(), conv(4, 4), nn.Sigmoid(), conv(4, 4), nn.ELU(),
        conv(4, 4), pooled(),
    ),
    "transposed": lambda: nn.Sequential(
        conv(3, 4, 3, stride=2), nn.Tanh(), nn.ConvTranspose2d(4, 6, 4, 2, 1), nn.Tanh(),
        nn.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=1, groups=2), pooled(),
    ),
    "transposed, dilated": lambda: nn.Sequential(
        nn.ConvTranspose2d(3, 4, 3, 3, 2, dilation=2, bias=False), nn.BatchNorm2d(4), pooled()
    ),
    "upsampled": lambda: nn.Sequential(
        conv(stride=2), nn.Upsample(scale_factor=(2, 3)), conv(4, 4), pooled()
    ),
    "residual": wired(
        lambda m, x: m.end(m.two(y := torch.tanh(m.one(x))) + y), one=conv,
        two=lambda: conv(4, 4), end=pooled,
    ),
    "residual with norms": wired(
        lambda m, x: m.end(m.a(m.one(x)) + m.b(m.two(x))),
        one=conv, two=lambda: conv(k=1), a=lambda: nn.BatchNorm2d(4),
        b=lambda: nn.BatchNorm2d(4), end=pooled,
    ),
    "norms of one map and the map": wired(
        lambda m, x: m.end((y := m.one(x)) + m.a(y) + m.b(m.two(y)) + m.c(y)),
        one=conv, two=lambda: conv(4, 4), a=lambda: nn.BatchNorm2d(4),
        b=lambda: nn.BatchNorm2d(4), c=lambda: nn.BatchNorm2d(4), end=pooled,
    ),
    "norm times a sum with it": wired(
        lambda m, x: m.end(m.a(y := m.one(x)) * (m.b(m.two(y)) + y)),
        one=conv, two=lambda: conv(4, 4), a=lambda: nn.BatchNorm2d(4),
        b=lambda: nn.BatchNorm2d(4), end=pooled,
    ),
    "a map twice": wired(
        lambda m, x: m.end((y := m.one(x)) + y - 0.5 * torch.tanh(y) * y), one=conv, end=pooled
    ),
    "one map, three readers": wired(
        lambda m, x: m.end(m.a(y := torch.tanh(m.one(x))) + m.b(y) * 2 - y / 3),
        one=conv, a=lambda: conv(4, 4), b=lambda: conv(4, 4), end=pooled,
    ),
    "the images twice": wired(
        lambda m, x: m.end(torch.cat([m.one(x), m.two(x * 0.5 + 1), x], 1)),
        one=conv, two=lambda: conv(k=5), end=lambda: pooled(11),
    ),
    "concat of one map twice": wired(
        lambda m, x: m.end(torch.cat([y := m.one(x), torch.sigmoid(y), y], 1)),
        one=conv, end=lambda: pooled(12),
    ),
    "concat after flatten": wired(
        lambda m, x: m.end(torch.cat([m.one(x).flatten(1), m.two(x).mean((2, 3))], 1)),
        one=lambda: nn.Sequential(conv(), nn.AvgPool2d(4)), two=conv, end=lambda: nn.Linear(20, 5),
    ),
    "dense block": wired(
        lambda m, x: m.end(
            torch.cat([(y := torch.cat([x, torch.tanh(m.one(x))], 1)), torch.tanh(m.two(y))], 1)
        ),
        one=conv, two=lambda: conv(7, 4), end=lambda: pooled(11),
    ),
    "option A shortcut": wired(
        lambda m, x: m.end(
            m.two(torch.tanh(y := m.one(x))) + F.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, 1, 3))
        ),
        one=conv, two=lambda: conv(4, 8, stride=2), end=lambda: pooled(8),
    ),
    "nothing read": wired(
        lambda m, x: (m.two(x), m.end(m.one(x)))[1], one=conv, two=conv, end=pooled
    ),
}  # fmt: skip


def on_machines(nets):
    """Each net on one of the machines by turns; on the others only in the slow suite."""
    found = []
    for number, (name, make) in enumerate(nets.items()):
        for other, machine in enumerate(MACHINES):
            marks = () if (number + other) % len(MACHINES) == 0 else pytest.mark.slow
            found.append(
                pytest.param(make, machine, marks=marks, id=f"{name}-{machine.lanes}lanes")
            )
    return found


@pytest.mark.parametrize(("make", "machine"), on_machines(SMOOTH))
def test_smooth_nets(make, machine):
    model = seeded(make)
    images, labels = batch(machine.lanes + 5, 3, 8, 8)
    step = assert_agrees(model, images, labels, machine=machine, threads=2, smoothing=0.1)
    assert step.parameters


KINKED = {
    "relu": lambda: nn.Sequential(conv(), nn.ReLU(), conv(4, 4), nn.ReLU(), pooled()),
    "relu, pool": lambda: nn.Sequential(
        conv(), nn.ReLU(), nn.MaxPool2d(2), conv(4, 6), nn.ReLU(), nn.MaxPool2d(2), pooled(6)
    ),
    "pool, relu": lambda: nn.Sequential(conv(), nn.MaxPool2d(2), nn.ReLU(), conv(4, 4), pooled()),
    "pool of odd": lambda: nn.Sequential(
        conv(padding=0), nn.ReLU(), nn.Conv2d(4, 4, 2), nn.ReLU(), nn.MaxPool2d(2), pooled()
    ),
    "overlapping pools": lambda: nn.Sequential(
        conv(), nn.ReLU(), nn.MaxPool2d(3, 2, 1), conv(4, 4), nn.MaxPool2d(3, 1), pooled()
    ),
    "relu before norm": lambda: nn.Sequential(conv(), nn.ReLU(), nn.BatchNorm2d(4), pooled()),
    "relu and pool before norm": lambda: nn.Sequential(
        conv(), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(4), pooled()
    ),
    "pool before norm": lambda: nn.Sequential(
        conv(), nn.MaxPool2d(2), nn.BatchNorm2d(4), pooled()
    ),
    "linear relu norm": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(192, 12), nn.ReLU(), nn.BatchNorm1d(12), nn.Linear(12, 5)
    ),
    "norm, relu": lambda: nn.Sequential(
        conv(bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), conv(4, 4), pooled()
    ),
    "bottleneck": wired(
        lambda m, x: m.end(F.relu(m.out(F.relu(m.n(m.mid(y := F.relu(m.one(x)))))) + y)),
        one=lambda: conv(3, 8, 1), mid=lambda: conv(8, 4), n=lambda: nn.BatchNorm2d(4),
        out=lambda: conv(4, 8, 1), end=lambda: pooled(8),
    ),
    "relu read twice": wired(
        lambda m, x: m.end(m.two(y := F.relu(m.one(x))) + y), one=conv,
        two=lambda: conv(4, 4), end=pooled,
    ),
    "max over the map": wired(
        lambda m, x: m.end(m.one(x).amax((2, 3))), one=conv, end=lambda: nn.Linear(4, 5)
    ),
    "mobile": lambda: nn.Sequential(
        conv(3, 8, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
        conv(8, 8, groups=8, bias=False), nn.BatchNorm2d(8), nn.Hardswish(),
        conv(8, 4, 1), nn.LeakyReLU(0.1), pooled(),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "machine"), on_machines(KINKED))
def test_nets_with_relu_and_max_pooling(make, machine):
    model = seeded(make)
    images, labels = batch(machine.lanes + 3, 3, 8, 8)
    assert_agrees(model, images, labels, machine=machine, threads=2)


PATCHED = [
    "convolution", "without tail", "many weights", "batch norm", "activations",
    "norms of one map and the map", "one map, three readers", "the images twice", "dense block",
]  # fmt: skip


@pytest.mark.parametrize("name", PATCHED)
def test_smooth_nets_with_every_convolution_in_winograds_form(name, monkeypatch):
    monkeypatch.setattr(winograd, "GAIN", math.inf)
    machine = MACHINES[len(name) % len(MACHINES)]
    images, labels = batch(machine.lanes + 5, 3, 8, 8)
    step = assert_agrees(seeded(SMOOTH[name]), images, labels, machine=machine, threads=2)
    kinds = {type(call.spec).__name__ for phase in step.plan.phases for call in phase.calls}
    assert {"WinogradCorrelate", "WinogradGradient"} <= kinds


@pytest.mark.parametrize("name", ["relu", "relu, pool", "pool of odd", "relu before norm"])
def test_kinked_nets_with_every_convolution_in_winograds_form(name, monkeypatch):
    monkeypatch.setattr(winograd, "GAIN", math.inf)
    machine = MACHINES[len(name) % len(MACHINES)]
    images, labels = batch(machine.lanes + 3, 3, 8, 8)
    assert_agrees(seeded(KINKED[name]), images, labels, machine=machine, threads=2)


def forms(net, size):
    """The patches of each convolution's kernel, as they run; 0 for the plain one."""
    step = compile_step(net, torch.zeros(2, 3, *size), aim=Aim(loss=True), number=64, threads=1)
    calls = [call.spec for phase in step.plan.phases for call in phase.calls]
    plain = (Correlate, WeightGradient)
    fast = (WinogradCorrelate, WinogradGradient)
    return [
        spec.form.patch if isinstance(spec, fast) else 0
        for spec in calls if isinstance(spec, (*plain, *fast))
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("layers", "size", "expected"),
    [
        ([(3, 4, 3)], (32, 32), [0, 0]),  # few channels: the transforms would take longer
        ([(3, 16, 3), (16, 16, 3)], (32, 32), [2, 2, 4, 4, 0]),
        ([(3, 32, 3), (32, 32, 3)], (7, 7), [0, 0, 4, 4, 0]),
        ([(3, 32, 3), (32, 32, 3)], (2, 2), [0, 0, 0, 0, 0]),  # most of a patch would be padding
        ([(3, 16, 3), (16, 24, 5)], (16, 16), [0, 2, 2, 2, 0]),
        ([(3, 32, 1), (32, 32, 1)], (16, 16), [0, 0, 0, 0, 0]),
        ([(3, 32, 3, 2), (32, 32, 3, 2)], (16, 16), [0, 0, 0, 0, 0]),
        ([(3, 280, 3), (280, 320, 3)], (8, 8), [2, 2, 2, 2, 0]),  # 4's weights would not fit
    ],
)
def test_which_convolutions_gain_by_winograds_form(monkeypatch, layers, size, expected):
    monkeypatch.setattr(Machine, "adders", True)
    body = [nn.Conv2d(i, o, k, *s, padding=k // 2) for i, o, k, *s in layers]
    assert forms(nn.Sequential(*body, pooled(layers[-1][1])), size) == expected


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([(3, 16, 3), (16, 16, 3)], [0, 0, 4, 4, 0]),
        ([(3, 32, 3), (32, 32, 3)], [0, 2, 4, 4, 0]),
    ],
)
def test_sums_cost_more_where_they_take_the_units_that_multiply(monkeypatch, layers, expected):
    monkeypatch.setattr(Machine, "adders", False)
    body = [nn.Conv2d(i, o, k, padding=k // 2) for i, o, k in layers]
    assert forms(nn.Sequential(*body, pooled(layers[-1][1])), (32, 32)) == expected


def test_scratch_is_not_shared_by_kernels_that_wait_for_other_tiles(monkeypatch):
    """A fully connected branch beside a convolution, several tiles at work together: on the way
    back its images lie in rows until all tiles have theirs; the convolution works on others."""
    monkeypatch.setattr(winograd, "GAIN", math.inf)
    net = seeded(
        wired(
            lambda m, x: (
                m.side((y := torch.tanh(m.one(x))).flatten(1)) + m.end(m.two(y).mean((2, 3)))
            ),
            one=lambda: conv(3, 8), two=lambda: conv(8, 8), side=lambda: nn.Linear(288, 5),
            end=lambda: nn.Linear(8, 5),
        )
    )  # fmt: skip
    images, labels = batch(70, 3, 6, 6)
    step = assert_agrees(net, images, labels, machine=this_machine(), threads=1)
    assert step.plan.tiles > 1


def test_twenty_layers_deep_gradients_are_where_pytorchs_float32_is():
    """resnet20 with tanh, so that no mask depends on rounding; every parameter by its own size."""
    net = seeded(lambda: _smooth(hubel.build("resnet20", classes=5)))
    images, labels = batch(32, 3, 32, 32)
    step = assert_agrees(
        net, images, labels, machine=this_machine(), threads=2, least=0.0, spare=1.5
    )
    specs = [call.spec for phase in step.plan.phases for call in phase.calls]
    assert sum(isinstance(s, (WinogradCorrelate, WinogradGradient)) for s in specs) > 40


def _smooth(net):
    for name, child in net.named_children():
        setattr(net, name, nn.Tanh()) if isinstance(child, nn.ReLU) else _smooth(child)
    return net.train()


@pytest.mark.skipif(not this_machine().half, reason="this processor does not multiply bfloat16")
def test_bfloat16_where_winograds_form_is_not_the_faster(monkeypatch):
    monkeypatch.setattr(Machine, "amx", False)
    monkeypatch.setattr(Machine, "adders", True)
    net = nn.Sequential(conv(16, 32), nn.Tanh(), conv(32, 32, stride=2), pooled(32))
    step = compile_step(
        net, torch.zeros(2, 16, 32, 32), aim=Aim(loss=True, half=True), number=64, threads=1
    )
    calls = [call.spec for phase in step.plan.phases for call in phase.calls]
    plain = [s for s in calls if isinstance(s, (Correlate, WeightGradient)) and s.rows.kernel == 3]
    assert [spec.half for spec in plain] == [True, True, True]  # the three of stride 2
    assert sum(isinstance(s, (WinogradCorrelate, WinogradGradient)) for s in calls) == 2
