"""From a model's name to the net; the names stand in `table.py`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import nn

from hubel.errors import ModelError, unknown
from hubel.models.check import image_size, whole
from hubel.models.initialise import initialise
from hubel.models.own import is_own, load_own
from hubel.models.table import MODELS, Entry

GIVEN = ("classes", "channels", "size")  # what every family function takes
OTHER_SIDE = 64  # pixels for models that are not in the table


def build(
    name: str,
    *,
    classes: int,
    channels: int,
    size: tuple[int, int] | None = None,
    **options: Any,
) -> nn.Module:
    """A new net with He-initialised weights: float (N, channels, H, W) -> logits (N, classes).

    Weights are drawn from torch's default generator: seed it first (`torch.manual_seed`) to get
    the same net again. A user's own model keeps the weights its own code gave it.

    Args:
        name: a name of the table, or "file.py:function" (see `models/own.py`).
        size: (H, W) of the images; None: the size the model was made for.
        **options: what the model takes besides (`dropout`, `width`).

    Raises `ModelError` for an unknown name or option, and for images smaller than the net allows.
    """
    given: dict[str, Any] = {
        "classes": whole("classes", classes),
        "channels": whole("channels", channels),
        "size": image_size((default_side(name),) * 2 if size is None else size),
    }
    if is_own(name):
        return load_own(name, **given, **options)
    make = family(name)
    _check_options(name, make, options)
    return initialise(make(**given, **options))


def default_side(name: str) -> int:
    """Pixels a side that images are brought to where nothing else decides it."""
    return max(MODELS[name].usual[1:]) if name in MODELS else OTHER_SIDE


def smallest(name: str) -> tuple[int, int]:
    """The smallest image, (H, W), that a model of the table takes; others may take any."""
    return MODELS[name].smallest if name in MODELS else (1, 1)


@dataclass(frozen=True)
class Listing:
    """A row of `hubel models`: the table's entry, and its net without numbers (device "meta")."""

    entry: Entry
    net: nn.Module

    @property
    def parameters(self) -> int:
        """How many numbers the net learns."""
        return sum(p.numel() for p in self.net.parameters())


def catalogue(classes: int | None = None) -> list[Listing]:
    """Every named model for its usual images, built without memory or chance.

    Args:
        classes: of every net; None: as many as each was made for.
    """
    return [Listing(entry, _blank(entry, classes or entry.classes)) for entry in MODELS.values()]


def _blank(entry: Entry, classes: int) -> nn.Module:
    channels, *size = entry.usual
    with torch.device("meta"):
        return build(entry.name, classes=classes, channels=channels, size=(size[0], size[1]))


def family(name: str) -> Callable[..., nn.Module]:
    """The function that makes a named model. Raises `ModelError` for an unknown name."""
    if name not in MODELS:
        hint = "; or 'file.py:function' for a model of your own"
        raise ModelError(unknown("model", name, MODELS) + hint)
    module, _, function = MODELS[name].make.partition(":")
    make: Callable[..., nn.Module] = getattr(import_module(f"hubel.models.{module}"), function)
    return make


def _check_options(name: str, make: Callable[..., nn.Module], options: dict[str, Any]) -> None:
    taken = [word for word in inspect.signature(make).parameters if word not in GIVEN]
    for word in options:
        if not taken:
            raise ModelError(f"{name} takes no options, given {word!r}")
        if word not in taken:
            raise ModelError(unknown(f"option of {name}", word, taken))
