"""Several trainings: what they share and do not, how they are judged, stopped and resumed."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

from hubel import api, several
from hubel.data.record import ArraySource
from hubel.errors import DataError, HubelError, ModelError, OptionError, RunError
from hubel.runs.drive import Interrupted
from hubel.runs.run import Run
from hubel.session import Notice
from hubel.together import load_run
from hubel.training.fit import Step

pytestmark = pytest.mark.usefixtures("short_reports", "own_cache")
QUICK = {"epochs": 2, "batch": 16, "tune": "off", "optimiser": {"name": "adam", "lr": 0.003}}


def stripes(count=120, parts=None):
    """Two classes that are hard to tell apart: a faint stripe in noise."""
    draw = np.random.default_rng(0)
    targets = np.arange(count) % 2
    images = draw.integers(0, 120, (count, 1, 12, 12), dtype=np.uint8)
    images[targets == 1, :, 4:6] += 40
    parts = None if parts is None else np.array(parts, dtype="U5")
    return ArraySource(images, targets, ("plain", "striped"), name="stripes", origin="made here",
                       parts=parts)  # fmt: skip


def probabilities(run, source, rows):
    """What a run says of some images of a source, by its own net alone."""
    loaded = api.load_run(run)
    images = torch.from_numpy(source.images[rows])
    with torch.no_grad():
        found = loaded.model(loaded.card.preprocess.normalise(images)).softmax(dim=1)
    return found.double().numpy()


def weights(folder):
    return torch.cat([p.flatten() for p in api.load_run(folder).model.parameters()])


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    out = tmp_path_factory.mktemp("seeds")
    return several.train_seeds("softmax", stripes(), seeds=3, out=out, seed=7, **QUICK)


def test_seeds_share_the_split_and_nothing_else(seeds, tmp_path):
    assert list(seeds.members) == ["seed-7", "seed-8", "seed-9"]
    runs = [Run.open(seeds.folder / name) for name in seeds.members]
    splits = [json.loads((run.folder / "split.json").read_text()) for run in runs]
    assert splits[0] == splits[1] == splits[2]
    assert [run.config().plan.seed for run in runs] == [7, 8, 9]
    assert len({run.config().card.preprocess for run in runs}) == 1
    assert not weights(runs[0].folder).equal(weights(runs[1].folder))
    alone = api.train("softmax", stripes(), out=tmp_path, seed=7, **QUICK)
    assert weights(alone.folder).equal(weights(runs[0].folder))
    again = api.train("softmax", stripes(), out=tmp_path, seed=8, split_seed=7, **QUICK)
    assert weights(again.folder).equal(weights(runs[1].folder))


def test_the_interval_is_that_of_the_members_results(seeds):
    files = [seeds.folder / name / "results.json" for name in seeds.members]
    values = [json.loads(file.read_text())["metrics"]["test"]["loss"] for file in files]
    found = seeds.intervals["loss"]
    assert found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1))
    assert found.half == pytest.approx(4.303 * np.std(values, ddof=1) / 3**0.5)
    assert seeds.part == "test"


def test_the_ensemble_is_the_mean_of_probabilities(seeds):
    source = stripes()
    rows = Run.open(seeds.folder / "seed-7").split(source).test
    mean = np.mean([probabilities(seeds.folder / n, source, rows) for n in seeds.members], axis=0)
    truth = source.targets[rows]
    found = seeds.ensemble["test"]
    assert found["accuracy"] == pytest.approx((mean.argmax(axis=1) == truth).mean())
    assert found["loss"] == pytest.approx(-np.log(mean[np.arange(len(rows)), truth]).mean())
    assert seeds.ensemble.keys() == {"val", "test"}


def test_what_is_left_in_the_folder(seeds):
    record = json.loads((seeds.folder / "group.json").read_text())
    assert record["kind"] == "seeds"
    assert [m["name"] for m in record["members"]] == list(seeds.members)
    assert record["plan"]["epochs"] == 2
    assert record["results"]["intervals"]["accuracy"]["mean"] == seeds.intervals["accuracy"].mean
    assert json.loads(json.dumps(seeds.to_json()))["ensemble"] == seeds.ensemble
    assert 'href="seed-8/report.html"' in seeds.report.read_text()
    assert (seeds.folder / "seed-8" / "report.html").exists()


def test_folds_hold_every_image_out_once_and_are_judged_by_who_did_not_see_it(tmp_path):
    source = stripes()
    found = several.cross_validate("softmax", source, folds=3, out=tmp_path, **QUICK)
    assert list(found.members) == ["fold-1", "fold-2", "fold-3"]
    assert found.folder.name == "stripes-softmax-folds-1"
    chances, seen = np.zeros((len(source), 2)), np.zeros(len(source), np.int64)
    for name, scores in found.members.items():
        rows = Run.open(found.folder / name).split(source).test
        chances[rows] = probabilities(found.folder / name, source, rows)
        seen[rows] += 1
        right = chances[rows].argmax(axis=1) == source.targets[rows]
        assert scores["accuracy"] == pytest.approx(right.mean())
    assert (seen == 1).all()
    together = found.ensemble["out-of-fold"]
    assert together["accuracy"] == pytest.approx((chances.argmax(axis=1) == source.targets).mean())
    loss = -np.log(chances[np.arange(len(source)), source.targets]).mean()
    assert together["loss"] == pytest.approx(loss)
    assert found.ensemble.keys() == {"out-of-fold"}
    assert load_run(found.folder).own_scores(source) == found.ensemble


def test_folds_of_a_source_with_a_test_part_of_its_own(tmp_path):
    parts = ["train"] * 90 + ["test"] * 30
    source = stripes(parts=parts)
    found = several.cross_validate("softmax", source, folds=2, out=tmp_path, **QUICK)
    for name in found.members:
        split = Run.open(found.folder / name).split(source)
        assert split.apart.tolist() == list(range(90, 120))
        assert len(split.test) == 45
    rows = np.arange(90, 120)
    mean = np.mean([probabilities(found.folder / n, source, rows) for n in found.members], axis=0)
    accuracy = (mean.argmax(axis=1) == source.targets[rows]).mean()
    assert found.ensemble["test"]["accuracy"] == pytest.approx(accuracy)


class Stopper:
    """Presses Ctrl-C at a step of a member, and keeps the notices."""

    def __init__(self, member, step):
        self.member, self.step, self.now, self.said = member, step, "", []

    def __call__(self, event):
        if isinstance(event, Notice):
            self.said.append(event.text)
            self.now = event.text if ": training" in event.text else self.now
        if isinstance(event, Step) and event.step == self.step and self.member in self.now:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_and_resume_end_in_the_same_bits(seeds, tmp_path):
    stopper = Stopper("seed-8", 4)
    with pytest.raises(Interrupted, match=r"saved in seed-8: go on with 'hubel resume .*/g'"):
        several.train_seeds("softmax", stripes(), seeds=3, out=tmp_path, name="g", seed=7,
                            tell=stopper, **QUICK)  # fmt: skip
    group = tmp_path / "g"
    assert sorted(path.name for path in group.iterdir()) == ["group.json", "seed-7", "seed-8"]
    with pytest.raises(RunError, match="is not finished: go on with 'hubel resume"):
        load_run(group)
    kept = (group / "seed-7" / "weights.safetensors").stat().st_mtime_ns
    with pytest.raises(RunError, match="given in Python .*give them again as data="):
        several.resume(group)
    heard = Stopper("none", 0)
    found = several.resume(group, data=stripes(), tell=heard)
    assert any("going on at step 4" in text for text in heard.said)
    assert (group / "seed-7" / "weights.safetensors").stat().st_mtime_ns == kept
    for name in seeds.members:
        assert weights(group / name).equal(weights(seeds.folder / name))
    assert found.intervals == seeds.intervals
    assert found.ensemble == seeds.ensemble
    with pytest.raises(RunError, match="is finished: 'hubel evaluate"):
        several.resume(group, data=stripes())


def test_a_member_that_died_before_its_first_state_is_trained_anew(seeds, tmp_path):
    with pytest.raises(Interrupted):
        several.train_seeds("softmax", stripes(), seeds=2, out=tmp_path, name="g", seed=7,
                            tell=Stopper("seed-7", 2), **QUICK)  # fmt: skip
    (tmp_path / "g" / "seed-8").mkdir()
    (tmp_path / "g" / "seed-8" / "environment.json").write_text("{}")
    several.resume(tmp_path / "g", data=stripes())
    assert weights(tmp_path / "g" / "seed-8").equal(weights(seeds.folder / "seed-8"))


def test_one_training_goes_to_the_plain_verbs(tmp_path):
    result = several.train("softmax", stripes(), out=tmp_path, name="one", **QUICK)
    assert isinstance(result, api.Result)
    with pytest.raises(RunError, match="one is finished"):
        several.resume(tmp_path / "one")


def test_one_fold_alone_is_the_groups_member(tmp_path):
    both = several.cross_validate("softmax", stripes(), folds=2, out=tmp_path, **QUICK)
    alone = api.train("softmax", stripes(), out=tmp_path, name="f", fold=(2, 2), **QUICK)
    assert weights(alone.folder).equal(weights(both.folder / "fold-2"))


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"seeds": 1}, OptionError, "seeds must be 2 or more.*given 1"),
        ({"folds": 1}, OptionError, "folds must be 2 or more, given 1"),
        ({"seeds": 2, "folds": 2}, OptionError, "give seeds or folds, not both"),
        ({"folds": 2, "fold": (1, 2)}, OptionError, "all folds or one fold, not both"),
        ({"folds": 500}, DataError, "can be cut into 2 to 120 folds .*given 500"),
        ({"seeds": 2, "epoch": 1}, OptionError, "did you mean 'epochs'"),
        ({"seeds": 2, "model": "lenet"}, ModelError, "did you mean 'lenet5'"),
        ({"seeds": 2, "model": nn.Flatten()}, OptionError, r"given a module \(Flatten\)"),
        ({"seeds": 2, "name": "../x"}, RunError, "letters, digits"),
    ],
)  # fmt: skip
def test_mistakes_leave_no_folder(tmp_path, words, error, message):
    words = {"model": "softmax", "data": stripes(), **QUICK, **words}
    with pytest.raises(error, match=message) as raised:
        several.train(out=tmp_path / "runs", **words)
    assert isinstance(raised.value, HubelError)
    assert not list(tmp_path.glob("runs/*"))


def test_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match="run without torchrun"):
        several.train_seeds("softmax", stripes(), out=tmp_path)
