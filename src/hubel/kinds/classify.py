"""Classification: a label for every image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hubel.data import check as checks
from hubel.data.feed import Feed
from hubel.data.files import FileSource
from hubel.data.findings import Findings
from hubel.data.masks.folder import are_masks
from hubel.data.open import open_source
from hubel.data.preprocess import Preprocess
from hubel.data.record import ArraySource, Source
from hubel.data.sets import SETS
from hubel.data.split import Split
from hubel.data.store import MemoryStore, Store
from hubel.data.store import open_store as open_images
from hubel.errors import DataError, OptionError
from hubel.kinds.kind import Data, Downloaded, Told, Words, places_of, whole_images
from hubel.models.names import default_side, smallest
from hubel.runs.weights import Card
from hubel.tasks.classify import Classify, logits
from hubel.tasks.task import Task
from hubel.training.distribute import Crew
from hubel.training.plan import Plan
from hubel.training.recipes import recipe

STATISTICS_IMAGES = 2000  # the mean of so many images is within 0.2 % of full scale of all
STATISTICS_FILES = 400  # of images that have to be decoded for it
JUDGED_PIXELS = 256 * 64 * 64  # of a batch that is judged; its features are a hundred times more
NATIVE_SIDE = 64  # images of one size, up to this, are taken as they are; others come to it


def open_data(data: Data, plan: Plan, progress: Downloaded | None) -> Source:
    """As `Kind.open_data`. Images with masks are refused: nobody means "masks" as a class."""
    path = Path(data) if isinstance(data, str | Path) else None
    if path is not None and data not in SETS and path.is_dir() and are_masks(path):
        raise DataError(
            f"{path} holds images and masks: --task segment labels pixels "
            "(if its folders are classes, give them other names)"
        )
    return open_source(data, progress)


def choose_preprocess(
    plan: Plan, source: Source, split: Split, begin: Preprocess | None
) -> Preprocess:
    """Channels, size and scale: as trained weights were fed; else from the plan and a look at the
    training images.

    Size: the plan's; else that of the images where all share one of at most 64 pixels a side and
    the model takes it; else 64 pixels, or the model's usual side where that is larger. Raises
    `DataError` where no image looked at can be read.
    """
    if plan.fit == "same":
        raise OptionError("fit 'same' is for masks: to name images stretch, crop or pad them")
    if begin is not None:
        height, width = plan.size or (begin.height, begin.width)
        return replace(begin, height=height, width=width, fit=plan.fit, kept=1.0)
    images = _looked_at(source, split)
    channels = 1 if all(image.shape[0] == 1 for image in images) else 3
    half = (0.5,) * channels
    size = plan.size or _usual_size(plan.model, {image.shape[1:] for image in images})
    plain = Preprocess(channels, size[0], size[1], plan.fit, half, half)
    prepared = np.stack([plain.image(image) for image in images]) / np.float32(255)
    mean = prepared.mean(axis=(0, 2, 3), dtype=np.float64)
    std = prepared.std(axis=(0, 2, 3), dtype=np.float64)
    return replace(
        plain,
        mean=tuple(round(float(m), 4) for m in mean),
        std=tuple(round(max(float(s), 1e-3), 4) for s in std),
    )


def _looked_at(source: Source, split: Split) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(split.seed)  # runs with one split are fed alike
    rows = rng.permutation(split.train)[:STATISTICS_IMAGES]
    if isinstance(source, ArraySource):
        return [source.images[row] for row in rows]
    return whole_images(source, rows[:STATISTICS_FILES].tolist())


def _usual_size(model: str, shapes: set[tuple[int, ...]]) -> tuple[int, int]:
    least, side = smallest(model), max(default_side(model), NATIVE_SIDE)
    same = next(iter(shapes)) if len(shapes) == 1 else (NATIVE_SIDE + 1,) * 2
    enough = same[0] >= least[0] and same[1] >= least[1]
    return (same[0], same[1]) if enough and max(same) <= NATIVE_SIDE else (side, side)


def usual(plan: Plan, source: Source, split: Split, preprocess: Preprocess) -> Words:
    """As `Kind.usual`."""
    return recipe(plan.model, source, len(split.train), preprocess.height, plan)


def settle(plan: Plan, source: Source, split: Split) -> Plan:
    """Nothing is left open."""
    return plan


def card(source: Source, preprocess: Preprocess) -> Card:
    """As `Kind.card`."""
    return Card(None, source.classes, preprocess)


def task(card: Card, plan: Plan) -> Task:
    """As `Kind.task`."""
    return Classify(card.classes, plan.smoothing)


def answers(outputs: Any) -> tuple[int, ...]:
    """As `Kind.answers`."""
    return tuple(logits(outputs).shape)


def wanted(card: Card, images: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
    """As `Kind.wanted`."""
    return (images[0], len(card.classes)), "one per class"


def open_store(
    plan: Plan, card: Card, source: Source, device: torch.device, progress: Told
) -> Store:
    """As `Kind.open_store`."""
    if isinstance(source, FileSource):
        source.largest = card.preprocess.enough
    return open_images(source, card.preprocess, device, workers=plan.workers, progress=progress)


def feed(plan: Plan, task: Task, store: Store, rows: NDArray[np.int64], crew: Crew) -> Feed:
    """Small images are judged by the hundred, large ones as in training."""
    assert isinstance(task, Classify)
    fitting = JUDGED_PIXELS // (store.preprocess.height * store.preprocess.width)
    return Feed(
        store=store,
        rows=torch.from_numpy(rows),
        targets=task.encode(store.source.targets),
        classes=len(task.classes),
        batch=max(plan.batch, min(fitting, 256)),
        device=crew.device,
        seed=plan.seed,
        rank=crew.rank,
        world=crew.world,
    )


def training_feed(
    plan: Plan, task: Task, store: Store, rows: NDArray[np.int64], crew: Crew
) -> Feed:
    """As `Kind.training_feed`."""
    judged = feed(plan, task, store, rows, crew)
    return replace(judged, batch=plan.batch, shuffle=True, augment=plan.augment)


def check(source: Source, split: Split, store: Store) -> Findings:
    """The quick check, on images already in memory where they are."""
    images = store.images if isinstance(store, MemoryStore) else None
    return checks.quick_check(source, split, images, store.broken)


def full_check(source: Source, progress: Told) -> Findings:
    """As `Kind.full_check`."""
    return checks.full_check(source, progress=progress)


def match(source: Source, card: Card) -> Source:
    """As `Kind.match`."""
    source.targets = places_of(source, card)[source.targets]
    source.classes = card.classes
    return source
