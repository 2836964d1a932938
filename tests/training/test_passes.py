"""The explicit engine trains as autograd does: step for step, alone and with others."""

import copy
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import hubel
from hubel.engine.backprop import backpropagate
from hubel.engine.tape import Tape
from hubel.models.names import build
from hubel.training.fit import Step

OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=5e-4),
    "adam": lambda p: torch.optim.Adam(p, 1e-3),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01),
}


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_200_steps_give_torchs_losses_to_rounding(optimiser):
    """In float64, so that rounding stays rounding: it doubles with every few steps."""
    torch.manual_seed(0)
    ours = build("lenet5", classes=10, channels=1).double().train()
    theirs = copy.deepcopy(ours)
    steppers = [OPTIMISERS[optimiser](net.parameters()) for net in (ours, theirs)]
    data = hubel.load_data("sample")
    images = torch.from_numpy(data.images[:1600]).double() / 255
    labels = torch.as_tensor(data.targets[:1600])
    for step in range(200):
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


def losses(tmp_path, engine, **words):
    found = []
    data = hubel.load_data("sample")
    few = (data.images[:600], data.targets[:600])
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
    words = {"deep": True, "batch": 90, "optimiser": {"name": "sgd", "lr": 0.005}}
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


@pytest.mark.parametrize("engine", ["explicit", "native"])
def test_two_processes_learn_as_one(tmp_path, engine):
    words = ["-m", "hubel", "train", "sample", "--model", "mlp", "--engine", engine]
    words += ["--epochs", "1", "--batch", "200", "--json", "--device", "cpu", "--augment", "none"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    alone = subprocess.run(
        [sys.executable, *words, "--out", str(tmp_path / "one")],
        capture_output=True, text=True, env=env, check=True, timeout=200,
    )  # fmt: skip
    crew = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    crew += ["--master-port", str(free_port())]
    both = subprocess.run(
        [*crew, *words, "--out", str(tmp_path / "two")],
        capture_output=True, text=True, env=env, check=False, timeout=250,
    )  # fmt: skip
    assert both.returncode == 0, both.stderr[-2000:]
    one, two = (json.loads(p.stdout.strip().splitlines()[-1])["run"] for p in (alone, both))
    first, second = (hubel.load_run(Path(run)).model.state_dict() for run in (one, two))
    for name in first:
        assert torch.allclose(first[name], second[name], atol=2e-4), name
