"""Run by test_drive.py: trains for long enough to be broken off. Says every step it does."""

import sys
from pathlib import Path

import numpy as np

from hubel import api
from hubel.data.record import ArraySource
from hubel.errors import HubelError
from hubel.training.fit import Step


def source():
    draw = np.random.default_rng(0)
    targets = np.arange(240) % 2
    images = draw.integers(0, 120, (240, 1, 16, 16), dtype=np.uint8)
    images[targets == 1, :, 4:8] += 100
    return ArraySource(images, targets, ("plain", "striped"), name="stripes", origin="made here")


def say(event):
    if isinstance(event, Step):
        print("step", event.step, flush=True)


def main(folder, verb="train"):
    words = {"data": source(), "tell": say}
    if verb == "resume":
        return api.resume(Path(folder) / "runs" / "r", **words)
    return api.train(
        "compact",
        out=Path(folder) / "runs",
        name="r",
        epochs=10,
        batch=16,
        ema=0.9,
        dropout=0.1,
        tune="off",
        checkpoint_steps=3,
        augment={"flip": True, "shift": 2},
        **words,
    )


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
        print("finished")
    except HubelError as error:
        sys.exit(str(error))
