"""The headline's number: which part, how many images, which interval."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hubel.runs.report.evidence import Evidence
from hubel.runs.report.folder import read_run
from hubel.runs.report.score import guessing, headline, scores

Make = Callable[..., Path]


def test_the_test_part_is_trusted_most(made_run: Make) -> None:
    score = headline(read_run(made_run()))
    assert score is not None
    assert (score.part, score.accuracy, score.total) == ("test", 0.8, 2000)
    assert (score.low, score.high) == pytest.approx((0.78190, 0.81695), abs=1e-5)


def test_the_confusion_matrix_says_how_many_were_judged(made_run: Make) -> None:
    judged = Evidence(part="test", confusion=np.array([[40, 10], [5, 45]]))
    score = headline(read_run(made_run(evidence=judged, metrics={})))
    assert score is not None
    assert (score.accuracy, score.total) == (0.85, 100)


def test_validation_where_there_is_no_test(made_run: Make) -> None:
    files = read_run(
        made_run(evidence=Evidence(), metrics={"val": {"accuracy": 0.7}}, count={"val": 50})
    )
    assert list(scores(files)) == ["val", "train"]
    score = headline(files)
    assert score is not None
    assert (score.part, score.total) == ("val", 50)


def test_an_unfinished_run_has_its_logs_best_epoch(made_run: Make) -> None:
    log = [
        {"kind": "epoch", "epoch": e, "step": e, "val": {"accuracy": a}, "best": a == 0.6}
        for e, a in enumerate([0.5, 0.6, 0.55])
    ]
    folder = made_run(evidence=Evidence(), log=log, count={})
    (folder / "results.json").unlink()
    score = headline(read_run(folder))
    assert score is not None
    assert (score.part, score.accuracy, score.low) == ("val", 0.6, None)


def test_an_accuracy_that_is_no_number_is_no_score(made_run: Make) -> None:
    metrics = {"test": {"accuracy": None}, "val": {"accuracy": float("nan")}}
    assert headline(read_run(made_run(evidence=Evidence(), metrics=metrics, log=[]))) is None


def test_guessing_is_the_largest_class(made_run: Make) -> None:
    judged = Evidence(part="test", confusion=np.array([[1, 2], [3, 14]]))
    assert guessing(read_run(made_run(evidence=judged))) == 17 / 20


def test_guessing_without_evidence_is_one_in_all_classes(made_run: Make) -> None:
    files = read_run(made_run(evidence=Evidence(), classes=["a", "b", "c", "d"]))
    assert guessing(files) == 0.25
