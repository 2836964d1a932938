"""From words to a training that is ready to go: plan, data, net; and the same from a run folder."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hubel.data.open import open_source
from hubel.data.order import derive_seed
from hubel.data.preprocess import Preprocess
from hubel.data.record import Source
from hubel.data.split import Split
from hubel.errors import DataError, ModelError, OptionError, RunError
from hubel.models.architecture import Architecture
from hubel.models.names import default_side, smallest
from hubel.runs.run import Config, Run
from hubel.runs.weights import Card
from hubel.session import (
    Setting,
    Tell,
    choose_preprocess,
    choose_split,
    downloading,
    prepare,
    silent,
)
from hubel.tasks.classify import logits
from hubel.training.distribute import Crew, join
from hubel.training.freeze import freeze
from hubel.training.plan import Plan, make_plan
from hubel.training.recipes import MOST, OPTIMISERS, recipe
from hubel.training.sizes import must_resize
from hubel.weights.fit import put_into, same_classes
from hubel.weights.open import Weights, open_weights, without_heads

Data = str | Path | Source | tuple[Any, Any]


def assemble(
    model: str | nn.Module, data: Data, words: dict[str, Any], tell: Tell
) -> tuple[Setting, nn.Module]:
    """A new training: everything opened, the net initialised by the plan's seed.

    Args:
        words: fields of `Plan`; what is missing comes from the recipes.

    Raises `HubelError` for mistakes in the words, the data or the model.
    """
    label = model if isinstance(model, str) else type(model).__name__
    said = {"epochs": MOST, **words, "source": "", "model": label}  # no recipe has more epochs
    first = make_plan(**said)  # mistakes show before any reading
    crew = join(first.device)
    tell = tell if crew.leads else silent
    source = open_source(data, downloading(tell))
    words = {**words, "source": source.where or source.origin, "model": label}
    split = choose_split(first, source)
    begin = open_weights(first.weights, label) if first.weights else None
    if begin is not None and begin.card is not None:
        words = {"fit": begin.card.preprocess.fit, **words}
        first = first.model_copy(update={"fit": words["fit"]})
    preprocess = _preprocess(first, source, split, label, begin)
    usual = recipe(label, source, len(split.train), preprocess.height, first)
    plan = make_plan(**_merge(usual, words))
    card = Card(_architecture(model, source, preprocess, plan), source.classes, preprocess)
    net = make_net(model, card, plan)
    if begin is not None:
        card = replace(card, origin=_begin(net, begin, source.classes))
    freeze(net, plan.freeze)
    if plan.resize != "none":
        must_resize(net, (preprocess.channels, preprocess.height, preprocess.width))
    return prepare(plan, source, split, card, crew, tell), net.to(crew.device)


def _preprocess(
    plan: Plan, source: Source, split: Split, label: str, begin: Weights | None
) -> Preprocess:
    """What the net is fed: as its trained weights were, where it begins from such."""
    if begin is None or begin.card is None:
        return choose_preprocess(plan, source, split, default_side(label), smallest(label))
    theirs = begin.card.preprocess
    height, width = plan.size or (theirs.height, theirs.width)
    return replace(theirs, height=height, width=width, fit=plan.fit, kept=1.0)


def _begin(net: nn.Module, begin: Weights, classes: tuple[str, ...]) -> dict[str, Any]:
    """Fill the net, its head too where the weights are of these very classes; what the card says.

    Raises `WeightsError` where they do not fit.
    """
    known = begin.card.classes if begin.card else None
    head = known != classes if known else not same_classes(net, begin.named)
    put_into(net, begin.named, begin.where, new_head=head)
    told = (begin.card.origin if begin.card else None) or {"file": begin.where}
    return {**told, "head": "new" if head else "kept"}


def reopen(run: Run, config: Config, data: Data | None, crew: Crew, tell: Tell) -> Setting:
    """A run's own data, split as it was. Raises `DataError` where images are gone or changed."""
    where = config.source["where"] if data is None else data
    if where is None:
        raise RunError(
            f"{run.folder} was trained on images given in Python ({config.source['name']}): "
            "give them again as data=..."
        )
    source = open_source(where)
    return prepare(config.plan, source, run.split(source), config.card, crew, tell)


def foreign(config: Config, data: Data, crew: Crew, tell: Tell) -> Setting:
    """Other data, all of it to be judged. Classes are matched by name, never by order.

    Raises `DataError` for a class that the run does not know.
    """
    source = open_source(data)
    strange = sorted(set(source.classes) - set(config.card.classes))
    if strange:
        raise DataError(
            f"class {strange[0]!r} of {source.origin} is not one of the run's: "
            f"{', '.join(config.card.classes)}"
        )
    place = np.array([config.card.classes.index(name) for name in source.classes])
    source.targets, source.classes = place[source.targets], config.card.classes
    nothing, everything = np.empty(0, np.int64), np.arange(len(source))
    split = Split(train=nothing, val=nothing, test=everything)
    return prepare(config.plan, source, split, config.card, crew, tell)


def _architecture(
    model: str | nn.Module, source: Source, preprocess: Preprocess, plan: Plan
) -> Architecture | None:
    if isinstance(model, nn.Module):
        return None
    options: dict[str, Any] = {} if plan.dropout is None else {"dropout": plan.dropout}
    if plan.weights is not None:
        options = without_heads(model, options)
    size = (preprocess.height, preprocess.width)
    return Architecture(model, len(source.classes), preprocess.channels, size, options)


def make_net(model: str | nn.Module, card: Card, plan: Plan) -> nn.Module:
    """The net, freshly initialised by the plan's seed where it is built here; proven to fit."""
    if isinstance(model, nn.Module):
        net = model
    elif card.architecture is None:
        raise ModelError(
            f"this run trained a module made by hand ({plan.model}): give it again as model=..."
        )
    else:
        torch.manual_seed(derive_seed(plan.seed, "weights"))
        net = card.architecture.build()
    _must_fit(net, card)
    if not any(p.requires_grad for p in net.parameters()):
        raise ModelError("the model has no parameter to train: every one is frozen, or it has none")
    norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())
    if norms and math.ceil(plan.batch / plan.accumulate) == 1:
        raise OptionError(
            "batch norm cannot learn from one image at a time: "
            f"batch / accumulate must be 2 or more, given {plan.batch} / {plan.accumulate}"
        )
    return net


def _must_fit(net: nn.Module, card: Card) -> None:
    """Raises `ModelError` unless (2, C, H, W) images give (2, classes) logits."""
    shape = (2, card.preprocess.channels, card.preprocess.height, card.preprocess.width)
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    training = net.training
    try:
        with torch.inference_mode():
            found = tuple(logits(net.eval()(torch.zeros(shape, device=device))).shape)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"the model cannot take images {shape}: {reason}") from None
    finally:
        net.train(training)
    if found != (2, len(card.classes)):
        raise ModelError(
            f"the model must answer images {shape} with (2, {len(card.classes)}) logits, "
            f"one per class; it gave {found}"
        )


def _merge(usual: dict[str, Any], words: dict[str, Any]) -> dict[str, Any]:
    """The recipe under the user's words. Another optimiser brings its own usual rate along."""
    merged = {**usual, **words}
    asked, base = words.get("optimiser") or {}, usual["optimiser"]
    if isinstance(asked, dict):
        name = asked.get("name", base["name"])
        start = base if name == base["name"] else {**base, **OPTIMISERS.get(name, {})}
        merged["optimiser"] = {**start, **asked}
        if asked.get("momentum_form") == "average" and "lr" not in asked:
            merged["optimiser"]["lr"] /= 1 - merged["optimiser"].get("momentum", 0.9)
    if "head_epochs" not in words and merged.get("head_epochs", 0) >= merged["epochs"]:
        merged["head_epochs"] = 0
    if isinstance(words.get("schedule"), dict):
        merged["schedule"] = {**usual["schedule"], **words["schedule"]}
    return merged
