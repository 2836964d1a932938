"""Run by test_drive.py: trains for long enough to be broken off. Says every step it does."""

import sys
from pathlib import Path

from made_sources import stripes

from hubel import api
from hubel.errors import HubelError
from hubel.training.fit import Step


def say(event):
    if isinstance(event, Step):
        print("step", event.step, flush=True)


def main(folder, verb="train"):
    words = {"data": stripes(), "tell": say}
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
