"""`hubel train` with tuning on: it chooses precision, memory layout and compilation itself.

The epochs are the recipe's, since the choice depends on how long there is to train; the meter has
enough long before they are over.
"""

from __future__ import annotations

import meter

import hubel
from hubel import api
from hubel.data.augment import Augment
from hubel.session import Event, Notice
from hubel.training.fit import Step


class Enough(Exception):
    """The meter has counted as long as it wanted."""


class Watch:
    """Tells the meter of every step, and ends the training when it has enough."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.count: meter.Meter | None = None
        self.said: list[str] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Notice):
            self.said.append(event.text)
        if isinstance(event, Step):
            self.count = self.count or meter.Meter(self.seconds)
            if self.count(event.images):
                raise Enough


def main() -> None:
    words = meter.words()
    watch = Watch(words.seconds)
    data = hubel.load_data(words.data)
    try:
        api.train(
            words.net,
            data,
            tell=watch,
            batch=words.batch,
            optimiser={"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.0},
            schedule={"name": "constant"},
            smoothing=0.0,
            augment=Augment(flip=words.shift > 0, shift=words.shift),
            val=0.0,
            test=0.0,
        )
    except Enough:
        pass
    images, _ = meter.load(words.data)
    net = hubel.build(words.net, classes=10, channels=images.shape[1], size=images.shape[2:])
    parameters = sum(p.numel() for p in net.parameters())
    assert watch.count is not None
    count = watch.count
    meter.answer(count.images, count.seconds, parameters, ["hubel", "torch"], choice=watch.said)


if __name__ == "__main__":
    main()
