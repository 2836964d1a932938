"""The learning-rate range test: train with a rate that grows, and see where the loss falls fastest.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks".
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import nn

from hubel.data.feed import Feed
from hubel.data.record import Batch
from hubel.errors import TrainingError
from hubel.tasks.task import Task
from hubel.training.distribute import Crew
from hubel.training.plan import Plan
from hubel.training.speed import Choice
from hubel.training.state import State
from hubel.training.update import NotFinite, Update

LOWEST, HIGHEST = 1e-6, 10.0
SMOOTHING = 0.9  # of the running mean that the loss is read from; single batches are too noisy
TOO_HIGH = 4.0  # the test ends when the loss is so many times its lowest


@dataclass(frozen=True)
class Range:
    """What the test saw.

    Attributes:
        rates: learning rate of each step, rising geometrically.
        losses: smoothed training loss at each.
        suggested: the rate at which the loss fell fastest.
        highest: the last rate at which the loss still stood below where it began.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggested: float
    highest: float


def lr_range(
    model: nn.Module, task: Task, feed: Feed, plan: Plan, crew: Crew, steps: int = 100
) -> Iterator[tuple[float, float] | Range]:
    """Yields (rate, smoothed loss) step by step, and the `Range` at the end. A copy is trained.

    Raises `TrainingError` where the loss is not finite from the start.
    """
    state = State.start(copy.deepcopy(model), plan, crew.world)
    update = Update(state, task, plan, Choice(), crew)
    update.open_epoch(feed)
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    for step, batch in enumerate(_endless(feed, steps)):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (steps - 1))
        try:
            loss = update(batch, rate).loss
        except NotFinite:
            break
        state.step += 1
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed = mean / (1 - SMOOTHING ** (step + 1))
        if losses and smoothed > TOO_HIGH * min(losses):
            break
        rates.append(rate)
        losses.append(smoothed)
        yield rate, smoothed
    yield _read(rates, losses)


def _read(rates: list[float], losses: list[float]) -> Range:
    if len(rates) < 5:
        raise TrainingError(
            f"the loss is not finite within {len(rates)} steps, even at a learning rate of "
            f"{LOWEST:g}: look at the data and the model, not at the rate"
        )
    below = [rate for rate, loss in zip(rates, losses, strict=True) if loss < losses[0]]
    highest = max(below, default=LOWEST)
    return Range(tuple(rates), tuple(losses), _round(_steepest(rates, losses)), _round(highest))


def _steepest(rates: list[float], losses: list[float]) -> float:
    """Where the loss falls fastest over a window of a tenth of the test, on its way to the lowest.

    The first tenth is the running mean finding its level, and says nothing.
    """
    window = max(2, len(losses) // 10)
    last = max(int(np.argmin(losses)), 2 * window)
    fall = np.array(losses[: last + 1 - window]) - np.array(losses[window : last + 1])
    start = window + int(np.argmax(fall[window:]))
    return rates[start + window // 2]


def _round(rate: float) -> float:
    """Two digits: the test knows no more."""
    return float(f"{rate:.1e}") if math.isfinite(rate) else rate


def _endless(feed: Feed, steps: int) -> Iterator[Batch]:
    """`steps` batches, going through the epochs as often as it takes."""
    taken, epoch = 0, 0
    while taken < steps:
        for batch in feed.batches(epoch):
            if taken == steps:
                return
            taken += 1
            yield batch
        epoch += 1
