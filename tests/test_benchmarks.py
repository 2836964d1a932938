"""The benchmarks' own arithmetic, and that every script starts. Nothing is measured here."""

import importlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import hubel
from hubel.data.record import ArraySource

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = (
    "accuracy", "augment", "cifar", "explicit", "first_run", "memory", "native", "overhead",
    "peers", "photos", "rounding", "segmentation", "startup", "to_99", "transfer", "zoo",
)  # fmt: skip


@pytest.fixture
def load(monkeypatch):
    """Imports a file of benchmarks/ or benchmarks/contenders/, for one test."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.syspath_prepend(str(BENCHMARKS / "contenders"))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def common(load):
    return load("common")


def squares(count=60):
    """Dark and light squares, two thirds of them to train on."""
    targets = np.arange(count) % 2
    images = np.full((count, 1, 28, 28), 40, np.uint8)
    images[targets == 1] += 120
    images += np.random.default_rng(0).integers(0, 40, images.shape, dtype=np.uint8)
    parts = np.where(np.arange(count) % 3 == 2, "test", "train")
    return ArraySource(images, targets, ["dark", "light"], name="squares", origin="", parts=parts)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_explains_itself(load, capsys, name):
    with pytest.raises(SystemExit) as end:
        load(name).main(["--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "--results" in said
    assert load(name).__doc__.splitlines()[0] in said


def test_every_script_stands_in_the_readme():
    text = (BENCHMARKS / "README.md").read_text()
    assert [name for name in SCRIPTS if f"`{name}.py`" not in text] == []
    assert {path.stem for path in BENCHMARKS.glob("*.py")} == {*SCRIPTS, "common", "roof"}


def test_contenders_take_turns_and_none_always_goes_first(common):
    heard = []
    runs = {name: lambda name=name: heard.append(name) or len(heard) for name in "abc"}
    found = common.in_turns(runs, 3)
    assert "".join(heard) == "abcbcacab"
    assert found == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}


def test_a_summary_by_hand(common):
    found = common.summary([4, 1, 10, 2, 3])
    assert found == {
        "median": 3, "mean": 4, "low": 1, "high": 10, "spread": 3, "raw": [4, 1, 10, 2, 3],
    }  # fmt: skip
    assert common.shown(found, ".1f") == "3.0 (1.0 to 10.0)"


def test_ratios_are_taken_round_by_round(common):
    """In a slow second round both sides halve: the ratio stays what it was."""
    found = common.ratio([200, 100, 200], [100, 50, 100])
    assert found["raw"] == [2, 2, 2]
    assert found["spread"] == 0
    with pytest.raises(ValueError, match="shorter"):
        common.ratio([1, 2], [1])


def test_a_command_names_no_folders_of_the_machine(common):
    words = ["/home/someone/hubel/benchmarks/peers.py", "--cifar", "/data/of mine", "--rounds", "2"]
    told = common.command(words)
    assert told == "python benchmarks/peers.py --cifar '.../of mine' --rounds 2"


def test_what_is_written(common, tmp_path, capsys):
    common.write(tmp_path / "new", "some", {"seconds": common.summary([1.5])}, ["numpy", "nothing"])
    record = json.loads((tmp_path / "new" / "some.json").read_text())
    assert record["seconds"]["raw"] == [1.5]
    assert {"cpu", "cores", "threads", "load_before"} <= record["machine"].keys()
    assert record["versions"]["numpy"] == np.__version__
    assert record["versions"]["nothing"] == "not installed"
    assert record["date"].startswith("20")
    assert record["command"].startswith("python benchmarks/")
    assert "some.json" in capsys.readouterr().out


def test_a_cut_keeps_the_parts(common):
    found = common.cut(squares(), 5)
    assert [len(found.rows(part)) for part in ("train", "test")] == [5, 5]
    assert np.array_equal(found.images[5], squares().images[squares().rows("test")[0]])


def test_npm_is_asked_for_nothing_that_is_there(common, monkeypatch, tmp_path):
    monkeypatch.setenv("HUBEL_BENCHMARK_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    (tmp_path / "some-1.2").mkdir()
    assert common.npm_package("some", "1.2") == tmp_path / "some-1.2"
    with pytest.raises(SystemExit, match="npm is not on this machine"):
        common.npm_package("some", "1.3")


def test_the_meter_counts_after_the_warm_up(load, monkeypatch):
    """A step takes 0.5 s from the first one on: the 20th, after 10 s, ends the warm-up."""
    meter = load("meter")
    now = iter(np.arange(0, 100, 0.5))
    monkeypatch.setattr(meter.time, "perf_counter", lambda: next(now))
    count = meter.Meter(seconds=2)
    heard = [count(64) for _ in range(24)]
    assert heard == [False] * 23 + [True]
    assert (count.images, count.seconds) == (4 * 64, 2)


@pytest.mark.parametrize(("name", "channels", "side"), [("lenet5", 1, 28), ("resnet20", 3, 32)])
def test_the_peers_nets_are_hubels(load, name, channels, side):
    nets = load("nets")
    ours = hubel.build(name, classes=10, channels=channels, size=(side, side))
    shapes = [
        sorted(tuple(p.shape) for p in net.parameters())
        for net in (ours, nets.build(name, channels, side))
    ]
    assert shapes[0] == shapes[1]


def test_the_bare_loop_learns(load):
    overhead = load("overhead")
    torch.manual_seed(0)
    case = overhead.Case("lenet5", batch=8, rate=0.01, epochs=6)
    found = overhead.bare(case, squares())
    assert found.accuracy == 1
    assert found.images_per_second > 0


def test_the_clock_leaves_the_first_step_out(load, monkeypatch):
    overhead = load("overhead")
    monkeypatch.setattr(overhead.time, "perf_counter", iter([10.0, 12.0, 14.0]).__next__)
    clock = overhead.Clock()
    for number in range(3):
        clock(overhead.Step(number + 1, 3, 0, 1, 0.5, 0.1, 1.0, images=32))
    assert clock.pace() == 2 * 32 / 4


def test_memory_of_a_process(load):
    found = load("memory").footprint(psutil.Process(os.getpid()))
    assert found["processes"] >= 1
    assert 10_000_000 < found["pss"] <= found["rss"]


def test_images_made_for_the_memory_benchmark_differ(load, tmp_path):
    memory, data = load("memory"), squares()
    (tmp_path / "class-0").mkdir()
    for again in range(3):
        memory._draw(data, tmp_path, again * len(data))
    made = sorted((tmp_path / "class-0").glob("*.jpg"))
    assert len({path.read_bytes() for path in made}) == 3
    with Image.open(made[0]) as picture:
        assert (picture.size, picture.mode) == ((96, 96), "RGB")


def test_what_winograds_form_costs_in_precision(load):
    rounding = load("rounding")
    lost = {name: rounding.lost(*form, seed=0) for name, form in rounding.FORMS.items()}
    assert lost["patches of 2, kernel 3"] < 1 < lost["patches of 4, kernel 3"]
    usual = lost["the same with 0, 1, -1, 2, -2"]
    assert usual > 1.5 * lost["patches of 4, kernel 3"]
    before = (rounding.winograd.GAIN, rounding.winograd.FORWARD)
    found, other = (rounding.gradients(seed, batch=4) for seed in (0, 1))
    assert before == (rounding.winograd.GAIN, rounding.winograd.FORWARD)
    assert found != other  # seeds differ, weights and images
    assert found["patches of 4, forward"] > 1.5 * found["plain"] > 0


def test_the_native_step_races_and_is_held_against_the_roof(load, monkeypatch):
    native, roof = load("native"), load("roof")
    case = native.CASES["lenet5, batch 4"]
    found = native.race(case, 1, ("native", "eager", "channels-last", "bf16"))
    assert found["milliseconds"].keys() == {"native", "eager", "channels-last", "bf16"}
    assert found["others_against_native"]["eager"]["median"] > 0
    assert found["gflop"] == pytest.approx(4 * 2 * flops_of_lenet() / 1e9, rel=1e-6)
    peak = roof.fma_peak(native.this_machine())
    specs, real = [], roof._kernel
    monkeypatch.setattr(
        roof, "_kernel", lambda spec, *rest: (specs.append(spec), real(spec, *rest))[1]
    )
    kernels = native._kernels(case, peak)
    assert len(kernels) == 5
    assert all(0 < kernel["of_peak"] < 3 for kernel in kernels)
    fewer = {k["what"]: k["gflops"] / k["as_defined"] for k in kernels}  # done for one defined
    winograd = {what: share for what, share in fewer.items() if "patches of 2" in what}
    assert {share for what, share in fewer.items() if what not in winograd} == {1}
    assert list(winograd.values()) == pytest.approx([25 * 36 / (100 * 25)] * len(winograd))
    columns = {spec.x_column for spec in specs if isinstance(spec, roof.Correlate)}
    assert columns == {native.this_machine().vector}  # whole tiles, as large batches have them


@pytest.mark.parametrize("who", ["jax", "tensorflow", "tinygrad"])
def test_other_frameworks_take_pytorchs_steps(load, who):
    pytest.importorskip(who)
    native = load("native")
    if who == "tinygrad" and shutil.which("clang") is None:
        pytest.skip("tinygrad compiles with clang, which is not here")
    images, labels = torch.randn(8, 1, 28, 28), torch.randint(0, 10, (8,))
    theirs, ours = (native.build(native.CASES["lenet5, batch 4"]) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    step = native._WAYS[who](theirs, images, labels)  # tinygrad's takes three steps to be warm
    optimiser = torch.optim.SGD(ours.parameters(), 0.01, 0.9, weight_decay=5e-4, nesterov=True)
    losses = []
    for _ in range(6):
        loss = torch.nn.functional.cross_entropy(ours(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    before = 3 if who == "tinygrad" else 0
    found = [float(step()) for _ in range(3)]
    assert found == pytest.approx(losses[before : before + 3], rel=1e-3)


def flops_of_lenet():
    """Multiply-adds of a step for one image, padding left out: forward, and two gradients for
    every layer but the first, which has one."""
    first = 6 * sum(min(28, i + 3) - max(0, i - 2) for i in range(28)) ** 2
    rest = 16 * 100 * 6 * 25 + 400 * 120 + 120 * 84 + 84 * 10
    return 2 * first + 3 * rest


def test_a_step_by_the_engine_is_timed_and_weighed(load):
    found = load("explicit").measure("lenet5", 2, 1, 28, rounds=1)
    assert found["milliseconds"].keys() == {"autograd", "torch", "math"}
    assert found["ratios"]["math"]["median"] > 0
    kept = found["kept_mib"]
    assert kept["torch"] == pytest.approx(kept["autograd"], rel=0.2)
