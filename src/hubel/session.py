"""One training put together: from a plan and a source to feeds, task, model and report.

Stands right of all the rooms that do the work, and left of those who speak to people.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hubel.data.check import Findings, quick_check
from hubel.data.feed import Feed, MemoryStore, Store, open_store
from hubel.data.files import FileSource
from hubel.data.folds import fold_split
from hubel.data.preprocess import Preprocess
from hubel.data.record import ArraySource, Batch, Source
from hubel.data.split import Split, make_split
from hubel.engine.native.graph import NotCovered
from hubel.errors import BrokenImage, DataError
from hubel.runs.remember import recall, remember, signature
from hubel.runs.weights import Card
from hubel.tasks.classify import Classify
from hubel.training.distribute import Crew
from hubel.training.fit import Epoch, Feeds, Step
from hubel.training.native import NativeRunner, check_native, has_half, native_runner
from hubel.training.plan import Plan
from hubel.training.speed import Choice, measure

STATISTICS_IMAGES = 2000  # the mean of so many images is within 0.2 % of full scale of all
JUDGED_PIXELS = 256 * 64 * 64  # of a batch that is judged; its features are a hundred times more
NATIVE_SIDE = 64  # images of one size, up to this, are taken as they are; others come to it


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
    task: Classify
    crew: Crew

    def judge(self, part: str, most: int | None = None) -> Feed | None:
        """An unshuffled feed of a part, for evaluation; None where the part is empty.

        Args:
            most: at most so many images, evenly spread.
        """
        rows = getattr(self.split, part)
        if most is not None and len(rows) > most:
            rows = rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
        return _feed(self, rows) if len(rows) else None


def prepare(
    plan: Plan, source: Source, split: Split, card: Card, crew: Crew, tell: Tell = silent
) -> Setting:
    """Open the store and the feeds."""
    if isinstance(source, FileSource):
        source.largest = card.preprocess.enough
    store = open_store(
        source,
        card.preprocess,
        crew.device,
        workers=plan.workers,
        progress=lambda done, of: tell(Stage("reading images", done, of)),
    )
    task = Classify(card.classes, plan.smoothing)
    blank = Setting(plan, source, split, card, store, None, task, crew)  # type: ignore[arg-type]
    train = _feed(blank, split.train)
    train = replace(
        train,
        batch=plan.batch,
        shuffle=True,
        augment=plan.augment,
    )
    val = _feed(blank, split.val) if len(split.val) else None
    return replace(blank, feeds=Feeds(train, val))


def choose_split(plan: Plan, source: Source) -> Split:
    """Which images train, validate and test, drawn by the plan's split seed. Raises `DataError`."""
    seed = plan.seed if plan.split_seed is None else plan.split_seed
    if plan.fold is not None:
        return fold_split(source, plan.fold, val=plan.val, seed=seed)
    return make_split(source, val=plan.val, test=plan.test, seed=seed)


def choose_preprocess(
    plan: Plan,
    source: Source,
    split: Split,
    default_side: int,
    smallest: tuple[int, int] = (1, 1),
) -> Preprocess:
    """Channels, size and scale, from the plan and a look at the training images.

    Size: the plan's; else that of the images where all share one of at most 64 pixels a side and
    the model takes it (from `smallest` up); else 64 pixels, or the model's usual side where that
    is larger. Raises `DataError` where no image
    looked at can be read.
    """
    rng = np.random.default_rng(split.seed)  # runs with one split are fed alike
    rows = rng.permutation(split.train)[:STATISTICS_IMAGES]
    if isinstance(source, ArraySource):
        images = [source.images[row] for row in rows]
    else:
        images = _whole(source, rows[:400].tolist())
    shapes = {image.shape[1:] for image in images}
    channels = 1 if all(image.shape[0] == 1 for image in images) else 3
    size = plan.size
    if size is None:
        same = next(iter(shapes)) if len(shapes) == 1 else (NATIVE_SIDE + 1,) * 2
        side = max(default_side, NATIVE_SIDE)
        enough = same[0] >= smallest[0] and same[1] >= smallest[1]
        size = (same[0], same[1]) if enough and max(same) <= NATIVE_SIDE else (side, side)
    half = (0.5,) * channels
    plain = Preprocess(channels, size[0], size[1], plan.fit, half, half)
    prepared = np.stack([plain.image(image) for image in images]) / np.float32(255)
    mean = prepared.mean(axis=(0, 2, 3), dtype=np.float64)
    std = prepared.std(axis=(0, 2, 3), dtype=np.float64)
    return replace(
        plain,
        mean=tuple(round(float(m), 4) for m in mean),
        std=tuple(round(max(float(s), 1e-3), 4) for s in std),
    )


def choose_speed(setting: Setting, model: nn.Module) -> Choice:
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
    """The quick check, on images already in memory where they are."""
    store = setting.store
    images = store.images if isinstance(store, MemoryStore) else None
    return quick_check(setting.source, setting.split, images, store.broken)


def _feed(setting: Setting, rows: NDArray[np.int64]) -> Feed:
    return Feed(
        store=setting.store,
        rows=torch.from_numpy(rows),
        targets=setting.task.encode(setting.source.targets),
        classes=len(setting.card.classes),
        batch=judged_batch(setting),
        device=setting.crew.device,
        seed=setting.plan.seed,
        rank=setting.crew.rank,
        world=setting.crew.world,
    )


def judged_batch(setting: Setting) -> int:
    """Images that are judged at a time: small ones by the hundred, large ones as in training."""
    shape = setting.card.preprocess
    fitting = JUDGED_PIXELS // (shape.height * shape.width)
    return max(setting.plan.batch, min(fitting, 256))


def _whole(source: Source, rows: list[int]) -> list[NDArray[np.uint8]]:
    found = []
    for row in rows:
        try:
            found.append(source[row].image)
        except BrokenImage as error:
            trouble = error
    if not found:
        raise DataError(f"none of the first {len(rows)} training images can be read: {trouble}")
    return found
