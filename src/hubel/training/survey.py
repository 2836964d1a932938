"""The lie of the land before an epoch: curvature on some of its images, for `sdlm`.

LeCun et al. 1998, appendix C: 500 training images before every pass, and the curvature found on
them serves for the whole pass.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from hubel.data.feed import Feed
from hubel.data.order import generator
from hubel.engine.curvature import curvature
from hubel.tasks.task import Task
from hubel.training.distribute import Crew
from hubel.training.state import State

IMAGES = 500
PIECE = 50  # images at a time: the engine keeps every value


def survey(
    state: State, task: Task, feed: Feed, seed: int, crew: Crew
) -> dict[nn.Parameter, Tensor]:
    """Curvature along every weight that moves, at 500 images drawn by seed and epoch.

    They come as the epoch's own batches do, augmented; the model is run in the mode it is in.
    Raises `ModelError` for a net whose curvature is not known (`engine/curvature.py`).
    """
    order = torch.randperm(len(feed.rows), generator=generator(seed, "curvature", state.epoch))
    drawn = replace(feed, rows=feed.rows[order[:IMAGES]], batch=PIECE, shuffle=False)

    seen = 0
    sums: dict[str, Tensor] = {}
    for batch in drawn.batches(state.epoch):
        seen += len(batch)
        for name, h in curvature(state.model, batch.images, batch.targets, task.total).items():
            sums[name] = sums.get(name, torch.zeros_like(h)) + len(batch) * h
    means = {name: h / seen for name, h in sums.items()}
    crew.average(list(means.values()))
    weights = dict(state.model.named_parameters())
    return {weights[name]: h for name, h in means.items()}
