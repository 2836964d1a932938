"""The one table of model names. A new model is one file and one row here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import nn

from hubel.errors import ModelError, unknown
from hubel.models.check import image_size, whole
from hubel.models.initialise import initialise
from hubel.models.own import is_own, load_own

GIVEN = ("classes", "channels", "size")  # what every family function takes
OTHER_SIDE = 64  # pixels for models that are not in the table


@dataclass(frozen=True)
class Entry:
    """One named model.

    Attributes:
        make: "module:function" below `hubel.models`, imported when the model is asked for.
        year, paper: where it comes from.
        summary: one line.
        smallest: the smallest image it takes, (H, W).
        usual: the images it was made for, (C, H, W).
    """

    name: str
    make: str
    year: int
    paper: str
    summary: str
    smallest: tuple[int, int]
    usual: tuple[int, int, int]


def table(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Entries by name. Raises `ValueError` for a name that stands twice."""
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in found:
            raise ValueError(f"two models are called {entry.name!r}")
        found[entry.name] = entry
    return found


SMALL_RESIDUAL = {
    "resnet": "{depth} layers with parameter-free shortcuts, the paper's form for CIFAR-10",
    "plain": "the same {depth} layers without the shortcuts: the twin that depth makes worse",
}

MODELS = table(
    [
        Entry(
            name="compact",
            make="compact:compact",
            year=2026,
            paper="hubel's own",
            summary="five 3x3 convolutions with batch norm: much accuracy for little CPU time",
            smallest=(4, 4),
            usual=(1, 28, 28),
        ),
        Entry(
            name="lenet5",
            make="lenet:lenet5",
            year=1998,
            paper="LeCun et al., Gradient-based learning applied to document recognition",
            summary="two 5x5 convolutions and three fully connected layers, in today's form",
            smallest=(12, 12),
            usual=(1, 28, 28),
        ),
        Entry(
            name="mlp",
            make="mlp:mlp",
            year=1986,
            paper="Rumelhart et al., Learning representations by back-propagating errors",
            summary="two hidden layers of 256 and 128 units",
            smallest=(1, 1),
            usual=(1, 28, 28),
        ),
        Entry(
            name="net32",
            make="lenet:net32",
            year=1998,
            paper="LeNet-5's layers, as the lectures take them to CIFAR-10",
            summary="LeNet-5 for 32x32 colour images",
            smallest=(16, 16),
            usual=(3, 32, 32),
        ),
        *(
            Entry(
                name=f"{kind}{depth}",
                make=f"resnet:{kind}{depth}",
                year=2015,
                paper="He et al., Deep residual learning for image recognition",
                summary=summary.format(depth=depth),
                smallest=(1, 1),
                usual=(3, 32, 32),
            )
            for depth in (20, 32, 44, 56, 110)
            for kind, summary in SMALL_RESIDUAL.items()
        ),
        Entry(
            name="softmax",
            make="softmax:softmax",
            year=1990,
            paper="Bridle, Probabilistic interpretation of feedforward classification networks",
            summary="one fully connected layer: a template per class",
            smallest=(1, 1),
            usual=(1, 28, 28),
        ),
    ]
)


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
    make = _family(name)
    _check_options(name, make, options)
    return initialise(make(**given, **options))


def default_side(name: str) -> int:
    """Pixels a side that images are brought to where nothing else decides it."""
    return max(MODELS[name].usual[1:]) if name in MODELS else OTHER_SIDE


@dataclass(frozen=True)
class Listing:
    """A row of `hubel models`: the table's entry, and how many parameters it makes."""

    entry: Entry
    parameters: int


def catalogue(classes: int = 10) -> list[Listing]:
    """Every named model, built without memory or chance and counted at its usual image size."""
    return [Listing(entry, _count(entry, classes)) for entry in MODELS.values()]


def _count(entry: Entry, classes: int) -> int:
    channels, *size = entry.usual
    with torch.device("meta"):
        net = build(entry.name, classes=classes, channels=channels, size=(size[0], size[1]))
    return sum(p.numel() for p in net.parameters())


def _family(name: str) -> Callable[..., nn.Module]:
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
