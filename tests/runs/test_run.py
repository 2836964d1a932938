"""The run folder: made once, opened again, numbered, and clear about what is missing."""

import os

import pytest
import torch
from torch import nn

from hubel.data.preprocess import Preprocess
from hubel.errors import RunError
from hubel.models.architecture import Architecture
from hubel.runs.run import Config, Run, list_runs
from hubel.runs.weights import Card
from hubel.training.plan import make_plan
from hubel.training.speed import Choice
from hubel.training.state import State

PLAN = make_plan(source="x", model="softmax", ema=0.9)
CARD = Card(
    Architecture("softmax", 2, 1, (4, 4), {}),
    ("no", "yes"),
    Preprocess(1, 4, 4, "crop", (0.5,), (0.2,)),
)
CONFIG = Config(PLAN, CARD, {"name": "x", "origin": "here", "where": "x", "count": {}}, Choice())


def begun(out, name="a"):
    run = Run.create(out, name, "stem")
    run.begin(CONFIG, {}, {"findings": []})
    return run


def state_of(seed=0, step=0):
    torch.manual_seed(seed)
    state = State.start(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), PLAN)
    state.step = step
    return state


def test_config_comes_back_equal(tmp_path):
    assert Run.open(begun(tmp_path).folder).config() == CONFIG


def test_runs_are_numbered_by_stem(tmp_path):
    names = [Run.create(tmp_path, None, "my photos/ü").name for _ in range(3)]
    assert names == ["my-photos-ü-1", "my-photos-ü-2", "my-photos-ü-3"]
    (tmp_path / "my-photos-ü-7").mkdir()
    assert Run.create(tmp_path, None, "my photos/ü").name == "my-photos-ü-8"


def test_taken_name(tmp_path):
    begun(tmp_path)
    with pytest.raises(RunError, match=r"a exists already: give another --name"):
        begun(tmp_path)


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a b"])
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    with pytest.raises(RunError, match="letters, digits"):
        Run.create(tmp_path, name, "stem")


def test_out_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="it is a file, not a folder"):
        Run.create(tmp_path / "file", "a", "stem")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_out(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="cannot make a run folder in .*Permission denied"):
        Run.create(tmp_path / "runs", "a", "stem")


def test_out_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot make a run folder in .*Not a directory"):
        Run.create(tmp_path / "file" / "runs", "a", "stem")


def test_opening_what_is_not_there_names_the_nearest(tmp_path):
    begun(tmp_path, "fashion-1")
    with pytest.raises(RunError, match=r"unknown run 'fashon-1': did you mean 'fashion-1'\?"):
        Run.open(tmp_path / "fashon-1")
    with pytest.raises(RunError, match="no run at .*'hubel train' makes one"):
        Run.open(tmp_path / "nowhere" / "x")


def test_half_written_folder(tmp_path):
    (tmp_path / "half").mkdir()
    with pytest.raises(RunError, match="no whole run folder: it has no config.json"):
        Run.open(tmp_path / "half")
    run = begun(tmp_path)
    (run.folder / "config.json").write_text('{"plan": ')
    with pytest.raises(RunError, match="config.json is damaged"):
        run.config()
    (run.folder / "config.json").write_text('{"plan": {}}')
    with pytest.raises(RunError, match="config.json is damaged"):
        run.config()


def test_state_round_trip_and_two_checkpoints_kept(tmp_path):
    run = begun(tmp_path)
    for step in (0, 5, 10):
        run.save(state_of(seed=step, step=step))
    kept = sorted(p.name for p in (run.folder / "checkpoints").iterdir())
    assert kept == ["000000005.safetensors", "000000010.safetensors"]
    found = state_of()
    run.load(found)
    assert found.step == 10
    expected = state_of(seed=10).model.state_dict()
    assert all(t.equal(expected[n]) for n, t in found.model.state_dict().items())
    assert all(t.equal(expected[n]) for n, t in found.ema.module.state_dict().items())


def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(tmp_path):
    run = begun(tmp_path)
    run.save(state_of(step=5))
    last = run.save(state_of(step=10))
    last.write_bytes(last.read_bytes()[:50])
    found = state_of()
    run.load(found)
    assert found.step == 5


def test_no_checkpoint(tmp_path):
    with pytest.raises(RunError, match="has no checkpoint: train again"):
        begun(tmp_path).load(state_of())


def test_checkpoint_of_another_model(tmp_path):
    run = begun(tmp_path)
    run.save(state_of())
    other = State.start(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), PLAN)
    with pytest.raises(RunError, match="the checkpoint is of another model: .*size mismatch"):
        run.load(other)


def test_weights_of_an_unfinished_run_are_its_best_so_far(tmp_path):
    run = begun(tmp_path)
    with pytest.raises(RunError, match="has no weights yet: go on with 'hubel resume"):
        run.weights()
    state = state_of()
    state.best.weights = {"1.weight": torch.full((2, 16), 3.0), "1.bias": torch.zeros(2)}
    run.save(state)
    weights, card = run.weights()
    assert weights["1.weight"].equal(torch.full((2, 16), 3.0))
    assert card == CARD
    assert not run.finished


def test_finished(tmp_path):
    run = begun(tmp_path)
    with pytest.raises(RunError, match="is not finished: go on with 'hubel resume"):
        run.results()
    run.finish(state_of().model.state_dict(), CARD, {"metrics": {}})
    assert run.finished
    assert run.results() == {"metrics": {}}
    assert oct((run.folder / "weights.safetensors").stat().st_mode & 0o777) == oct(
        (run.folder / "results.json").stat().st_mode & 0o777
    )


def test_list_is_oldest_first_and_skips_other_folders(tmp_path):
    for name in ("b", "a"):
        begun(tmp_path, name)
    (tmp_path / "notes").mkdir()
    assert [run.name for run in list_runs(tmp_path)] == ["b", "a"]
    assert list_runs(tmp_path / "none") == []
