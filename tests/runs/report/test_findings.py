"""What the report makes of runs whose story is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hubel.runs.report.evidence import Evidence
from hubel.runs.report.finding import Finding
from hubel.runs.report.findings import MOST, findings
from hubel.runs.report.folder import read_run

Make = Callable[..., Path]


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


Tell = Callable[..., dict[str, Finding]]


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
