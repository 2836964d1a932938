"""The explicit engine trains as autograd does: step for step, alone and with others."""

import copy
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import hubel
from hubel.cli import run
from hubel.engine.backprop import backpropagate
from hubel.engine.tape import Tape
from hubel.models.names import build
from hubel.training.fit import Step

OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=5e-4),
    "adam": lambda p: torch.optim.Adam(p, 1e-3),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01),
}


@pytest.mark.parametrize(("optimiser", "steps"), [("sgd", 200), ("adam", 60), ("adagrad", 60)])
def test_every_step_gives_torchs_loss_to_rounding(optimiser, steps):
    """In float64, so that rounding stays rounding: it doubles with every few steps."""
    torch.manual_seed(0)
    ours = build("lenet5", classes=10, channels=1).double().train()
    theirs = copy.deepcopy(ours)
    steppers = [OPTIMISERS[optimiser](net.parameters()) for net in (ours, theirs)]
    data = hubel.load_data("sample")
    images = torch.from_numpy(data.images[:1600]).double() / 255
    labels = torch.as_tensor(data.targets[:1600])
    for step in range(steps):
        rows = slice(8 * step, 8 * step + 8)
        with Tape(ours) as tape:
            loss = F.cross_entropy(ours(images[rows]), labels[rows])
        for name, gradient in backpropagate(tape, loss, free=True).items():
            ours.get_parameter(name).grad = gradient
        theirs.zero_grad()
        expected = F.cross_entropy(theirs(images[rows]), labels[rows])
        expected.backward()
        for stepper in steppers:
            stepper.step()
        assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-9)


def losses(tmp_path, engine, n=600, **words):
    found = []
    data = hubel.load_data("sample")
    few = (data.images[:n], data.targets[:n])
    hubel.train(
        "resnet20" if words.pop("deep", False) else "lenet5", few, out=tmp_path, engine=engine,
        tune="off", seed=3, epochs=1, size=(16, 16), **words,
        tell=lambda event: found.append(event.loss) if isinstance(event, Step) else None,
    )  # fmt: skip
    return found


@pytest.mark.parametrize("words", [{"batch": 50}, {"batch": 50, "accumulate": 4, "clip": 0.5}])
def test_hubel_train_takes_the_same_steps_by_either_engine(tmp_path, words):
    torchs = losses(tmp_path, "torch", **words)
    ours = losses(tmp_path, "explicit", **words)
    assert ours == pytest.approx(torchs, rel=1e-3)
    assert len(ours) > 8


def test_batch_norm_and_shortcuts_too(tmp_path):
    words = {"n": 450, "deep": True, "batch": 90, "optimiser": {"name": "sgd", "lr": 0.005}}
    torchs = losses(tmp_path, "torch", **words)
    ours = losses(tmp_path, "explicit", **words)
    assert ours[:4] == pytest.approx(torchs[:4], rel=1e-3)


def test_the_run_says_which_engine_it_was(tmp_path):
    result = hubel.train("softmax", "sample", out=tmp_path, engine="explicit", epochs=1, batch=500)
    assert "without autograd" in result.choices["why"]
    assert hubel.load_run(result.folder).run.config().plan.engine == "explicit"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_two_processes_learn_as_one_natively(tmp_path, monkeypatch):
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / "cache"))
    sample = hubel.load_data("sample")
    np.savez(tmp_path / "few.npz", images=sample.images[:900], labels=sample.targets[:900])
    words = ["train", str(tmp_path / "few.npz"), "--model", "mlp", "--engine", "native", "--epochs"]
    words += ["2", "--batch", "100", "--device", "cpu", "--augment", "none", "-q", "--name", "r"]
    assert run([*words, "--out", str(tmp_path / "one")]) == 0
    crew = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    crew += ["--master-port", str(free_port()), "-m", "hubel"]
    both = subprocess.run(
        [*crew, *words, "--out", str(tmp_path / "two")], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False, timeout=250,
    )  # fmt: skip
    assert both.returncode == 0, both.stderr[-2000:]
    runs = [hubel.load_run(tmp_path / which / "r") for which in ("one", "two")]
    assert all(r.run.results()["choices"]["native"] for r in runs)
    first, second = (r.model.state_dict() for r in runs)
    for name in first:
        assert torch.allclose(first[name], second[name], atol=2e-4), name
