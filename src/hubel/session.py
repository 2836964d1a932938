"""One training put together: from a plan and a source to feeds, task, model and report.

Stands right of all the rooms that do the work, and left of those who speak to people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from hubel.data.feed import Feed
from hubel.data.findings import Findings
from hubel.data.folds import fold_split
from hubel.data.record import Batch, Source
from hubel.data.split import Split, make_split
from hubel.data.store import Store
from hubel.engine.native.graph import NotCovered
from hubel.errors import BrokenImage, DataError
from hubel.kinds.kind import Kind
from hubel.kinds.table import kind_of
from hubel.runs.remember import recall, remember, signature
from hubel.runs.weights import Card
from hubel.tasks.task import Task
from hubel.training.distribute import Crew
from hubel.training.fit import Epoch, Feeds, Step
from hubel.training.native import NativeRunner, check_native, has_half, native_runner
from hubel.training.plan import Plan
from hubel.training.speed import Choice, measure

MOST_TOLD = 10  # broken images that are named


@dataclass(frozen=True)
class Notice:
    """A line for the user: level "note" or "warning"."""

    text: str
    level: str = "note"


@dataclass(frozen=True)
class Stage:
    """Long work other than training: what, how much of it, of how much."""

    text: str
    done: int
    of: int


Event = Notice | Stage | Step | Epoch
Tell = Callable[[Event], None]


def silent(event: Event) -> None:
    """Tells nobody."""


def downloading(tell: Tell) -> Callable[[str, int, int | None], None]:
    """`open_source`'s progress, told as stages."""
    return lambda name, done, of: tell(Stage(f"downloading {name}", done, of or done))


@dataclass(frozen=True)
class Setting:
    """A plan, with everything it names opened and ready."""

    plan: Plan
    source: Source
    split: Split
    card: Card
    store: Store
    feeds: Feeds
    task: Task
    crew: Crew

    @property
    def kind(self) -> Kind:
        """The ways of its task."""
        return kind_of(self.card.task)

    def judge(self, part: str, most: int | None = None) -> Feed | None:
        """An unshuffled feed of a part, for evaluation; None where the part is empty.

        Args:
            most: at most so many images, evenly spread.
        """
        rows = getattr(self.split, part)
        if most is not None and len(rows) > most:
            rows = rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
        if not len(rows):
            return None
        return self.kind.feed(self.plan, self.task, self.store, rows, self.crew)


def prepare(
    plan: Plan, source: Source, split: Split, card: Card, crew: Crew, tell: Tell = silent
) -> Setting:
    """Open the store and the feeds."""
    kind = kind_of(card.task)
    store = kind.open_store(
        plan,
        card,
        source,
        crew.device,
        lambda done, of: tell(Stage("reading images", done, of)),
    )
    task = kind.task(card, plan)
    train = kind.training_feed(plan, task, store, split.train, crew)
    val = kind.feed(plan, task, store, split.val, crew) if len(split.val) else None
    return Setting(plan, source, split, card, store, Feeds(train, val), task, crew)


def tell_broken(broken: Mapping[int, BrokenImage], tell: Tell) -> None:
    """A warning for each image that was left out; of many, for the first ten and their number.

    Args:
        broken: by their rows, as stores keep them.
    """
    for row in sorted(broken)[:MOST_TOLD]:
        error = broken[row]
        tell(Notice(f"left out: {error}", "warning"))
    if len(broken) > MOST_TOLD:
        tell(Notice(f"and {len(broken) - MOST_TOLD} more are left out", "warning"))


def choose_split(plan: Plan, source: Source) -> Split:
    """Which images train, validate and test, drawn by the plan's split seed. Raises `DataError`."""
    seed = plan.seed if plan.split_seed is None else plan.split_seed
    if plan.fold is not None:
        return fold_split(source, plan.fold, val=plan.val, seed=seed)
    return make_split(source, val=plan.val, test=plan.test, seed=seed)


def choose_speed(setting: Setting, model: nn.Module, tell: Tell = silent) -> Choice:
    """How steps are run: as remembered for this machine and model, else measured and remembered.

    Only the leader measures; several processes must agree, so a crew keeps to the plain way.
    """
    plan, crew = setting.plan, setting.crew
    plain = Choice(precision="bf16" if plan.precision == "bf16" else "fp32")
    if plan.engine == "explicit":
        return replace(plain, why="by hubel's own formulas, forward and backward, without autograd")
    if plan.engine == "native":
        return _native_or(plain, setting, model)
    if plan.tune == "off":
        return replace(plain, why="not measured (--tune off)")
    if crew.world > 1:
        return replace(plain, why="not measured (several processes)")
    batch = _first_batch(setting)
    asked = f"{plan.precision} {plan.resize} {plan.engine}"
    key = signature(model, tuple(batch.images.shape), crew.device, asked)
    known = recall(key)
    if known is not None:
        return known
    native, hurdle = None, ""
    tell(Stage("measuring how steps run fastest", 0, 1))
    if plan.engine == "auto" and crew.device.type == "cpu":
        native, hurdle = _native_runner(setting, model, batch)
    chosen = measure(
        model,
        batch.images,
        batch.targets,
        setting.task.total,
        precision=plan.precision,
        steps=plan.epochs * len(setting.feeds.train) if plan.resize == "none" else 0,
        native=native,
        native_bf16=has_half(),
    )
    tell(Stage("measuring how steps run fastest", 1, 1))
    chosen = replace(chosen, why=chosen.why + hurdle)
    remember(key, chosen)
    return chosen


def _native_or(plain: Choice, setting: Setting, model: nn.Module) -> Choice:
    """The native step as asked for, or, where something stands in its way, PyTorch and why."""
    if setting.crew.device.type != "cpu":
        return replace(
            plain, why=f"PyTorch: the native step runs on CPUs, not {setting.crew.device}"
        )
    half = setting.plan.precision == "bf16"
    if half and not has_half():
        return replace(plain, why="PyTorch: this processor's native step has no bf16")
    batch = _first_batch(setting)
    try:
        check_native(model, setting.task, batch.images, batch.targets, half)
    except NotCovered as hurdle:
        return replace(plain, why=f"PyTorch: the native step cannot do {hurdle}")
    return replace(plain, native=True, why=f"hubel's native step, {plain.precision}, as asked for")


def _first_batch(setting: Setting) -> Batch:
    batch = next(setting.feeds.train.batches(0), None)
    if batch is None:
        raise DataError("no training image could be read")
    return batch


def _native_runner(
    setting: Setting, model: nn.Module, batch: Batch
) -> tuple[NativeRunner | None, str]:
    """What the measuring calls for the native step; or None, and what stands in its way."""
    try:
        check_native(model, setting.task, batch.images, batch.targets)
    except NotCovered as hurdle:
        return None, f"; no native step: {hurdle}"
    return native_runner(setting.task), ""


def check(setting: Setting) -> Findings:
    """The quick check of the setting's data."""
    return setting.kind.check(setting.source, setting.split, setting.store)
