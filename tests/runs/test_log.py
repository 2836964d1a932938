"""metrics.jsonl: one line a record, cut back to the checkpoint on resuming."""

import json

import pytest

from hubel.runs.log import Log, read_log
from hubel.training.fit import Epoch, Step


def step(number, loss=0.5):
    return Step(number, 10, 0, 1, loss, 0.1, 1.0, 16)


def epoch(number, at):
    return Epoch(number, at, {"loss": 0.4, "accuracy": 0.8}, {"accuracy": 0.7}, 0.1, 2.0, True)


@pytest.fixture
def written(tmp_path):
    log = Log(tmp_path, every=2)
    for number in range(1, 7):
        log.step(step(number), 100.0)
    log.epoch(epoch(0, 6))
    log.close()
    return tmp_path


def test_every_second_step_and_the_epoch(written):
    records = read_log(written)
    assert [(r["kind"], r["step"]) for r in records] == [
        ("step", 2), ("step", 4), ("step", 6), ("epoch", 6),
    ]  # fmt: skip
    assert records[0]["lr"] == 0.1
    assert records[-1]["val"] == {"accuracy": 0.7}


def test_resuming_drops_what_came_after_the_checkpoint(written):
    log = Log(written, every=2, from_step=4)
    log.step(step(6, loss=0.25), 100.0)
    log.close()
    assert [(r["step"], r["loss"]) for r in read_log(written)] == [(2, 0.5), (4, 0.5), (6, 0.25)]


def test_a_line_cut_short_by_a_crash_is_left_out(written):
    with (written / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')
    assert len(read_log(written)) == 4


def test_not_a_number_is_null(tmp_path):
    log = Log(tmp_path, every=1)
    log.step(step(1, loss=float("nan")), 1.0)
    log.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] is None


def test_tensorboard_reads_the_event_files(written):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard (the reader) is in the [test] extra",
    )
    events = accumulator.EventAccumulator(str(written / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("step/loss")] == [2, 4, 6]
    assert events.Scalars("val/accuracy")[0].value == pytest.approx(0.7)
