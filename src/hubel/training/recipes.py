"""What to train with when nothing is said: one line per model, one per kind of data.

Rates and lengths were tried on MNIST and Fashion-MNIST; benchmarks/README.md says what they reach.
"""

from __future__ import annotations

from typing import Any

from hubel.data.augment import Augment
from hubel.data.record import ArraySource, Source
from hubel.models.table import MODELS as NAMED
from hubel.training.plan import BODY, Plan

Words = dict[str, Any]

# "visits": images seen by a training, over all its epochs, within the bounds of LEAST and MOST.
GENERAL: Words = {
    "visits": 660_000,
    "batch": 128,
    "optimiser": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "schedule": {"name": "one-cycle"},
    "smoothing": 0.1,
}

# Without batch norm a deep net bears no more than a tenth of the usual rate.
DEEP_WITHOUT_NORMS: Words = {
    "optimiser": {"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4},
    "clip": 5.0,
}
UNNORMED_MASKS = (
    "unet", "fcn32s", "fcn16s", "fcn8s", "deeplab_v1", "sliding_window", "multiscale", "recurrent",
)  # fmt: skip
UNNORMED = ("alexnet", "alexnet_2012", "googlenet_2014", "vgg11", "vgg13", "vgg16", "vgg19")

MODELS: dict[str, Words] = {
    "softmax": {"optimiser": {"name": "adam", "lr": 1e-3}, "smoothing": 0.0},
    "mlp": {"optimiser": {"name": "adam", "lr": 1e-3, "weight_decay": 1e-4}, "smoothing": 0.0},
    "lenet5": {
        "visits": 800_000,
        "batch": 64,
        "optimiser": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
        "smoothing": 0.0,
    },
    "lenet5_1998": {
        "visits": 800_000,
        "batch": 64,
        "optimiser": {"name": "sgd", "lr": 0.002, "momentum": 0.9},
        "smoothing": 0.0,
    },
    "net32": {
        "batch": 64,
        "optimiser": {"name": "sgd", "lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4},
        "smoothing": 0.0,
    },
    **dict.fromkeys(UNNORMED, DEEP_WITHOUT_NORMS),
    **{name: {"smoothing": 0.0} for name in NAMED if name.startswith(("resnet", "plain"))},
}

# Rates that suit an optimiser which the recipe did not have in mind.
OPTIMISERS: dict[str, Words] = {
    "sgd": {"name": "sgd", "lr": 0.05},
    "adagrad": {"name": "adagrad", "lr": 0.01},
    "rmsprop": {"name": "rmsprop", "lr": 1e-3, "beta2": 0.99, "momentum": 0.0},
    "adam": {"name": "adam", "lr": 1e-3},
    "adamw": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01},
    "sdlm": {"name": "sdlm", "lr": 5e-4},
}

# A mirrored shoe is a shoe; a mirrored 2 is nothing.
DATA: dict[str, str] = {
    "fashion-mnist-sample": "flip,shift=1,erase=6",
    "fashion-mnist": "flip",
    "mnist": "shift=2",
    "cifar10": "flip,shift=4",
    "cifar100": "flip,shift=4",
}

# A net that begins from trained weights: its head first, then all of it, the body in small steps.
TRANSFER: Words = {
    "visits": 20_000,
    "batch": 32,
    "optimiser": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01},
    "smoothing": 0.1,
    "head_epochs": 1,
    "body_rate": 0.1,
}
ALONE: Words = {"head_epochs": 0, "body_rate": 1.0}  # a head over a frozen body

LEAST, MOST = 8, 20  # epochs

# A label for every pixel: a window of 256 x 256 teaches as much as a thousand small images.
MASKS: Words = {
    "visits": 6_000,
    "batch": 8,
    "optimiser": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.01},
    "schedule": {"name": "one-cycle"},
    "smoothing": 0.0,
    "clip": 5.0,
}
MASK_TRANSFER: Words = {"body_rate": 0.2}
MOST_OF_MASKS = 40


def mask_recipe(plan: Plan, windows: int, shown: int, channels: int) -> Words:
    """Plan words for a net that labels pixels.

    Args:
        windows: of each image in an epoch; `shown`: of all of them.
        channels: of the images. Photos (3) keep their right side up; in a microscope's pictures
            (1) no side is.
    """
    slower = plan.weights is not None and plan.freeze != BODY
    words = {**MASKS, **(MASK_TRANSFER if slower else {})}
    if plan.body in UNNORMED or (plan.model in UNNORMED_MASKS and plan.body is None):
        words["optimiser"] = {**words["optimiser"], "lr": 5e-4}
    visits = words.pop("visits")
    words["epochs"] = min(MOST_OF_MASKS, max(LEAST, round(visits / max(shown, 1))))
    photo = Augment(flip=True, scale=0.25, jitter=0.2)
    words["augment"] = photo if channels == 3 else Augment(flip=True, vflip=True, rotate=180)
    words["masks"] = {"windows": windows}
    return words


def recipe(model: str, source: Source, images: int, side: int, asked: Plan | None = None) -> Words:
    """Plan words for `model` on `source`.

    Args:
        images: how many there are to train on; few images are gone through more often.
        side: pixels of the model's input; photos shift by an eighth of it.
        asked: what the caller said; trained weights to begin from have a recipe of their own.
    """
    words = {**GENERAL, **MODELS.get(model, {})}
    if asked is not None and asked.weights is not None:
        words = {**GENERAL, **TRANSFER, **(ALONE if asked.freeze == BODY else {})}
    visits = words.pop("visits")
    words["epochs"] = min(MOST, max(LEAST, round(visits / max(images, 1))))
    photos = Augment() if isinstance(source, ArraySource) else Augment(flip=True, shift=side // 8)
    known = DATA.get(source.name)
    words["augment"] = Augment.parse(known) if known else photos
    if asked is not None and asked.freeze == BODY:
        words["augment"] = Augment()  # the body's features are then made once
    return words
