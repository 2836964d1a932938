"""A training that is kept: `fit`, with every record written down and the state saved in time.

Ctrl-C and SIGTERM are taken after the running step: the state is saved, then `Interrupted` says
how to go on. A second Ctrl-C stops at once; even then the last checkpoint is whole.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from hubel.errors import TrainingError
from hubel.runs.log import Log
from hubel.runs.run import Run
from hubel.runs.weights import save_tensors
from hubel.tasks.task import Task
from hubel.training.distribute import Crew
from hubel.training.fit import Diverged, Epoch, Feeds, Step, fit
from hubel.training.plan import Plan
from hubel.training.speed import Choice
from hubel.training.state import State

LINES_PER_EPOCH = 20  # step records in metrics.jsonl; each costs a third of a millisecond


class Interrupted(TrainingError):
    """Stopped by the user; saved."""


def drive(
    run: Run | None,
    state: State,
    task: Task,
    feeds: Feeds,
    plan: Plan,
    choice: Choice,
    crew: Crew,
) -> Iterator[Step | Epoch]:
    """`fit`, record by record, each one kept in `run` (None: this process does not write).

    Raises `Interrupted` after Ctrl-C or SIGTERM, with the state saved; `Diverged` with the state
    and the bad batch saved for replay.
    """
    keeper = _Keeper(run, state, plan, len(feeds.train)) if run is not None else None
    with contextlib.closing(keeper) if keeper else contextlib.nullcontext(), _Stop() as stop:
        try:
            for record in fit(state, task, feeds, plan, choice, crew):
                if keeper:
                    keeper.keep(record)
                yield record
                if crew.any(stop.asked is not None):
                    raise Interrupted(_farewell(run, keeper, state))
        except Diverged as bad:
            if keeper:
                raise keeper.replayable(bad) from None
            raise


class _Keeper:
    """Writes records as they come and checkpoints when they are due."""

    def __init__(self, run: Run, state: State, plan: Plan, steps_per_epoch: int) -> None:
        self.run, self.state, self.plan = run, state, plan
        every = max(1, steps_per_epoch // LINES_PER_EPOCH)
        self.log = Log(run.folder, every, from_step=state.step)
        self.pace = _Pace()
        self.saved = time.monotonic()
        if state.step == 0:
            run.save(state)

    def keep(self, record: Step | Epoch) -> None:
        if isinstance(record, Epoch):
            self.log.epoch(record)
        else:
            self.log.step(record, self.pace(record.images))
        steps = self.plan.checkpoint_steps
        on_step = steps is not None and isinstance(record, Step) and record.step % steps == 0
        if on_step or time.monotonic() - self.saved >= self.plan.checkpoint_seconds:
            self.save()

    def save(self) -> None:
        self.run.save(self.state)
        self.saved = time.monotonic()

    def replayable(self, bad: Diverged) -> Diverged:
        """Save the state before the bad step and the batch that broke it; say where."""
        self.save()
        path = self.run.folder / "diverged.safetensors"
        batch = {"images": bad.batch.images, "targets": bad.batch.targets, "rows": bad.batch.rows}
        record = {"step": self.state.step, "diagnosis": bad.diagnosis.text}
        save_tensors(path, batch, record)
        message = f"{bad} The batch is kept in {path}, the weights before it in checkpoints/."
        return Diverged(message, bad.batch, bad.diagnosis)

    def close(self) -> None:
        self.log.close()


class _Pace:
    """Images per second since the last call."""

    def __init__(self) -> None:
        self.last = time.perf_counter()

    def __call__(self, images: int) -> float:
        now = time.perf_counter()
        rate = images / max(now - self.last, 1e-9)
        self.last = now
        return rate


class _Stop:
    """Notes the first SIGINT or SIGTERM and gives the second its usual effect."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.asked: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._note) for s in self.SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        for each, handler in self._before.items():
            signal.signal(each, handler)


def _farewell(run: Run | None, keeper: _Keeper | None, state: State) -> str:
    if run is None or keeper is None:
        return "stopped"
    keeper.save()
    return f"stopped and saved at step {state.step}: go on with 'hubel resume {run.folder}'"
