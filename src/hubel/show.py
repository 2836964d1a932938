"""What a person sees in the terminal while work goes on, and at its end."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from hubel.runs.files import finite
from hubel.runs.headline import HEADLINES
from hubel.session import Event, Notice, Stage
from hubel.training.fit import Epoch, Step

SCORES = (
    "miou", "pixel_accuracy", "boundary_f", "rand_f",
    "accuracy", "top5", "loss", "balanced_accuracy", "ece",
)  # fmt: skip
PAUSE = 0.1  # seconds between two looks at the bar; a step of a small net takes 0.4 ms


class Display:
    """A `tell` for people: a bar on a terminal, notices, a table at the end.

    Bar and notices go to standard error, results to standard output. Off a terminal there is no
    bar. With `machine`, standard output gets one JSON object and nothing else.
    """

    def __init__(self, *, quiet: bool = False, machine: bool = False) -> None:
        self.quiet, self.machine = quiet, machine
        self.console = Console(stderr=True, highlight=False, quiet=quiet)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )
        self._bars: dict[str, TaskID] = {}
        self._next_look = 0.0
        self._pace = _Pace()
        self._val = ""

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Step):
            self._pace.images += event.images
            if time.monotonic() >= self._next_look:
                self._next_look = time.monotonic() + PAUSE
                self._step(event)
        elif isinstance(event, Epoch):
            self._epoch(event)
        elif isinstance(event, Stage):
            self._stage(event)
        elif isinstance(event, Notice):
            mark = "[yellow]![/] " if event.level != "note" else ""
            self.console.print(f"{mark}[dim]{_plain(event.text)}[/]")

    def result(self, record: dict[str, Any]) -> None:
        """The end of a training; of several processes only the first tells it."""
        if os.environ.get("RANK", "0") != "0":
            return
        if self.machine:
            print(json.dumps(finite(record)))
        elif "members" in record and not self.quiet:
            self._group(record)
        elif not self.quiet:
            console = Console(highlight=False)
            console.print(scores_table(record["metrics"]))
            console.print(
                f"{record['seconds']:.0f} s, {record['images_per_second']:.0f} images/s",
                style="dim",
            )
            print(f"run:     {record['run']}")
            print(f"report:  {record['report']}")
            print(f"next:    hubel predict {record['run']} YOUR.jpg")

    def _group(self, record: dict[str, Any]) -> None:
        Console(highlight=False).print(group_table(record))
        print(f"group:   {record['group']}")
        print(f"report:  {record['report']}")
        print(f"next:    hubel predict {record['group']} YOUR.jpg")

    def _step(self, step: Step) -> None:
        if self.progress.disable:
            return
        told = f"loss {step.loss:.3f}{self._val}  {self._pace():.0f} images/s"
        words = f"epoch {step.epoch + 1}/{step.epochs}"
        bar = self._bar("training", step.steps)
        self.progress.update(bar, completed=step.step, description=words, told=told)

    def _epoch(self, epoch: Epoch) -> None:
        scores = epoch.val or epoch.train
        part = "val" if epoch.val else "train"
        name = next((n for n in (*HEADLINES, "pixel_accuracy") if n in scores), None)
        self._val = f"  {part} {scores[name]:.1%}" if name else ""

    def _stage(self, stage: Stage) -> None:
        last = stage.done >= stage.of
        if self.progress.disable or not (last or time.monotonic() >= self._next_look):
            return
        self._next_look = time.monotonic() + PAUSE
        bar = self._bar(stage.text, stage.of)
        told = f"{stage.done} of {stage.of}"
        self.progress.update(bar, completed=stage.done, description=stage.text, told=told)
        if last:
            self.progress.remove_task(self._bars.pop(stage.text))

    def _bar(self, name: str, total: int) -> TaskID:
        if name not in self._bars:
            self._bars[name] = self.progress.add_task(name, total=total, told="")
        return self._bars[name]


class _Pace:
    """Images per second since the last call."""

    def __init__(self) -> None:
        self.images = 0
        self._since = time.monotonic()

    def __call__(self) -> float:
        now = time.monotonic()
        rate = self.images / max(now - self._since, 1e-9)
        self.images, self._since = 0, now
        return rate


def scores_table(metrics: dict[str, dict[str, float]]) -> Table:
    """One row per part of the data."""
    known = ("train", "val", "test", "out-of-fold", "all")
    parts = [part for part in known if part in metrics]
    names = list(dict.fromkeys(name for part in parts for name in metrics[part]))
    table, shown = _scores_head(names)
    for part in parts:
        table.add_row(part, *(_score(name, metrics[part].get(name)) for name in shown))
    return table


def group_table(record: dict[str, Any]) -> Table:
    """One row per training of a group; then their mean with its 95 % interval; then together."""
    part = "held out" if record["kind"] == "folds" else record["part"]
    some = [name for name in record["intervals"] if name != "balanced_accuracy"]  # 80 columns
    table, shown = _scores_head(some, part)
    for member, scores in record["members"].items():
        table.add_row(member, *(_score(name, scores.get(name)) for name in shown))
    table.add_row("mean ± 95 %", *(_span(name, record["intervals"][name]) for name in shown))
    for part, scores in record["ensemble"].items():
        words = part if part == "out-of-fold" else f"ensemble, {part}"
        table.add_row(words, *(_score(name, scores.get(name)) for name in shown))
    return table


def _scores_head(names: list[str], first: str = "") -> tuple[Table, list[str]]:
    """A table with the scores that are shown of these, and which they are."""
    shown = [name for name in SCORES if name in names]
    table = Table(box=None, pad_edge=False)
    table.add_column(first)
    for name in shown:
        table.add_column(name.replace("_", " "), justify="right")
    return table, shown


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], right: str = "") -> None:
    """A table without lines; columns named in `right` (space-separated) are set flush right."""
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right.split() else "left")
    for row in rows:
        table.add_row(*(_plain(str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 200  # a pipe has no width: do not cut for it
    Console(highlight=False, width=width).print(table)


def _score(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if name == "loss" else f"{value:.1%}"


def _span(name: str, span: dict[str, float]) -> str:
    """A mean and half its interval, in the score's own unit: 84.0% ± 0.6, 0.452 ± 0.012."""
    half = (span["high"] - span["low"]) / 2
    return f"{_score(name, span['mean'])} ± {_score(name, half).removesuffix('%')}"


def _plain(text: str) -> str:
    """Square brackets in names are no markup."""
    return text.replace("[", "\\[")
