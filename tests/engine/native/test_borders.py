"""Zeros around a map become the padding of the convolution behind it, and only there."""

import pytest
import torch
import torch.nn.functional as F
from native_kernel import wide_machines
from native_nets import assert_agrees, batch, seeded
from torch import nn

from hubel.engine.native.join import joined
from hubel.engine.native.read import read_graph

SHAPE = (2, 9, 11)


class Bordered(nn.Module):
    """A padded convolution behind another one, and what may follow it."""

    def __init__(self, sides, kernel=3, stride=1, padding=0, groups=1, dilation=1, behind="bare"):
        super().__init__()
        self.sides, self.first = sides, nn.Conv2d(2, 4, 3, padding=1)
        bias = behind != "norm"
        self.conv = nn.Conv2d(
            4, 8, kernel, stride, padding, groups=groups, dilation=dilation, bias=bias
        )
        self.behind = {
            "bare": nn.Sequential(),
            "norm": nn.Sequential(nn.BatchNorm2d(8), nn.Tanh()),
            "pool": nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)),
        }[behind]
        self.last = nn.LazyLinear(5)
        self(torch.zeros(2, *SHAPE))

    def forward(self, x):
        y = self.conv(F.pad(self.first(x), self.sides))
        return self.last(self.behind(y).flatten(1))


CASES = {
    "as TensorFlow pads a stride": {"sides": (0, 1, 0, 1), "stride": 2, "behind": "norm"},
    "all around": {"sides": (1, 2, 0, 3)},
    "with the convolution's own": {"sides": (1, 0, 2, 0), "padding": 1, "stride": 2},
    "before a pool": {"sides": (0, 1, 2, 1), "behind": "pool"},
    "uneven, before a pool": {"sides": (3, 0, 0, 1), "kernel": (2, 3), "behind": "pool"},
    "dilated groups": {"sides": (2, 3, 1, 4), "stride": 2, "dilation": 2, "groups": 2},
    "depthwise": {"sides": (0, 1, 0, 1), "kernel": 5, "stride": 2, "padding": 1, "groups": 4},
    "far": {"sides": (0, 6, 5, 0)},
}


@wide_machines
@pytest.mark.parametrize("case", CASES)
def test_as_autograd_has_it(case, machine):
    model = seeded(lambda: Bordered(**CASES[case]))
    assert "thin" not in kinds(model)
    assert_agrees(model, *batch(11, *SHAPE), machine=machine, threads=1)


def kinds(model):
    return [node.kind for node in joined(read_graph(model, torch.randn(2, *SHAPE))).nodes]


def test_a_crop_stays():
    assert "thin" in kinds(Bordered((-1, 0, 0, 0)))


def test_channels_of_zeros_stay():
    class Wider(Bordered):
        def forward(self, x):
            y = self.conv(F.pad(self.first(x)[:, :3], (0, 0, 0, 0, 1, 0)))
            return self.last(self.behind(y).flatten(1))

    assert kinds(Wider((0, 0, 0, 0))).count("thin") == 2


def test_a_border_that_another_reads_stays():
    class Both(Bordered):
        def forward(self, x):
            y = F.pad(self.first(x), self.sides)
            return self.last(self.behind(self.conv(y) + y[:, :1, 1:-1, 1:-1]).flatten(1))

    model = seeded(lambda: Both((1, 1, 1, 1)))
    assert "thin" in kinds(model)
    assert_agrees(model, *batch(5, *SHAPE), threads=1)


def test_a_border_before_a_pool_stays():
    """Zeros count among the largest, where a pool's own padding does not."""

    class Pooled(Bordered):
        def forward(self, x):
            y = F.max_pool2d(F.pad(self.first(x), (1, 1, 1, 1)), 3)
            return self.last(self.behind(self.conv(F.pad(y, (9, 9, 9, 9)))).flatten(1))

    model = seeded(lambda: Pooled((0, 0, 0, 0)))
    assert kinds(model).count("thin") == 1
    with torch.no_grad():
        model.first.bias.fill_(-9)  # all below zero
    assert_agrees(model, *batch(5, *SHAPE), threads=1)
