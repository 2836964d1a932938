"""A model against one part of the data: sums that merge, in eval mode, nothing left changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hubel.data.feed import Feed
from hubel.models.tiles import Tiled
from hubel.tasks.task import Task
from hubel.training.distribute import Crew
from hubel.training.native import native_outputs
from hubel.training.speed import Choice


def evaluate(
    model: nn.Module,
    task: Task,
    feed: Feed,
    crew: Crew,
    choice: Choice | None = None,
    each: Callable[[Tensor, Tensor, Tensor], None] | None = None,
) -> Any:
    """The tally of `model` over the feed's first epoch, summed over the crew.

    A net that labels pixels takes images of more than 1024 x 1024 by tiles, and of any size in
    PyTorch: a compiled step is made for one.

    Args:
        each: called with (rows int64 (n,), targets, probabilities) of every batch, on the CPU.
    """
    choice = choice or Choice()
    total = task.empty()
    net = model
    if task.kind == "segment":
        net, choice = Tiled(model).train(model.training), replace(choice, native=False)
    for rows, targets, outputs in predictions(net, feed, choice):
        total = total + task.tally(outputs, targets)
        if each is not None:
            each(rows, targets.cpu(), task.decode(outputs).cpu())
    return task.untold(crew.total(total.to_tensor()))


def predictions(
    model: nn.Module, feed: Feed, choice: Choice
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(rows, targets, outputs) batch by batch. The model's mode comes back as it was."""
    training = model.training
    model.eval()
    try:
        for batch in feed.batches():
            outputs = native_outputs(model, batch.images) if choice.native else None
            if outputs is None:
                with torch.inference_mode(), choice.autocast(batch.images.device):
                    outputs = model(choice.layout(batch.images))
            yield batch.rows, batch.targets, outputs
    finally:
        model.train(training)
