"""The training loop, on one page.

    for every epoch:
        for every batch:  rate -> step -> yield Step
        judge on the validation part -> keep the best -> yield Epoch

`fit` knows no file, no terminal and no clock but the one it reports. At every yield the state is
whole: whoever consumes it may save it, stop, and go on later as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hubel.data.feed import Feed
from hubel.data.record import Batch
from hubel.engine.native.views import views
from hubel.errors import TrainingError
from hubel.tasks.task import Task
from hubel.training.distribute import Crew
from hubel.training.doctor import Diagnosis, diagnose
from hubel.training.evaluate import evaluate
from hubel.training.plan import Plan
from hubel.training.schedule import learning_rate
from hubel.training.sizes import resized, share_of
from hubel.training.speed import Choice
from hubel.training.state import Best, State, Sums
from hubel.training.update import NotFinite, Outcome, Update


class Step(NamedTuple):
    """One optimiser step, done: number `step` (from 1) of `steps`, in epoch `epoch` (from 0)."""

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    rate: float
    norm: float
    images: int
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch, done and judged. `val` is None where there is no validation part."""

    epoch: int
    step: int
    train: dict[str, float]
    val: dict[str, float] | None
    rate: float
    seconds: float
    best: bool

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Diverged(TrainingError):
    """The loss or a gradient is not finite. The state is as it was before the bad step."""

    def __init__(self, message: str, batch: Batch, diagnosis: Diagnosis) -> None:
        super().__init__(message)
        self.batch = batch
        self.diagnosis = diagnosis


@dataclass(frozen=True)
class Feeds:
    """The training batches and, where there is such a part, the validation batches."""

    train: Feed
    val: Feed | None


def fit(
    state: State, task: Task, feeds: Feeds, plan: Plan, choice: Choice, crew: Crew
) -> Iterator[Step | Epoch]:
    """Train from where `state` stands to the plan's end, or to where patience runs out.

    Raises `Diverged` at the first step whose loss or gradient is not finite, and `TrainingError`
    where too large a share of the images turns out broken.
    """
    update = Update(state, task, plan, choice, crew)
    for feed in (feeds.train, feeds.val):
        if feed is not None and choice.native:
            feed.mover = views
    clock, total = _Clock(), plan.epochs * len(feeds.train)
    while not finished(state, plan):
        update.open_epoch(feeds.train)
        for batch in feeds.train.batches(state.epoch, skip=state.position):
            rate = _rate(state, plan, state.step, total)
            share = share_of(plan, state.epoch, state.step)
            if share != 1:
                batch.images = resized(batch.images, share)
            outcome = _step(update, batch, rate)
            _advance(state, outcome, batch)
            state.seconds += clock.lap()
            yield _told(state, outcome, rate, plan, total)
        check_broken(feeds.train, plan.max_broken)
        state.seconds += clock.lap()
        record = _close_epoch(state, task, feeds, plan, choice, crew)
        state.judging += clock.lap()
        yield record


def finished(state: State, plan: Plan) -> bool:
    """Whether the plan's epochs are over, or nothing has been gained for `patience` of them."""
    return state.epoch >= plan.epochs or (
        plan.patience is not None and state.still >= plan.patience
    )


def check_broken(feed: Feed, allowed: float) -> None:
    """Raises `TrainingError` with the list where more than `allowed` of the images are broken."""
    broken = feed.store.broken
    if len(broken) > allowed * len(feed.store.source):
        names = "; ".join(str(error) for error in list(broken.values())[:10])
        more = f"; and {len(broken) - 10} more" if len(broken) > 10 else ""
        raise TrainingError(
            f"{len(broken)} of {len(feed.store.source)} images are broken, "
            f"more than the allowed {allowed:.0%} (--max-broken): {names}{more}"
        )


def _step(update: Update, batch: Batch, rate: float) -> Outcome:
    try:
        return update(batch, rate)
    except NotFinite as bad:
        raise _diverged(update, batch, rate, bad) from None


class _Clock:
    """Seconds since the last lap. What the consumer does with a record counts into the next."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds


def _told(state: State, outcome: Outcome, rate: float, plan: Plan, total: int) -> Step:
    return Step(
        state.step, total, state.epoch, plan.epochs, outcome.loss, rate, outcome.norm, outcome.seen,
        outcome.note,
    )  # fmt: skip


def _rate(state: State, plan: Plan, step: int, total: int) -> float:
    return learning_rate(plan.schedule, plan.optimiser.lr, step, total, drops=state.drops)


def _advance(state: State, outcome: Outcome, batch: Batch) -> None:
    state.step += 1
    state.position = batch.number + 1
    state.sums.loss += outcome.loss * outcome.seen
    state.sums.hits += outcome.hits
    state.sums.counted += outcome.counted
    state.sums.seen += outcome.seen
    state.images += outcome.seen


def _close_epoch(
    state: State,
    task: Task,
    feeds: Feeds,
    plan: Plan,
    choice: Choice,
    crew: Crew,
) -> Epoch:
    rate = _rate(state, plan, state.step - 1, plan.epochs * len(feeds.train))
    crew.spread(list(state.judged.buffers()))  # one net is judged and kept, by all its processes
    train = _training_scores(state.sums, task, crew)
    val = None
    if feeds.val is not None:
        val = task.scores(evaluate(state.judged, task, feeds.val, crew, choice))
    told = math.nan if val is None else val[task.headline]
    score = -train["loss"] if math.isnan(told) else told  # no image, or no label, to judge by
    best = _judge(state, plan, score)
    number, state.epoch, state.position, state.sums = state.epoch, state.epoch + 1, 0, Sums()
    record = Epoch(number, state.step, train, val, rate, state.seconds + state.judging, best)
    state.history.append(record.to_json())
    return record


def _training_scores(sums: Sums, task: Task, crew: Crew) -> dict[str, float]:
    loss, hits, seen, counted = crew.total(
        torch.tensor([sums.loss, sums.hits, sums.seen, sums.counted], dtype=torch.float64)
    ).tolist()
    if not seen:
        return {}
    return {"loss": loss / seen, task.running: hits / counted if counted else math.nan}


def _judge(state: State, plan: Plan, score: float) -> bool:
    """Keep the weights if they are the best so far; else count the epochs without a gain."""
    gained = score > state.best.score or (state.best.epoch < 0 and not math.isnan(score))
    if gained:
        weights = {name: t.detach().cpu().clone() for name, t in state.judged.state_dict().items()}
        state.best = Best(score, state.epoch, weights)
        state.still = state.still_drop = 0
    else:
        state.still += 1
        state.still_drop += 1
    if plan.schedule.name == "plateau" and state.still_drop >= plan.schedule.wait:
        state.drops += 1
        state.still_drop = 0
    return gained


def _diverged(update: Update, batch: Batch, rate: float, bad: NotFinite) -> Diverged:
    state = update.state

    def loss_of(outputs: Any, targets: Tensor) -> dict[str, Tensor]:
        return update.task.loss(outputs, targets)

    update.freezer.train()
    update.seed()
    for images, targets in update.pieces(batch):
        with update.choice.autocast(images.device):
            diagnosis = diagnose(state.model, images, targets, loss_of)
        if diagnosis.kind != "nothing":
            break
    return Diverged(
        f"training diverged at step {state.step + 1} (epoch {state.epoch + 1}, batch "
        f"{state.position + 1}): loss {bad.loss:g}, gradient norm {bad.norm:g}, "
        f"learning rate {rate:.3g}. {diagnosis.text}",
        batch,
        diagnosis,
    )
