"""The log read back: order, gaps, torn lines, and the place of steps among epochs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hubel.runs.report import history as module
from hubel.runs.report.history import history_of, read_history


def epoch(number: int, step: int, **more: Any) -> dict[str, Any]:
    return {"kind": "epoch", "epoch": number, "step": step, **more}


def step(number: int, loss: float | None = 1.0) -> dict[str, Any]:
    return {"kind": "step", "epoch": 0, "step": number, "loss": loss, "lr": 0.1}


def write(path: Path, records: list[dict[str, Any]], tail: str = "") -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in records) + tail)
    return path


def test_no_log_is_an_empty_history(tmp_path: Path) -> None:
    history = read_history(tmp_path / "metrics.jsonl")
    assert len(history) == 0
    assert history.best is None


def test_a_line_cut_short_is_passed_over(tmp_path: Path) -> None:
    log = write(tmp_path / "m", [step(1), epoch(1, 1)], '{"kind": "epoch", "epoch": 2, "st')
    history = read_history(log)
    assert history.epoch.tolist() == [1]
    assert history.steps.tolist() == [1]


def test_epochs_counted_from_zero_are_shown_from_one() -> None:
    history = history_of([epoch(0, 5, best=True), epoch(1, 10, best=False)], [])
    assert history.epoch.tolist() == [1, 2]
    assert history.best == 0
    assert history.row_of(1) == 1  # the log's own number


def test_the_last_record_of_an_epoch_counts() -> None:
    twice = [epoch(1, 5, lr=0.1), epoch(2, 9, lr=0.2), epoch(2, 10, lr=0.3)]
    assert history_of(twice, []).lr.tolist() == [0.1, 0.3]


def test_missing_numbers_are_nan() -> None:
    history = history_of([epoch(1, 5, train={"loss": 0.5}, val=None)], [])
    assert history.train_loss[0] == 0.5
    assert np.isnan([history.train_accuracy[0], history.val_loss[0], history.lr[0]]).all()
    assert not history.has_val
    assert history.bad_step is None


def test_a_loss_that_is_no_number_is_found() -> None:
    assert history_of([], [step(1), step(2, None), step(3, float("nan"))]).bad_step == 2
    assert history_of([epoch(1, 7, val={"loss": float("inf")})], []).bad_step == 7


def test_steps_stand_between_epochs_and_beyond() -> None:
    history = history_of([epoch(1, 10), epoch(2, 20)], [step(k) for k in (5, 10, 15, 30)])
    assert history.step_at.tolist() == pytest.approx([0.5, 1.0, 1.5, 3.0])


def test_without_epochs_the_axis_is_steps() -> None:
    assert history_of([], [step(3), step(6)]).step_at.tolist() == [3, 6]


def test_long_logs_keep_every_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_STEPS", 10)
    records = [record for k in range(1, 51) for record in (step(k), epoch(k, k))]
    history = read_history(write(tmp_path / "m", records))
    assert len(history) == 50
    assert 5 <= len(history.steps) <= 10


def test_masks_have_pixels_right_and_a_mean_iou() -> None:
    val = {"loss": 0.4, "miou": 0.5, "pixel_accuracy": 0.8}
    history = history_of([epoch(1, 5, train={"loss": 0.3, "pixel_accuracy": 0.7}, val=val)], [])
    assert (history.train_accuracy[0], history.val_accuracy[0], history.val_miou[0]) == (
        0.7, 0.8, 0.5,
    )  # fmt: skip
    assert history.val_score[0] == 0.5
    labels = history_of([epoch(1, 5, val={"accuracy": 0.9})], [])
    assert labels.val_score[0] == 0.9
