"""`metrics.jsonl` read back as columns: what the loss and the scores did over time."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubel.runs.report.words import number

Column = NDArray[np.float64]

# Half a million step records parse for seconds and draw as a blur; epochs are always all read.
MOST_STEPS = 20_000
_EPOCH = re.compile(rb'"kind"\s*:\s*"epoch"')


@dataclass(frozen=True)
class History:
    """Columns of equal length, NaN where a record lacks the number.

    Epochs (E,): epoch (counted from 1), step, train_loss, train_accuracy, val_loss,
    val_accuracy, val_miou, lr; the accuracy is that of pixels where these are judged. Steps (S,):
    steps, step_at (the step's place on the epochs' axis), step_loss, step_lr. And: best, the last
    row flagged best; bad_step, the first step at which a loss was no finite number (the log
    writes null); None where there is none. shift: 1 where the log counts epochs from 0, else 0.
    """

    epoch: Column
    step: Column
    train_loss: Column
    train_accuracy: Column
    val_loss: Column
    val_accuracy: Column
    val_miou: Column
    lr: Column
    steps: Column
    step_at: Column
    step_loss: Column
    step_lr: Column
    best: int | None
    bad_step: int | None
    shift: int

    def __len__(self) -> int:
        return len(self.epoch)

    @property
    def val_score(self) -> Column:
        """The validation score by which epochs are compared: mean IoU, else accuracy."""
        return self.val_miou if np.isfinite(self.val_miou).any() else self.val_accuracy

    @property
    def has_val(self) -> bool:
        """Whether a validation part was ever measured."""
        return bool(np.isfinite(self.val_accuracy).any() or np.isfinite(self.val_loss).any())

    def row_of(self, logged: Any) -> int | None:
        """The row of the epoch that the log numbers `logged`."""
        found = np.flatnonzero(self.epoch == number(logged) + self.shift)
        return int(found[0]) if len(found) else None


def read_history(path: Path) -> History:
    """Read a log. No file gives empty columns; a line that is not whole is passed over."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    whole = [line for line in lines if _EPOCH.search(line)]
    steps = [line for line in lines if not _EPOCH.search(line)]
    stride = 1 + len(steps) // MOST_STEPS
    return history_of(_records(whole), _records(steps[::stride]))


def history_of(epochs: list[dict[str, Any]], steps: list[dict[str, Any]]) -> History:
    """Columns from records. Where a resumed run logged a step or epoch twice, the last counts."""
    epochs = _last_of_each(epochs, "epoch")
    steps = [r for r in _last_of_each(steps, "step") if r.get("kind") == "step"]
    shift = 1 if epochs and epochs[0]["epoch"] == 0 else 0
    flagged = [row for row, record in enumerate(epochs) if record.get("best")]
    epoch, step = _column(epochs, "epoch") + shift, _column(epochs, "step")
    at_step = _column(steps, "step")
    return History(
        epoch=epoch,
        step=step,
        train_loss=_column(epochs, "train", "loss"),
        train_accuracy=_accuracy(epochs, "train"),
        val_loss=_column(epochs, "val", "loss"),
        val_accuracy=_accuracy(epochs, "val"),
        val_miou=_column(epochs, "val", "miou"),
        lr=_column(epochs, "lr"),
        steps=at_step,
        step_at=_on_epochs(at_step, step, epoch),
        step_loss=_column(steps, "loss"),
        step_lr=_column(steps, "lr"),
        best=flagged[-1] if flagged else None,
        bad_step=min((r["step"] for r in [*epochs, *steps] if _bad(r)), default=None),
        shift=shift,
    )


def _records(lines: list[bytes]) -> list[dict[str, Any]]:
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # a kill in the middle of a line leaves half of it
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def _last_of_each(records: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    kept = {r[key]: r for r in records if isinstance(r.get(key), int)}
    return [kept[place] for place in sorted(kept)]


def _column(records: list[dict[str, Any]], *path: str) -> Column:
    values = []
    for record in records:
        value: Any = record
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        values.append(number(value))
    return np.array(values, dtype=np.float64)


def _accuracy(epochs: list[dict[str, Any]], part: str) -> Column:
    """The share of answers that were right: of images, or of pixels."""
    images, pixels = (_column(epochs, part, key) for key in ("accuracy", "pixel_accuracy"))
    return np.where(np.isfinite(images), images, pixels)


def _bad(record: dict[str, Any]) -> bool:
    """Whether a loss was measured and came out as no finite number."""
    measured = [record, record.get("train"), record.get("val")]
    losses = [m["loss"] for m in measured if isinstance(m, dict) and "loss" in m]
    return "step" in record and not all(math.isfinite(number(loss)) for loss in losses)


def _on_epochs(steps: Column, at_step: Column, at_epoch: Column) -> Column:
    """Where steps stand on the axis of epochs: straight lines between the epochs' ends."""
    known = np.isfinite(at_step)
    if not known.any() or at_step[known][-1] <= 0:
        return steps
    x = np.concatenate([[0.0], at_step[known]])
    y = np.concatenate([[0.0], at_epoch[known]])
    beyond = (steps - x[-1]) * (y[-1] / x[-1])
    return np.asarray(np.interp(steps, x, y) + np.maximum(0.0, beyond), dtype=np.float64)
