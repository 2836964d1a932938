"""Run by test_distribute.py, alone or under torchrun: small trainings, their weights to files."""

import sys
from pathlib import Path

import numpy as np
from made_sources import stripes
from safetensors.torch import save_file

from hubel import api
from hubel.data.masks.open import open_masks
from hubel.session import Notice


def masks():
    """The stripes of the images, one image in two, as masks; of some images most is unlabelled."""
    images = stripes(250).images[:40]
    labels = (images[:, 0] > 110).astype(np.uint8)
    labels[::3, :13] = 255
    return open_masks((images[:, 0], labels))


def say(event):
    if isinstance(event, Notice):
        print("said:", event.text, flush=True)


OPTIONS = {
    "unet_padded": {"width": 4, "depth": 1},
    "unet": {"width": 4, "depth": 1},
}


def train(out, model):
    out.mkdir(exist_ok=True)
    options = OPTIONS.get(model)
    words = {"options": options, "masks": {"windows": 2}, "batch": 8} if options else {"batch": 32}
    words["dropout"] = 0.0 if model == "unet" else None
    words["engine"] = "explicit" if model == "mlp" else "auto"
    result = api.train(
        model, masks() if options else stripes(250), out=out / "runs", name="r", epochs=3,
        tune="off", augment={"flip": True, "shift": 2}, schedule={"name": "constant"}, tell=say,
        **words,
    )  # fmt: skip
    if result.folder.name == "r":
        save_file(result.model.state_dict(), out / "weights.safetensors")
        print("test", result.metrics["test"])


def main(out, *models):
    for model in models:
        train(Path(out) / model, model)


if __name__ == "__main__":
    main(*sys.argv[1:])
