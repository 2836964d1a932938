"""Trainings that are broken off: by SIGTERM, as by Ctrl-C (tests/test_cli.py), and by kill -9."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("long_training.py")


def launch(folder, *words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HUBEL_CACHE": str(folder / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)  # what test files share
    command = [sys.executable, str(SCRIPT), str(folder), *words]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_step(process, step):
    """Read the script's output until it has passed `step`."""
    for line in process.stdout:
        if line.startswith("step") and int(line.split()[1]) >= step:
            return
    raise AssertionError(f"ended before step {step}: {process.wait()}")


def weights(folder):
    """The final weights, and the last state whole: model, average, moments, best."""
    run = folder / "runs" / "r"
    last = max((run / "checkpoints").iterdir())
    return load_file(run / "weights.safetensors") | load_file(last)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    output, _ = launch(folder).communicate(timeout=240)
    assert "finished" in output, output
    return weights(folder)


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)],  # see also below
)
def test_broken_off_and_resumed_is_bit_equal(tmp_path, unbroken, number):
    process = launch(tmp_path)
    wait_for_step(process, 13)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert "stopped and saved at step" in output
        assert "hubel resume" in output
    assert not (tmp_path / "runs" / "r" / "results.json").exists()
    output, _ = launch(tmp_path, "resume").communicate(timeout=240)
    assert "finished" in output, output
    found = weights(tmp_path)
    assert found.keys() == unbroken.keys()
    assert all(found[name].equal(unbroken[name]) for name in found)
    lines = (tmp_path / "runs" / "r" / "metrics.jsonl").read_text().splitlines()
    steps = [r["step"] for r in map(json.loads, lines) if r["kind"] == "step"]
    assert steps == sorted(set(steps))


def test_killed_again_and_again(tmp_path, unbroken):
    """kill -9 at two unforeseen moments: the folder stays loadable, the end is the same."""
    words = []
    for step, moment in ((20, 0.013), (45, 0.0)):
        process = launch(tmp_path, *words)
        wait_for_step(process, step)
        time.sleep(moment)
        process.kill()
        process.wait()
        words = ["resume"]
    launch(tmp_path, "resume").communicate(timeout=240)
    found = weights(tmp_path)
    assert all(found[name].equal(unbroken[name]) for name in found)
