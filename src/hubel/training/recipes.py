"""What to train with when nothing is said: one line per model, one per kind of data.

Rates and lengths were tried on MNIST and Fashion-MNIST; benchmarks/README.md says what they reach.
"""

from __future__ import annotations

from typing import Any

from hubel.data.augment import Augment
from hubel.data.record import ArraySource, Source
from hubel.models.names import MODELS as NAMED

Words = dict[str, Any]

# "visits": images seen by a training, over all its epochs, within the bounds of LEAST and MOST.
GENERAL: Words = {
    "visits": 660_000,
    "batch": 128,
    "optimiser": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "schedule": {"name": "one-cycle"},
    "smoothing": 0.1,
}

MODELS: dict[str, Words] = {
    "softmax": {"optimiser": {"name": "adam", "lr": 1e-3}, "smoothing": 0.0},
    "mlp": {"optimiser": {"name": "adam", "lr": 1e-3, "weight_decay": 1e-4}, "smoothing": 0.0},
    "lenet5": {
        "visits": 800_000,
        "batch": 64,
        "optimiser": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
        "smoothing": 0.0,
    },
    "net32": {
        "batch": 64,
        "optimiser": {"name": "sgd", "lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4},
        "smoothing": 0.0,
    },
    **{name: {"smoothing": 0.0} for name in NAMED if name.startswith(("resnet", "plain"))},
}

# Rates that suit an optimiser which the recipe did not have in mind.
OPTIMISERS: dict[str, Words] = {
    "sgd": {"name": "sgd", "lr": 0.05},
    "adagrad": {"name": "adagrad", "lr": 0.01},
    "rmsprop": {"name": "rmsprop", "lr": 1e-3, "beta2": 0.99, "momentum": 0.0},
    "adam": {"name": "adam", "lr": 1e-3},
    "adamw": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01},
}

# A mirrored shoe is a shoe; a mirrored 2 is nothing.
DATA: dict[str, str] = {
    "fashion-mnist-sample": "flip,shift=1,erase=6",
    "fashion-mnist": "flip",
    "mnist": "shift=2",
    "cifar10": "flip,shift=4",
    "cifar100": "flip,shift=4",
}

LEAST, MOST = 8, 20  # epochs


def recipe(model: str, source: Source, images: int, side: int) -> Words:
    """Plan words for `model` on `source`.

    Args:
        images: how many there are to train on; few images are gone through more often.
        side: pixels of the model's input; photos shift by an eighth of it.
    """
    words = {**GENERAL, **MODELS.get(model, {})}
    visits = words.pop("visits")
    words["epochs"] = min(MOST, max(LEAST, round(visits / max(images, 1))))
    photos = Augment() if isinstance(source, ArraySource) else Augment(flip=True, shift=side // 8)
    known = DATA.get(source.name)
    words["augment"] = Augment.parse(known) if known else photos
    return words
