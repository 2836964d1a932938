"""The headline's number: which part, how many images, which interval."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hubel.runs.report.evidence import Evidence
from hubel.runs.report.folder import read_run
from hubel.runs.report.score import guessing, headline, scores, spread

Make = Callable[..., Path]


def test_the_test_part_is_trusted_most(made_run: Make) -> None:
    score = headline(read_run(made_run()))
    assert score is not None
    assert (score.part, score.value, score.total) == ("test", 0.8, 2000)
    assert (score.low, score.high) == pytest.approx((0.78190, 0.81695), abs=1e-5)


def test_the_confusion_matrix_says_how_many_were_judged(made_run: Make) -> None:
    judged = Evidence(part="test", confusion=np.array([[40, 10], [5, 45]]))
    score = headline(read_run(made_run(evidence=judged, metrics={})))
    assert score is not None
    assert (score.value, score.total) == (0.85, 100)


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
    assert (score.part, score.value, score.low) == ("val", 0.6, None)


def test_an_accuracy_that_is_no_number_is_no_score(made_run: Make) -> None:
    metrics = {"test": {"accuracy": None}, "val": {"accuracy": float("nan")}}
    assert headline(read_run(made_run(evidence=Evidence(), metrics=metrics, log=[]))) is None


def test_guessing_is_the_largest_class(made_run: Make) -> None:
    judged = Evidence(part="test", confusion=np.array([[1, 2], [3, 14]]))
    assert guessing(read_run(made_run(evidence=judged))) == 17 / 20


def test_guessing_without_evidence_is_one_in_all_classes(made_run: Make) -> None:
    files = read_run(made_run(evidence=Evidence(), classes=["a", "b", "c", "d"]))
    assert guessing(files) == 0.25


def test_masks_are_headed_by_mean_iou_without_an_interval(made_run: Make) -> None:
    score = headline(read_run(made_run(masks=True)))
    assert score is not None
    assert (score.part, score.value, score.total) == ("test", 0.6, 9)  # who was judged
    assert (score.low, score.high) == (None, None)


def test_the_mean_iou_of_a_run_without_results_is_the_matrixs(made_run: Make) -> None:
    judged = Evidence(part="val", confusion=np.array([[40, 10], [20, 30]]))
    score = headline(read_run(made_run(masks=True, evidence=judged, metrics={})))
    assert score is not None
    assert score.value == pytest.approx((40 / 70 + 30 / 60) / 2)


def test_the_log_knows_the_kept_epochs_mean_iou(made_run: Make) -> None:
    folder = made_run(masks=True, evidence=Evidence())
    (folder / "results.json").unlink()
    score = headline(read_run(folder))
    assert score is not None
    assert (score.part, score.value) == ("val", 0.61)


def test_the_spread_over_images_is_students(made_run: Make) -> None:
    each = np.array([0.80, 0.84, 0.85, np.nan])  # mean 83, deviation sqrt(7), half 6.57 points
    found = spread(read_run(made_run(masks=True, evidence=Evidence(part="test", each=each))))
    assert found is not None
    assert (found.count, found.mean) == (3, pytest.approx(0.83))
    assert found.half == pytest.approx(0.0657, abs=1e-4)
    assert spread(read_run(made_run(evidence=Evidence(), name="none"))) is None


def test_guessing_masks_is_the_largest_class_over_all(made_run: Make) -> None:
    judged = Evidence(part="test", confusion=np.array([[1, 2, 0], [3, 14, 0], [0, 0, 0]]))
    classes = ["a", "b", "c"]
    found = guessing(read_run(made_run(masks=True, evidence=judged, classes=classes)))
    assert found == pytest.approx((17 / 20 + 0) / 2)
