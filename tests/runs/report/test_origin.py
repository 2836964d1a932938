"""Headline facts, the data check, and how to repeat a run."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path

from hubel.runs.report import origin
from hubel.runs.report.folder import read_run

Make = Callable[..., Path]


def test_facts_of_the_headline(made_run: Make) -> None:
    facts = dict(origin.head(read_run(made_run()))["facts"])
    assert facts["training images"] == "8,000"
    assert facts["training time"] == "41\u202fs"
    assert facts["seed"] == "3"
    assert facts["epoch kept, of 8"] == "8"


def test_unknown_facts_are_left_out(made_run: Make) -> None:
    folder = made_run(results={"seconds": None, "images_per_second": None}, count={})
    facts = dict(origin.head(read_run(folder))["facts"])
    assert not {"training time", "images/s", "training images"} & set(facts)


def test_metrics_by_part(made_run: Make) -> None:
    metrics = {"train": {"accuracy": 0.95, "top5": 1.0}, "test": {"accuracy": 0.9, "loss": None}}
    table = origin.head(read_run(made_run(metrics=metrics)))["metrics"]
    assert [part for part, _ in table["parts"]] == ["training", "test"]
    assert [label for label, _ in table["rows"]] == ["accuracy", "loss"]  # top 5 of 2 says nothing
    assert dict(table["rows"])["loss"] == ["–", "–"]


def test_counts_in_class_order_or_by_name(made_run: Make) -> None:
    for name, counts in (("listed", [5, 7]), ("named", {"cat": 5, "dog": 7})):
        body = origin.data_check(read_run(made_run(name=name, counts={"train": counts})))
        assert body is not None
        assert body["counts"] == {"training": {"cat": 5, "dog": 7}}
        assert body["most"] == 7


def test_sizes_in_words(made_run: Make) -> None:
    body = origin.data_check(read_run(made_run()))
    assert body is not None
    assert body["sizes"] == [
        ("height", "28 pixels"),
        ("width", "28 to 64 pixels, median 30"),
        ("grey images", "3,000"),
    ]


def test_findings_of_an_unknown_shape_are_shown_as_they_stand(made_run: Make) -> None:
    rows = [{"code": "odd", "ids": ["a.png"] * 40}, "not a record"]
    body = origin.data_check(read_run(made_run(findings=rows)))
    assert body is not None
    (finding,) = body["findings"]
    assert (finding["level"], finding["text"]) == ("note", "odd.")
    assert (len(finding["names"]), finding["rest"]) == (30, 10)


def test_the_python_lines_are_python(made_run: Make) -> None:
    files = read_run(made_run(name="it's a run"))
    lines = origin.python_lines(files)
    calls = [node for node in ast.walk(ast.parse(lines)) if isinstance(node, ast.Call)]
    paths = [a.value for call in calls for a in call.args if isinstance(a, ast.Constant)]
    assert str(files.path / "config.json") in paths
    assert str(files.path) in paths


def test_a_model_made_by_hand_must_be_given_again(made_run: Make) -> None:
    folder = made_run(plan={"model": "MyNet"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architecture": None}))
    lines = origin.python_lines(read_run(folder))
    ast.parse(lines)
    assert "your own MyNet" in lines
    assert "model=model" in lines
