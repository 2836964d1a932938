"""`open_weights`: the one door to weights. A word, a file or a run; and nets filled from them."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn

from hubel.errors import ModelError, OptionError, WeightsError, unknown
from hubel.models import names
from hubel.models.architecture import Architecture
from hubel.models.own import is_own
from hubel.models.table import MODELS
from hubel.runs.run import Run
from hubel.runs.weights import Card
from hubel.weights.fit import put_into
from hubel.weights.published import PUBLISHED, USUAL, Published, imagenet_classes, published
from hubel.weights.read import read_tensors

Head = Literal["keep", "new"]
TAGS = {USUAL, *(row.tag for row in PUBLISHED)}


@dataclass(frozen=True)
class Weights:
    """Opened weights.

    Attributes:
        named: the tensors.
        card: classes, preprocessing and provenance; None where the file does not say and nobody
            else does.
        where: what they come from, for people.
    """

    named: dict[str, Tensor]
    card: Card | None
    where: str


def open_weights(what: str | Path, model: str) -> Weights:
    """Weights for the net `model`.

    Args:
        what: "imagenet" or another tag of published weights ('hubel weights list'), which wins
            over a path of that name: write ./imagenet for the folder; a run folder; or a file:
            hubel's own, safetensors, or a state dict of torch's.

    Raises `WeightsError` for what cannot be found or read, `RunError` for a damaged run.
    """
    path = Path(what).expanduser()
    if str(what) in TAGS or (_looks_like_tag(str(what)) and not path.exists()):
        return _open_published(published(model, str(what)))
    if os.path.isdir(path):  # noqa: PTH112 (a path that is too long is no folder, not an error)
        named, card = Run.open(path).weights()
        return Weights(named, _told(card, run=path.resolve().name), str(path))
    found = read_tensors(path)
    if found.card is not None:
        try:
            told = _told(Card.from_json(found.card), file=path.name, sha256=found.sha256)
        except (KeyError, TypeError, ValueError, AttributeError, ModelError) as error:
            raise WeightsError(f"{path} does not say what its weights are of: {error}") from None
        return Weights(found.named, told, str(path))
    usual = next((row for row in PUBLISHED if found.sha256.startswith(row.sha256)), None)
    if usual is not None:
        return Weights(found.named, _card(usual, found.sha256), str(path))
    return Weights(found.named, None, str(path))


def build(
    name: str,
    *,
    classes: int | None = None,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
    weights: str | Path | None = None,
    head: Head = "keep",
    **options: Any,
) -> nn.Module:
    """A net by its name: float (N, channels, H, W) -> logits (N, classes).

    >>> hubel.build("resnet50", weights="resnet50-0676ba61.pth")  # doctest: +SKIP
    >>> hubel.build("resnet50", weights="imagenet", classes=5, head="new")  # doctest: +SKIP

    Args:
        name: a name of `hubel models`, or "file.py:function".
        classes, channels, size: by default those of the weights, where they say so; else those
            that the net was made for.
        weights: what `open_weights` takes; None: drawn by He's rule from torch's generator.
        head: "new" leaves the last layer as it was drawn, for classes of your own.
        **options: what the model takes besides (`dropout`, `shortcut`).

    Raises `ModelError` for a net that cannot be built so, `WeightsError` for weights that cannot
    be had or do not fit.
    """
    if head not in get_args(Head):
        raise OptionError(unknown("head", str(head), get_args(Head)))
    entry = MODELS.get(name)
    opened = None if weights is None else open_weights(weights, name)
    card = opened.card if opened else None
    if classes is None:
        if card is None and entry is None and not is_own(name):
            raise OptionError(f"{name}: say how many classes")
        classes = len(card.classes) if card else entry.classes if entry else 10
    if channels is None:
        channels = card.preprocess.channels if card else entry.usual[0] if entry else 3
    if size is None and card is not None and card.architecture is not None:
        size = card.architecture.size
    if opened is not None:
        options = without_heads(name, options)
    net = names.build(name, classes=classes, channels=channels, size=size, **options)
    if opened is not None:
        put_into(net, opened.named, opened.where, new_head=head == "new")
    return net


def without_heads(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options for a net that trained weights go into: no auxiliary heads unless asked for."""
    if name not in MODELS or "aux" in options:
        return options
    takes = inspect.signature(names.family(name)).parameters
    return options | ({"aux": False} if "aux" in takes else {})


def load_net(what: str | Path) -> tuple[nn.Module, Card] | None:
    """A net that is no run's, in eval mode, and what stands beside it; None where `what` is none.

    Args:
        what: a name with published weights ("efficientnet_lite0", "resnet50:imagenet1k_v2"), or a
            file that hubel wrote.

    A file that says its net is made by Python code is refused: the code would be run on a
    stranger's word, with arguments of his choice.

    Raises `WeightsError` where the weights cannot be had, read or put in.
    """
    name, _, tag = str(what).partition(":")
    if name in MODELS and not Path(what).exists():
        opened = _open_published(published(name, tag or USUAL))
    elif Path(what).is_file():
        opened = open_weights(what, "")
    else:
        return None
    made = opened.card.architecture if opened.card else None
    if opened.card is None or made is None or is_own(made.name):
        kind = "is of a net made by code" if made else "does not say what net it is of"
        raise WeightsError(
            f"{what} {kind}: hubel.build(NAME, weights={str(what)!r}) fills one by its name"
        )
    try:
        net = made.build()
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{what} does not say what net it is of: {error}") from None
    put_into(net, opened.named, opened.where)
    return net.eval(), opened.card


def _looks_like_tag(what: str) -> bool:
    return what.startswith("imagenet") and "/" not in what and "." not in what


def _open_published(row: Published) -> Weights:
    path = row.get_here()
    found = read_tensors(path)
    if not found.sha256.startswith(row.sha256):
        raise WeightsError(
            f"{path} is not {row.name}: SHA-256 begins {found.sha256[:8]}, must be {row.sha256}; "
            "delete it and get it again"
        )
    return Weights(found.named, _card(row, found.sha256), f"{row.name} ({row.file})")


def _card(row: Published, sha256: str) -> Card:
    size = (row.preprocess.height, row.preprocess.width)
    options = without_heads(row.model, {})
    classes = imagenet_classes()
    origin = {"weights": row.name, "file": row.file, "sha256": sha256, "licence": row.licence}
    made = Architecture(row.model, len(classes), 3, size, options)
    return Card(made, classes, row.preprocess, origin)


def _told(card: Card, **origin: str) -> Card:
    return replace(card, origin={**(card.origin or {}), **origin})
