"""The running record of a training: `metrics.jsonl` for programs, event files for TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from hubel.runs.files import finite, write_text
from hubel.training.fit import Epoch, Step


class Log:
    """Appends one line a record. A line is written whole or, at a crash, cut and dropped later."""

    def __init__(self, folder: Path, every: int, from_step: int = 0) -> None:
        """
        Args:
            folder: the run's.
            every: a step is written when its number divides by this.
            from_step: lines of later steps (written before a crash) are dropped.
        """
        self.path = folder / "metrics.jsonl"
        self.every = every
        lines = [line for line in read_log(folder) if line["step"] <= from_step]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in lines))
        self.file = self.path.open("a", encoding="utf-8", buffering=1)
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=from_step + 1)

    def step(self, step: Step, images_per_second: float) -> None:
        if step.step % self.every:
            return
        record = {
            "step": step.step,
            "epoch": step.epoch,
            "loss": step.loss,
            "lr": step.rate,
            "gradient_norm": step.norm,
            "images_per_second": round(images_per_second, 1),
        }
        self._line("step", record)
        for name in ("loss", "lr", "gradient_norm"):
            self.board.add_scalar(f"step/{name}", record[name], step.step)

    def epoch(self, epoch: Epoch) -> None:
        self._line("epoch", {**epoch.to_json(), "lr": epoch.rate})
        for part, scores in (("train", epoch.train), ("val", epoch.val or {})):
            for name, value in scores.items():
                self.board.add_scalar(f"{part}/{name}", value, epoch.step)
        self.board.flush()

    def close(self) -> None:
        self.file.close()
        self.board.close()

    def _line(self, kind: str, record: dict[str, Any]) -> None:
        self.file.write(json.dumps(finite({"kind": kind, **record})) + "\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The records of a run so far; a last line that a crash cut short is left out."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
