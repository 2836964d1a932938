"""Several processes: the same weights as one, one voice, one run folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from crew_training import main, masks
from made_sources import stripes
from safetensors.torch import load_file

from hubel.assemble import reopen
from hubel.errors import OptionError
from hubel.gather.door import judge
from hubel.loaded import load_run
from hubel.session import silent
from hubel.training.distribute import Crew, choose_device
from hubel.training.speed import Choice

SCRIPT = Path(__file__).with_name("crew_training.py")


@pytest.fixture(scope="module")
def crew(tmp_path_factory):
    """The folder of five trainings by two processes, one after the other, and what was printed."""
    out = tmp_path_factory.mktemp("two")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launcher, str(SCRIPT), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HUBEL_CACHE": str(out / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)  # what test files share
    done = subprocess.run(
        [*command, "lenet5", "unet", "mlp", "compact", "unet_padded"],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return out, done.stdout


def test_two_processes_train_what_one_trains(tmp_path, crew, capfd):
    """No net has batch norm or dropout: averaged half-batches are the whole batch, and augmentation
    hangs on an image's place alone. Of the U-Net's images some have a fifth of the labels of the
    others: each pixel weighs the same. The last goes by the explicit engine."""
    two, together = crew
    main(tmp_path, "lenet5", "unet", "mlp")
    alone = capfd.readouterr().out
    for model in ("lenet5", "unet", "mlp"):
        theirs = load_file(two / model / "weights.safetensors")
        for name, tensor in load_file(tmp_path / model / "weights.safetensors").items():
            torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-5)
        assert [p.name for p in (two / model / "runs").iterdir()] == ["r"]
    one, two = (printed.split("test") for printed in (alone, together))
    assert (len(one), len(two)) == (4, 6)  # what is said while a net trains, then its scores
    for place in (0, 1, 2):
        assert one[place].count("said:") == two[place].count("said:") > 0
        assert one[place + 1].split(",")[0] == two[place + 1].split(",")[0]


@pytest.mark.parametrize(
    ("model", "data"), [("compact", lambda: stripes(250)), ("unet_padded", masks)]
)
def test_a_crew_with_batch_norm_judges_the_net_that_it_keeps(crew, model, data):
    """Running statistics differ from process to process until they are spread."""
    folder = crew[0] / model
    weights = load_file(folder / "weights.safetensors")
    assert all(torch.isfinite(t).all() for t in weights.values())
    kept = load_run(folder / "runs" / "r")
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
