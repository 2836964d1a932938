"""Choosing how steps run: the faster way wins, small gains do not, words say what was tried."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hubel.training import speed
from hubel.training.speed import Choice, measure


@pytest.fixture
def batch():
    return torch.randn(4, 1, 8, 8), torch.randint(0, 3, (4,))


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def timed(monkeypatch, milliseconds):
    """Make the stopwatch read what the test says, by (precision, channels_last, compile)."""

    def read(runners, *rest):
        return {
            way: milliseconds[
                ("native", way.precision) if way.native else (way.precision, *layout(way))
            ]
            / 1e3
            for way in runners
        }

    monkeypatch.setattr(speed, "_alternate", read)


def layout(way):
    return way.channels_last, way.compile


BASE = {
    ("fp32", False, False): 10.0,
    ("fp32", True, False): 9.9,
    ("bf16", False, False): 9.5,
    ("bf16", True, False): 9.5,
}


@pytest.mark.parametrize(
    ("times", "precision", "expected"),
    [
        ({}, "auto", ("fp32", False)),  # gains within the noise are none
        ({("fp32", True, False): 8.0}, "auto", ("fp32", True)),
        ({("bf16", True, False): 6.0}, "auto", ("bf16", True)),
        ({("bf16", False, False): 8.0, ("bf16", True, False): 6.0}, "auto", ("bf16", True)),
        ({("bf16", True, False): 6.0}, "fp32", ("fp32", False)),
        ({("bf16", True, False): 6.0}, "bf16", ("bf16", True)),
        ({("fp32", True, False): 5.0, ("bf16", True, False): 4.8}, "auto", ("fp32", True)),
    ],
)
def test_choice_follows_the_times(monkeypatch, net, batch, times, precision, expected):
    timed(monkeypatch, {**BASE, **times})
    loss = F.cross_entropy
    found = measure(net, *batch, loss, precision=precision, steps=10, compiler=False)
    assert (found.precision, found.channels_last) == expected
    assert not found.compile
    assert "ms a step" in found.why


@pytest.mark.parametrize(
    ("times", "native"),
    [
        ({("native", "fp32"): 5.0}, "fp32"),
        ({("native", "fp32"): 9.7}, None),  # within the noise
        ({("native", "fp32"): 5.0, ("fp32", True, False): 4.9}, None),
        (
            {("native", "fp32"): 5.0, ("bf16", True, False): 4.9},
            "fp32",
        ),  # fewer digits must buy more
        ({("native", "fp32"): 5.0, ("bf16", True, False): 4.0}, None),
        ({("native", "fp32"): 5.0, ("native", "bf16"): 3.0}, "bf16"),
        ({("native", "fp32"): 5.0, ("native", "bf16"): 4.9}, "fp32"),
    ],
)
def test_the_native_step_wins_where_it_is_faster(monkeypatch, net, batch, times, native):
    never = {("native", p): 99.0 for p in ("fp32", "bf16")}
    timed(monkeypatch, {**BASE, **never, **times})
    words = {"precision": "auto", "steps": 1_000_000, "compiler": False, "native_bf16": True}
    found = measure(net, *batch, F.cross_entropy, native=lambda *_: lambda: None, **words)
    assert (found.precision if found.native else None) == native
    assert ("native step" in found.why.split(";")[0]) == bool(native)


def test_compiling_is_tried_only_where_it_can_pay(monkeypatch, net, batch):
    times = {**BASE, ("fp32", False, True): 5.0}
    timed(monkeypatch, times)
    words = {"precision": "fp32", "compiler": True}
    assert not measure(net, *batch, F.cross_entropy, steps=1000, **words).compile
    chosen = measure(net, *batch, F.cross_entropy, steps=1_000_000, **words)
    assert chosen.compile
    assert "torch.compile 5.0 ms" in chosen.why
    timed(monkeypatch, {**times, ("fp32", False, True): 9.9})
    assert not measure(net, *batch, F.cross_entropy, steps=1_000_000, **words).compile


def test_measuring_for_real_leaves_the_model_as_it_was(net, batch):
    before = {name: t.clone() for name, t in net.state_dict().items()}
    found = measure(net, *batch, F.cross_entropy, precision="auto", steps=10)
    assert found.precision in ("fp32", "bf16")
    assert all(t.equal(before[name]) for name, t in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert net[0].weight.is_contiguous()


def test_prepare_and_layout():
    images = torch.randn(2, 3, 8, 8)
    choice = Choice(channels_last=True)
    assert choice.layout(images).is_contiguous(memory_format=torch.channels_last)
    assert Choice().layout(images) is images
    conv = choice.prepare(nn.Conv2d(3, 4, 3))
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_json_round_trip():
    choice = Choice("bf16", True, False, "because")
    assert Choice(**choice.to_json()) == choice


@pytest.mark.parametrize(("seconds", "calls"), [(0.01, 7), (2.0, 3)])
def test_long_steps_are_measured_less_often(monkeypatch, seconds, calls):
    clock = [0.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    counts = {Choice(): 0, Choice(channels_last=True): 0}

    def runner(way):
        def step():
            counts[way] += 1
            clock[0] += seconds * (2 if way.channels_last else 1)

        return step

    found = speed._alternate({way: runner(way) for way in counts}, seconds=0.05)
    assert set(counts.values()) == {calls}
    assert list(found.values()) == pytest.approx([seconds, 2 * seconds])
