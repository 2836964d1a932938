"""`Kind`: all that a training of one task needs to know about its data, and that other tasks do
otherwise: how images are opened, prepared, fed and checked, and what the net must answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hubel.data.feed import Feed
from hubel.data.findings import Findings
from hubel.data.preprocess import Preprocess
from hubel.data.record import Source
from hubel.data.split import Split
from hubel.data.store import Store
from hubel.errors import BrokenImage, DataError, ModelError
from hubel.runs.weights import Card
from hubel.tasks.task import Task
from hubel.training.distribute import Crew
from hubel.training.plan import Plan

Data = str | Path | Source | tuple[Any, Any]
Words = dict[str, Any]
Told = Callable[[int, int], None]
Downloaded = Callable[[str, int, int | None], None]


class Kind(Protocol):
    """One task's ways. A module that has these functions is one."""

    def open_data(self, data: Data, plan: Plan, progress: Downloaded | None) -> Source:
        """The labelled images. Raises `DataError`."""

    def choose_preprocess(
        self, plan: Plan, source: Source, split: Split, begin: Preprocess | None
    ) -> Preprocess:
        """What the net is fed; `begin` is what its trained weights were fed, if any."""

    def usual(self, plan: Plan, source: Source, split: Split, preprocess: Preprocess) -> Words:
        """The words of the recipe, for all that the caller has not said."""

    def settle(self, plan: Plan, source: Source, split: Split) -> Plan:
        """The plan with what the training images decide written in."""

    def card(self, source: Source, preprocess: Preprocess) -> Card:
        """What will stand beside the weights, without the architecture."""

    def task(self, card: Card, plan: Plan) -> Task:
        """What the net's answers mean."""

    def answers(self, outputs: Any) -> tuple[int, ...]:
        """The shape of the logits in what a net returned. Raises `ModelError` for what has none."""

    def wanted(self, card: Card, images: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
        """The shape they must have for such images, and it in words."""

    def open_store(
        self, plan: Plan, card: Card, source: Source, device: torch.device, progress: Told
    ) -> Store:
        """Where prepared images come from."""

    def feed(
        self, plan: Plan, task: Task, store: Store, rows: NDArray[np.int64], crew: Crew
    ) -> Feed:
        """Batches to be judged."""

    def training_feed(
        self, plan: Plan, task: Task, store: Store, rows: NDArray[np.int64], crew: Crew
    ) -> Feed:
        """Batches to learn from."""

    def check(self, source: Source, split: Split, store: Store) -> Findings:
        """The quick check of the data."""

    def full_check(self, source: Source, progress: Told) -> Findings:
        """The check that reads every image and every label."""

    def match(self, source: Source, card: Card) -> Source:
        """Other data with the card's classes, by name. Raises `DataError` for strange ones."""


def must_fit(kind: Kind, net: nn.Module, card: Card) -> None:
    """Raises `ModelError` unless the net answers two images with logits of the right shape."""
    p = card.preprocess
    shape = (2, p.channels, p.height, p.width)
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    training = net.training
    try:
        with torch.inference_mode():
            found = kind.answers(net.eval()(torch.zeros(shape, device=device)))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"the model cannot take images {shape}: {reason}") from None
    finally:
        net.train(training)
    wanted, words = kind.wanted(card, shape)
    if found != wanted:
        raise ModelError(
            f"the model must answer images {shape} with {wanted} logits, {words}; it gave {found}"
        )


def whole_images(source: Source, rows: list[int]) -> list[NDArray[np.uint8]]:
    """The images of these rows that can be read. Raises `DataError` where none can."""
    found = []
    for row in rows:
        try:
            found.append(source[row].image)
        except BrokenImage as error:
            trouble = error
    if not found:
        raise DataError(f"none of the first {len(rows)} training images can be read: {trouble}")
    return found


def places_of(source: Source, card: Card) -> NDArray[np.int64]:
    """Where each class of the source stands among the card's. Raises `DataError` for a strange
    one."""
    strange = sorted(set(source.classes) - set(card.classes))
    if strange:
        raise DataError(
            f"class {strange[0]!r} of {source.origin} is not one of the run's: "
            f"{', '.join(card.classes)}"
        )
    return np.array([card.classes.index(name) for name in source.classes], dtype=np.int64)
