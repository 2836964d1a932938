"""Times: their medians, and an end to patience."""

import math
import time

import torch
from torch import nn

from hubel.probe import times as clockwork
from hubel.probe.times import times


class Slow(nn.Module):
    def __init__(self, naps):
        super().__init__()
        self.naps = iter(naps)
        self.ran = 0

    def forward(self, x):
        self.ran += 1
        time.sleep(next(self.naps, 0.0))
        return x


def test_a_slow_pass_among_quick_ones_does_not_count():
    net = Slow([0.0, 0.0, 0.0, 0.2, 0.2, 0.0, 0.0])  # one to warm up, then pairs
    layers, whole = times(net, torch.zeros(1), 3)
    assert net.ran == 7
    assert layers[""] < 100
    assert whole < 100


def test_slow_nets_are_timed_less_often(monkeypatch):
    monkeypatch.setattr(clockwork, "PATIENCE", 0.05)
    net = Slow([0.02] * 99)
    _, whole = times(net, torch.zeros(1), 50)
    assert net.ran == 3
    assert whole >= 20


def test_without_numbers_there_is_no_time():
    layers, whole = times(nn.ReLU(), torch.zeros(1, device="meta"), 3)
    assert layers == {}
    assert math.isnan(whole)
