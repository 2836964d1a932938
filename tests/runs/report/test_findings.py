"""What the report makes of runs whose story is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hubel.runs.report.evidence import Evidence
from hubel.runs.report.findings import MOST, Finding, findings
from hubel.runs.report.folder import read_run

Make = Callable[..., Path]
GOOD = {"test": {"accuracy": 0.9}}
COUNT = {"train": 50_000, "val": 5_000, "test": 10_000}


def log(
    train: list[float], val: list[float] | None = None, *, loss: list[float] | None = None,
    lr: list[float] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """A history from its accuracies; the best epoch is where validation is highest."""
    best = int(np.argmax(val if val else train))
    return [
        {
            "kind": "epoch", "epoch": e, "step": e, "best": e == best,
            "train": {"loss": 1.0, "accuracy": train[e]},
            "val": {"loss": loss[e] if loss else 1.0, "accuracy": val[e]} if val else None,
            "lr": lr[e] if lr else 0.1,
        }
        for e in range(len(train))
    ]  # fmt: skip


@pytest.fixture
def told(made_run: Make) -> Callable[..., dict[str, Finding]]:
    """Findings of a made run by title, without the evidence and warnings that others are about."""

    def tell(**changes: Any) -> dict[str, Finding]:
        usual = {"evidence": Evidence(), "metrics": GOOD, "count": COUNT, "findings": []}
        return {f.title: f for f in findings(read_run(made_run(**(usual | changes))))}

    return tell


Tell = Callable[..., dict[str, Finding]]


def test_overfitting(told: Tell) -> None:
    found = told(log=log([0.7, 0.9, 0.99], [0.7, 0.8, 0.81]))
    finding = found["It knows its training images too well (overfitting)"]
    assert finding.tone == "warn"
    assert "99.0" in finding.text
    assert "81.0" in finding.text
    assert "18.0\u202fpoints fewer" in finding.text


def test_a_gap_within_chance_is_not_overfitting(told: Tell) -> None:
    few = {**COUNT, "val": 40}  # 95 % of the time within +-9 points at 90 %
    found = told(log=log([0.9, 0.98], [0.85, 0.90]), count=few)
    assert "It knows its training images too well (overfitting)" not in found


def test_underfitting(told: Tell) -> None:
    found = told(log=log([0.5, 0.6], [0.5, 0.6]))
    assert "It has room to learn more (no overfitting yet)" in found


def test_a_good_fit(told: Tell) -> None:
    assert told(log=log([0.9, 0.95], [0.9, 0.94]))[
        "Training and validation go hand in hand"
    ].tone == "good"  # fmt: skip


def test_the_best_epoch_came_early(told: Tell) -> None:
    val = [0.6, 0.8, 0.9, 0.88, 0.87, 0.87, 0.86, 0.86, 0.86, 0.86]
    loss = [1.0, 0.7, 0.5, 0.5, 0.6, 0.6, 0.7, 0.8, 0.8, 0.9]
    finding = told(log=log(val, val, loss=loss))["The best epoch came early: 3 of 10"]
    assert "rose from 0.500 to 0.900" in finding.text


RISING = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9]


def test_still_rising(told: Tell) -> None:
    finding = told(log=log(RISING, RISING))["It was still improving when it stopped"]
    assert "Validation accuracy rose by 10.0\u202fpoints" in finding.text
    assert "Train longer" in finding.text


def test_a_rise_as_the_rate_runs_out_is_told_apart(told: Tell) -> None:
    falling = [0.1 * (1 - k / 10) ** 2 for k in range(10)]
    finding = told(log=log(RISING, RISING, lr=falling))["It was still improving when it stopped"]
    assert "falling learning rate" in finding.text


def test_a_flat_end_is_not_rising(told: Tell) -> None:
    flat = [*RISING[:-3], 0.9, 0.9, 0.9]
    assert "It was still improving when it stopped" not in told(log=log(flat, flat))


def test_early_stopping_is_not_rising(told: Tell) -> None:
    found = told(log=log(RISING, RISING), results={"stopped": "early"})
    assert "It was still improving when it stopped" not in found


def test_no_validation_part(told: Tell) -> None:
    found = told(log=log(RISING), metrics={"train": {"accuracy": 0.9}})
    assert "Training accuracy rose" in found["It was still improving when it stopped"].text


def test_the_hardest_class_and_what_it_is_taken_for(told: Tell) -> None:
    confusion = np.array([[90, 5, 5], [3, 95, 2], [12, 48, 40]])
    judged = Evidence(part="test", confusion=confusion)
    finding = told(evidence=judged, classes=["cat", "dog", "fox"])["“fox” is the hardest class"]
    assert finding.tone == "warn"
    said = finding.text.replace("\u202f", " ")
    assert said == "40.0 % of its 100 images are recognised; 48.0 % are taken for “dog”."


def test_a_perfect_model_has_no_hardest_class(told: Tell) -> None:
    found = told(evidence=Evidence(part="test", confusion=np.diag([50, 50])))
    assert not any("hardest" in title for title in found)


def test_guessing_is_not_learning(told: Tell) -> None:
    confusion = np.array([[500, 0], [500, 0]])
    metrics = {"test": {"accuracy": 0.5}}
    found = told(evidence=Evidence(part="test", confusion=confusion), metrics=metrics)
    assert found["It has not learned to tell the classes apart"].tone == "warn"


@pytest.mark.parametrize(
    ("confidence", "right", "title"),
    [
        (0.95, 0.85, "It is over-confident"),
        (0.75, 0.85, "It is under-confident"),
        (0.851, 0.85, "Its confidence can be believed"),
    ],
)
def test_confidence(told: Tell, confidence: float, right: float, title: str) -> None:
    table = np.zeros((15, 3))
    table[13] = 10_000, 10_000 * confidence, 10_000 * right
    assert title in told(evidence=Evidence(part="test", calibration=table))


def test_smoothing_explains_too_little_confidence(told: Tell) -> None:
    table = np.zeros((15, 3))
    table[11] = 10_000, 7_500, 8_500
    found = told(evidence=Evidence(part="test", calibration=table), plan={"smoothing": 0.1})
    assert "Label smoothing does that" in found["It is under-confident"].text


def test_a_test_part_harder_than_validation(told: Tell) -> None:
    metrics = {"val": {"accuracy": 0.95}, "test": {"accuracy": 0.90}}
    assert "Test images are harder than validation images" in told(metrics=metrics)
    few = {**COUNT, "val": 60, "test": 60}
    assert "Test images are harder than validation images" not in told(
        metrics=metrics, count=few, name="few"
    )


def test_large_classes_carry_the_score(told: Tell) -> None:
    metrics = {"test": {"accuracy": 0.95, "balanced_accuracy": 0.6}}
    assert "Large classes carry the score" in told(metrics=metrics)


def test_few_images(told: Tell) -> None:
    assert "Few test images, a rough score" in told(count={**COUNT, "test": 100})


def test_the_data_checks_warnings(told: Tell) -> None:
    said = [
        {"level": "note", "text": "images have 3 sizes"},
        {"level": "warning", "text": "2 images stand in train and test"},
        {"level": "error", "text": "1 image cannot be read"},
    ]
    finding = told(findings=said)["The data check found something"]
    assert finding.text == "2 images stand in train and test. 1 more warning below."


def test_a_loss_that_is_no_number(told: Tell) -> None:
    steps = [
        {"kind": "step", "epoch": 0, "step": k, "loss": None if k > 3 else 1.0} for k in range(9)
    ]
    assert "The loss stopped being a number at step 4" in told(log=steps)


def test_an_unfinished_run(made_run: Make) -> None:
    folder = made_run(evidence=Evidence(), findings=[])
    (folder / "results.json").unlink()
    assert findings(read_run(folder))[0].title == "The run is not finished"
    (folder / "diverged.safetensors").touch()
    assert findings(read_run(folder))[0].title.startswith("The training diverged")


def test_never_too_many_and_never_a_bare_nan(made_run: Make) -> None:
    nan = math.nan
    metrics = {"test": {"accuracy": nan, "balanced_accuracy": nan}, "val": {"accuracy": nan}}
    found = findings(read_run(made_run(metrics=metrics, log=log([nan, nan], [nan, nan]))))
    assert 0 < len(found) <= MOST
    assert not any("nan" in finding.text for finding in found)
