"""Runs side by side: what is listed, what differs, and curves in a word."""

import json

import pytest

from hubel.data.preprocess import Preprocess
from hubel.errors import RunError
from hubel.models.architecture import Architecture
from hubel.runs.overview import differences, overview, sparkline
from hubel.runs.run import Config, Run
from hubel.runs.weights import Card
from hubel.training.plan import make_plan
from hubel.training.speed import Choice

CARD = Card(
    Architecture("softmax", 2, 1, (4, 4), {}),
    ("no", "yes"),
    Preprocess(1, 4, 4, "crop", (0.5,), (0.2,)),
)


def made(out, name, accuracy=None, score="accuracy", **words):
    """A run with two epochs in its log; finished where it has a test score."""
    run = Run.create(out, name, "stem")
    plan = make_plan(source="x", model="softmax", epochs=5, **words)
    run.begin(Config(plan, CARD, {"name": "photos"}, Choice()), {}, {"findings": []})
    lines = [
        {"kind": "epoch", "epoch": e, "step": e, "train": {}, "val": {score: 0.5 + e / 10}}
        for e in range(2)
    ]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    if accuracy is not None:
        metrics = {"val": {score: 0.6}, "test": {score: accuracy, "loss": 0.3}}
        results = {"metrics": metrics, "stopped": "finished", "seconds": 9.6}
        run.finish({}, CARD, results)
    return str(run.folder)


def test_overview_of_finished_stopped_and_damaged(tmp_path):
    made(tmp_path, "done", accuracy=0.7)
    made(tmp_path, "cut")
    damaged = made(tmp_path, "bad")
    (tmp_path / "bad" / "config.json").write_text("{")
    rows = {row["name"]: row for row in overview(tmp_path)}
    assert rows["done"]["test"] == 0.7
    assert rows["done"]["status"] == "finished"
    assert rows["done"]["epochs"] == "2/5"
    assert rows["cut"]["test"] is None
    assert rows["cut"]["val"] == 0.6
    assert "resume" in rows["cut"]["status"]
    assert rows["bad"]["status"] == "damaged"
    assert damaged.endswith("bad")


def test_differences_are_all_that_differs_and_the_outcome(tmp_path):
    one = made(tmp_path, "one", accuracy=0.7)
    two = made(tmp_path, "two", accuracy=0.8, seed=3, optimiser={"lr": 0.3})
    rows = {row["what"]: row["values"] for row in differences([one, two])}
    assert rows["seed"] == [0, 3]
    assert rows["optimiser.lr"] == [0.1, 0.3]
    assert rows["test accuracy"] == ["70.00%", "80.00%"]
    assert rows["seconds"] == [10, 10]
    assert "epochs" not in rows
    assert "model" not in rows


def test_an_unfinished_run_compares_by_its_curve(tmp_path):
    one, two = made(tmp_path, "one", accuracy=0.7), made(tmp_path, "two")
    rows = {row["what"]: row["values"] for row in differences([one, two])}
    assert rows["test accuracy"] == ["70.00%", None]
    assert rows["val accuracy by epoch"] == ["▁█", "▁█"]


def test_masks_are_listed_and_compared_by_mean_iou(tmp_path):
    one = made(tmp_path, "one", accuracy=0.7, score="miou")
    two = made(tmp_path, "two", score="miou")
    rows = {row["name"]: row for row in overview(tmp_path)}
    assert (rows["one"]["val"], rows["one"]["test"]) == (0.6, 0.7)
    assert (rows["two"]["val"], rows["two"]["test"]) == (0.6, None)
    told = {row["what"]: row["values"] for row in differences([one, two])}
    assert told["test mean IoU"] == ["70.00%", None]
    assert told["val mean IoU by epoch"] == ["▁█", "▁█"]
    other = made(tmp_path, "labels", accuracy=0.9)
    told = {row["what"]: row["values"] for row in differences([one, other])}
    assert told["test accuracy"] == [None, "90.00%"]
    assert told["val score by epoch"] == ["▁█", "▁█"]


def test_comparing_what_is_no_run(tmp_path):
    with pytest.raises(RunError, match="no run at"):
        differences([str(tmp_path / "a"), str(tmp_path / "b")])


@pytest.mark.parametrize(
    ("values", "expected"), [([], ""), ([1.0], "▁"), ([0, 1], "▁█"), ([2, 2, 2], "▁▁▁"),
                             ([0, 0.5, 1], "▁▄█")]
)  # fmt: skip
def test_sparkline(values, expected):
    assert sparkline(values) == expected
