"""Training a head over a frozen body: the body's features are made once, not every epoch.

Where the body stands still and every image comes as it is (no augmentation, one size), an image
has the same features in every epoch. They are made in one pass over the training images, in their
own order and in batches of one size, so that a resumed training finds the same numbers again. The
net is in eval mode throughout, dropout in the body included.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hubel.data.augment import Augment
from hubel.data.feed import Feed
from hubel.models.head import head_of
from hubel.tasks.classify import logits
from hubel.tasks.task import Task
from hubel.training.distribute import Crew
from hubel.training.plan import BODY, Plan
from hubel.training.speed import Choice

ROOM = 2 << 30  # bytes that the features of all training images may take


def is_head_alone(plan: Plan) -> bool:
    """Whether the plan's images have the same features every time."""
    still = plan.freeze == BODY and plan.resize == "none" and plan.augment == Augment()
    return still and plan.engine != "explicit" and plan.task == "classify"


class HeadAlone:
    """Features of the training images, and steps of the head over them."""

    def __init__(self, model: nn.Module, task: Task, choice: Choice, crew: Crew) -> None:
        self.model, self.task, self.choice, self.crew = model, task, choice, crew
        self.head = model.get_submodule(head_of(model))
        self.place: dict[int, int] = {}  # row in the source -> row of the features
        self.features = torch.empty(0)

    def fill(self, feed: Feed) -> bool:
        """Make the features of all the feed's images.

        Returns False, with nothing kept, where the head's answer is not the net's, or where the
        features take too much room: the net then trains as a whole.
        """
        found: list[Tensor] = []
        rows: list[int] = []
        size = 0
        for batch in replace(feed, shuffle=False, rank=0, world=1).batches():
            features = self._through(batch.images)
            if features is None:
                return False
            size += features.nbytes
            if size * len(feed) > ROOM * (len(found) + 1):  # so much it will be at this rate
                return False
            found.append(features)
            rows += batch.rows.tolist()
        self.features = torch.cat(found)
        self.place = {row: number for number, row in enumerate(rows)}
        return True

    def __call__(self, rows: Tensor, t: Tensor, share: float, last: bool) -> tuple[Any, Tensor]:
        """As `passes.Pass`, with the images' rows in the place of the images."""
        places = torch.tensor([self.place[row] for row in rows.tolist()])
        features = self.features[places.to(self.features.device)]
        with self.choice.autocast(features.device):
            outputs = self.head(features)
            loss = share * self.task.total(outputs, t)
        loss.backward()  # type: ignore[no-untyped-call]
        if last:
            self.crew.average([p.grad for p in self.head.parameters() if p.grad is not None])
        return outputs, loss.detach()

    @torch.no_grad()
    def _through(self, images: Tensor) -> Tensor | None:
        """What the head is given for these images; None if its answer is not the net's."""
        seen: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        self.model.eval()
        with self.choice.autocast(images.device):
            try:
                outputs = logits(self.model(self.choice.layout(images)))
            finally:
                hook.remove()
            alike = len(seen) == 1 and torch.equal(self.head(seen[0]), outputs)
        return seen[0].detach() if alike else None
