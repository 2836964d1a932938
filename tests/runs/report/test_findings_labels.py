"""What the report makes of classifiers whose story is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hubel.runs.report.evidence import Evidence
from hubel.runs.report.finding import Finding

Tell = Callable[..., dict[str, Finding]]
COUNT = {"train": 50_000, "val": 5_000, "test": 10_000}


def log(train: list[float], val: list[float]) -> list[dict[str, object]]:
    """A history from its accuracies; the best epoch is where validation is highest."""
    best = int(np.argmax(val))
    return [
        {
            "kind": "epoch", "epoch": e, "step": e, "best": e == best, "lr": 0.1,
            "train": {"loss": 1.0, "accuracy": train[e]}, "val": {"loss": 1.0, "accuracy": val[e]},
        }
        for e in range(len(train))
    ]  # fmt: skip


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
