"""Segmentation: a label for every pixel."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hubel.data.feed import Feed
from hubel.data.findings import Findings
from hubel.data.mask_feed import MaskFeed, MaskStore, open_mask_store
from hubel.data.masks.check import check_masks, class_shares
from hubel.data.masks.open import open_masks
from hubel.data.masks.record import MaskSource
from hubel.data.masks.renumbered import Renumbered
from hubel.data.preprocess import Preprocess
from hubel.data.record import Source
from hubel.data.split import Split
from hubel.data.store import Store
from hubel.errors import BrokenImage, DataError, OptionError, unknown
from hubel.kinds.kind import Data, Downloaded, Told, Words, places_of, whole_images
from hubel.runs.weights import Card
from hubel.tasks.segment import Segment, logits
from hubel.tasks.segmentation.balance import class_weights
from hubel.tasks.segmentation.border import border_weights
from hubel.tasks.task import Task
from hubel.training.distribute import Crew
from hubel.training.plan import Plan
from hubel.training.recipes import mask_recipe

LOOKED_AT = 60  # images whose sizes and colours decide what the net is fed
WHOLE = 320  # pixels: images of one size, up to this a side, are taken whole
WINDOW = 256  # pixels a side that are cut from larger ones
JUDGED_PIXELS = 1 << 19  # of a batch that is judged; every pixel keeps its features
LEAST_WINDOWS = 96  # in an epoch: fewer would be judged more often than they learn


def open_data(data: Data, plan: Plan, progress: Downloaded | None) -> Source:
    """As `Kind.open_data`."""
    if isinstance(data, Source):
        if not isinstance(data, MaskSource):
            raise DataError(f"{data.name} has a label for every image, not for every pixel")
        return data
    classes = Path(plan.masks.classes) if plan.masks.classes else None
    return open_masks(data, classes=classes, ignore=plan.masks.ignore)


def choose_preprocess(
    plan: Plan, source: Source, split: Split, begin: Preprocess | None
) -> Preprocess:
    """Channels, size and scale: as trained weights were fed; else from a look at the images.

    Fit "same" keeps the scale of the images: the net then learns from windows of the plan's size;
    if none is given, from whole images where all share one of at most 320 pixels a side, else
    from windows of 256 x 256 (less where images are smaller). Raises `DataError` where no image
    looked at can be read, `OptionError` for fit "crop".
    """
    if plan.fit == "crop":
        raise OptionError(
            "fit 'crop' would leave the border without labels: allowed for masks are same, "
            "stretch and pad"
        )
    images = whole_images(source, _looked_at(split))
    shapes = np.array([image.shape[1:] for image in images])
    if plan.fit != "same" and plan.size is None:
        raise OptionError(f"fit '{plan.fit}' needs the size to bring images to (--size 240x320)")
    height, width = plan.size or _window(shapes)
    if begin is not None:
        return replace(begin, height=height, width=width, fit=plan.fit, kept=1.0, filter="bilinear")
    channels = 1 if all(image.shape[0] == 1 for image in images) else 3
    mean, std = _statistics(images, channels)
    return Preprocess(channels, height, width, plan.fit, mean, std)


def _looked_at(split: Split) -> list[int]:
    rows: list[int] = np.random.default_rng(split.seed).permutation(split.train).tolist()
    return rows[:LOOKED_AT]


def _window(shapes: NDArray[np.int64]) -> tuple[int, int]:
    if len(np.unique(shapes, axis=0)) == 1 and shapes.max() <= WHOLE:
        return int(shapes[0, 0]), int(shapes[0, 1])
    height, width = np.minimum(np.median(shapes, axis=0).astype(int), WINDOW).tolist()
    return height, width


def _statistics(
    images: list[NDArray[np.uint8]], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of every channel, in units of full scale; all images count alike."""
    moments = []
    for image in images:
        wide = np.broadcast_to(image, (channels, *image.shape[1:])) / np.float32(255)
        axes = (1, 2)
        moments.append((wide.mean(axes, np.float64), np.square(wide).mean(axes, np.float64)))
    mean, square = np.mean(moments, axis=0)
    std = np.sqrt(np.maximum(square - np.square(mean), 0))
    return (
        tuple(round(float(m), 4) for m in mean),
        tuple(round(max(float(s), 1e-3), 4) for s in std),
    )


def usual(plan: Plan, source: Source, split: Split, preprocess: Preprocess) -> Words:
    """As `Kind.usual`."""
    windows = plan.masks.windows or _windows(source, split, preprocess)
    return mask_recipe(plan, windows, windows * len(split.train), preprocess.channels)


def _windows(source: Source, split: Split, preprocess: Preprocess) -> int:
    """So many windows of an image that they cover the usual one once, and that an epoch is not too
    short."""
    covering = 1
    if preprocess.fit == "same":
        pixels = preprocess.height * preprocess.width
        covering = max(1, round(_usual_area(source, _looked_at(split)) / pixels))
    return max(covering, math.ceil(LEAST_WINDOWS / max(len(split.train), 1)))


def _usual_area(source: Source, rows: list[int]) -> float:
    """The median of these images' pixels, as far as they can be read."""
    assert isinstance(source, MaskSource)
    areas = []
    for row in rows:
        with suppress(BrokenImage):
            areas.append(math.prod(source.size(row)[1:]))
    return float(np.median(areas)) if areas else 0.0


def settle(plan: Plan, source: Source, split: Split) -> Plan:
    """Class weights, where the plan asks for a balance; and how the masks were opened, by which
    they are opened again.

    Raises `OptionError` for an unknown class of objects and for weights that are not one per class.
    """
    assert isinstance(source, MaskSource)
    opened = {"classes": source.listed_in, "ignore": source.ignored}
    masks = plan.masks.model_copy(update=opened)
    plan = plan.model_copy(update={"masks": masks})
    if masks.objects is not None and masks.objects not in source.classes:
        raise OptionError(unknown("class", masks.objects, source.classes))
    if masks.weights is not None:
        if len(masks.weights) != len(source.classes):
            raise OptionError(
                f"weights must be one per class ({len(source.classes)}), given {len(masks.weights)}"
            )
        return plan
    if masks.balance == "none":
        return plan
    weights = class_weights(class_shares(source, split.train).tolist(), masks.balance)
    return plan.model_copy(update={"masks": masks.model_copy(update={"weights": weights})})


def card(source: Source, preprocess: Preprocess) -> Card:
    """As `Kind.card`."""
    assert isinstance(source, MaskSource)
    return Card(None, source.classes, preprocess, task="segment", colours=source.colours)


def task(card: Card, plan: Plan) -> Task:
    """As `Kind.task`."""
    return Segment(
        card.classes,
        card.colours or (),
        terms=plan.masks.terms,
        weights=plan.masks.weights,
        smoothing=plan.smoothing,
        objects=plan.masks.objects,
    )


def answers(outputs: Any) -> tuple[int, ...]:
    """As `Kind.answers`."""
    return tuple(logits(outputs).shape)


def wanted(card: Card, images: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
    """As `Kind.wanted`."""
    return (images[0], len(card.classes), *images[2:]), "one per class for every pixel"


def open_store(
    plan: Plan, card: Card, source: Source, device: torch.device, progress: Told
) -> Store:
    """As `Kind.open_store`."""
    weigh: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None = None
    if plan.masks.border and plan.masks.objects is not None:
        weigh = partial(
            border_weights,
            objects=card.classes.index(plan.masks.objects),
            w0=plan.masks.border,
            sigma=plan.masks.border_sigma,
        )
    assert isinstance(source, MaskSource)
    return open_mask_store(
        source, card.preprocess, device, weigh=weigh, workers=plan.workers, progress=progress
    )


def feed(plan: Plan, task: Task, store: Store, rows: NDArray[np.int64], crew: Crew) -> Feed:
    """Whole images; as many at a time as their pixels allow."""
    assert isinstance(store, MaskStore)
    pixels = store.preprocess.height * store.preprocess.width
    return MaskFeed(
        store=store,
        rows=torch.from_numpy(rows),
        batch=max(1, JUDGED_PIXELS // pixels),
        device=crew.device,
        seed=plan.seed,
        rank=crew.rank,
        world=crew.world,
    )


def training_feed(
    plan: Plan, task: Task, store: Store, rows: NDArray[np.int64], crew: Crew
) -> Feed:
    """Windows, augmented."""
    judged = feed(plan, task, store, rows, crew)
    assert isinstance(judged, MaskFeed)
    windows = plan.masks.windows or 1
    return replace(judged, batch=plan.batch, shuffle=True, augment=plan.augment, windows=windows)


def check(source: Source, split: Split, store: Store) -> Findings:
    """As `Kind.check`."""
    assert isinstance(source, MaskSource)
    return check_masks(source, split, store.broken)


def full_check(source: Source, progress: Told) -> Findings:
    """As `Kind.full_check`."""
    assert isinstance(source, MaskSource)
    return check_masks(source, None, full=True, progress=progress)


def match(source: Source, card: Card) -> Source:
    """As `Kind.match`: labels are renumbered as they are read."""
    assert isinstance(source, MaskSource)
    return Renumbered(source, places_of(source, card), card.classes, card.colours or ())
