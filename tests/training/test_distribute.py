"""Several processes: the same weights as one, one voice, one run folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from crew_training import masks, source
from safetensors.torch import load_file

from hubel.assemble import reopen
from hubel.errors import OptionError
from hubel.gather.door import judge
from hubel.loaded import load_run
from hubel.session import silent
from hubel.training.distribute import Crew, choose_device
from hubel.training.speed import Choice

SCRIPT = Path(__file__).with_name("crew_training.py")


def run(out, model, processes):
    out.mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), str(SCRIPT), str(out), model]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HUBEL_CACHE": str(out / "cache")}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(out / "weights.safetensors"), done.stdout


@pytest.mark.parametrize("model", ["lenet5", "unet"])
def test_two_processes_train_what_one_trains(tmp_path, model):
    """Neither has batch norm or dropout: averaged half-batches are the whole batch. Of the U-Net's
    images some have a fifth of the labels of the others: each pixel weighs the same."""
    one, alone = run(tmp_path / "one", model, 1)
    two, crew = run(tmp_path / "two", model, 2)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5)
    assert alone.count("said:") == crew.count("said:") > 0
    assert alone.split("test")[-1].split(",")[0] == crew.split("test")[-1].split(",")[0]
    assert [p.name for p in (tmp_path / "two" / "runs").iterdir()] == ["r"]


@pytest.mark.parametrize(("model", "data"), [("compact", source), ("unet_padded", masks)])
def test_a_crew_with_batch_norm_judges_the_net_that_it_keeps(tmp_path, model, data):
    """Running statistics differ from process to process until they are spread."""
    weights, _ = run(tmp_path / "two", model, 2)
    assert all(torch.isfinite(t).all() for t in weights.values())
    kept = load_run(tmp_path / "two" / "runs" / "r")
    alone = Crew(0, 1, torch.device("cpu"))
    setting = reopen(kept.run, kept.run.config(), data(), alone, silent)
    for part, told in kept.run.results()["metrics"].items():
        tally, _ = judge(setting, kept.model, part, Choice())
        found = setting.task.scores(tally)
        assert found == pytest.approx(told, rel=1e-5, abs=1e-6), part


def test_alone_nothing_is_exchanged():
    crew = Crew(0, 1, torch.device("cpu"))
    sums = torch.ones(3)
    assert crew.total(sums) is sums
    assert crew.any(True)
    assert not crew.any(False)
    net = torch.nn.Linear(2, 2)
    assert crew.wrap(net) is net
    assert crew.leads


@pytest.mark.parametrize("name", ["cuda:77", "tpu", ""])
def test_devices_that_are_not_here(name):
    with pytest.raises(OptionError, match=r"device .* is not here: allowed on this machine: auto"):
        choose_device(name)


def test_auto_is_a_device_that_works():
    torch.ones(2, device=choose_device("auto"))
