"""From words to a training that is ready to go: plan, data, net; and the same from a run folder."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from hubel.data.order import derive_seed
from hubel.data.split import Split
from hubel.errors import ModelError, OptionError, RunError, WeightsError
from hubel.kinds.kind import Data, must_fit
from hubel.kinds.table import kind_of, task_of
from hubel.models.architecture import Architecture
from hubel.models.begin import body_name
from hubel.runs.run import Config, Run
from hubel.runs.weights import Card
from hubel.session import Setting, Tell, choose_split, downloading, prepare, silent
from hubel.training.distribute import Crew, join
from hubel.training.freeze import freeze
from hubel.training.plan import Plan, make_plan
from hubel.training.recipes import MOST_OF_MASKS, OPTIMISERS
from hubel.training.sizes import must_resize
from hubel.weights.fit import is_whole, put_into, put_into_body, same_classes
from hubel.weights.open import Weights, open_weights, without_heads


def assemble(
    model: str | nn.Module, data: Data, words: dict[str, Any], tell: Tell
) -> tuple[Setting, nn.Module]:
    """A new training: everything opened, the net initialised by the plan's seed.

    Args:
        words: fields of `Plan`; what is missing comes from the recipes.

    Raises `HubelError` for mistakes in the words, the data or the model.
    """
    label = model if isinstance(model, str) else type(model).__name__
    words = {**words, "task": task_of(label, words.get("task"))}
    if words["task"] == "segment":
        words = {"fit": "same", **words}
    most = {"epochs": MOST_OF_MASKS}  # no recipe has more
    first = make_plan(**{**most, **words, "source": "", "model": label})  # before any reading
    kind = kind_of(first.task)
    crew = join(first.device)
    tell = tell if crew.leads else silent
    source = kind.open_data(data, first, downloading(tell))
    words = {**words, "source": source.where or source.origin, "model": label}
    split = choose_split(first, source)
    begin = _weights(first, label) if first.weights else None
    if begin is not None and begin.card is not None and first.task == "classify":
        words = {"fit": begin.card.preprocess.fit, **words}
        first = first.model_copy(update={"fit": words["fit"]})
    theirs = begin.card.preprocess if begin is not None and begin.card is not None else None
    preprocess = kind.choose_preprocess(first, source, split, theirs)
    plan = make_plan(**_merge(kind.usual(first, source, split, preprocess), words))
    plan = kind.settle(plan, source, split)
    card = kind.card(source, preprocess)
    card = replace(card, architecture=_architecture(model, card, plan))
    net = make_net(model, card, plan)
    if begin is not None:
        card = replace(card, origin=_begin(net, begin, card))
    freeze(net, plan.freeze)
    if plan.resize != "none":
        must_resize(net, (preprocess.channels, preprocess.height, preprocess.width))
    return prepare(plan, source, split, card, crew, tell), net.to(crew.device)


def _weights(plan: Plan, label: str) -> Weights:
    """The weights to begin from. Raises `WeightsError`, with a hint where a body is lacking."""
    body = body_name(label, plan.body)
    try:
        return open_weights(str(plan.weights), body)
    except WeightsError as error:
        if plan.task != "segment" or body != label:
            raise
        hint = f"{label} begins by a classifier of your choice: --body efficientnet_lite0"
        raise WeightsError(f"{error}. {hint}") from None


def _begin(net: nn.Module, begin: Weights, card: Card) -> dict[str, Any]:
    """Fill the net, its head too where the weights are of these very classes; or, of a net that
    labels pixels, the body, where they are a classifier's. Returns what the card says.

    Raises `WeightsError` where they do not fit.
    """
    told = (begin.card.origin if begin.card else None) or {"file": begin.where}
    if card.task == "segment" and not is_whole(net, begin.named):
        put_into_body(net, begin.named, begin.where)
        return {**told, "head": "new"}
    known = begin.card.classes if begin.card else None
    head = known != card.classes if known else not same_classes(net, begin.named)
    put_into(net, begin.named, begin.where, new_head=head)
    return {**told, "head": "new" if head else "kept"}


def reopen(run: Run, config: Config, data: Data | None, crew: Crew, tell: Tell) -> Setting:
    """A run's own data, split as it was. Raises `DataError` where images are gone or changed."""
    where = config.source["where"] if data is None else data
    if where is None:
        raise RunError(
            f"{run.folder} was trained on images given in Python ({config.source['name']}): "
            "give them again as data=..."
        )
    source = kind_of(config.card.task).open_data(where, config.plan, None)
    return prepare(config.plan, source, run.split(source), config.card, crew, tell)


def foreign(config: Config, data: Data, crew: Crew, tell: Tell) -> Setting:
    """Other data, all of it to be judged. Classes are matched by name, never by order.

    Raises `DataError` for a class that the run does not know.
    """
    kind = kind_of(config.card.task)
    source = kind.open_data(data, config.plan, None)
    source = kind.match(source, config.card)
    nothing, everything = np.empty(0, np.int64), np.arange(len(source))
    split = Split(train=nothing, val=nothing, test=everything)
    return prepare(config.plan, source, split, config.card, crew, tell)


def _architecture(model: str | nn.Module, card: Card, plan: Plan) -> Architecture | None:
    if isinstance(model, nn.Module):
        return None
    asked = {"dropout": plan.dropout, "body": plan.body}
    options: dict[str, Any] = {name: given for name, given in asked.items() if given is not None}
    options |= plan.options
    if plan.weights is not None:
        options = without_heads(model, options)
    size = (card.preprocess.height, card.preprocess.width)
    return Architecture(model, len(card.classes), card.preprocess.channels, size, options)


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
    must_fit(kind_of(card.task), net, card)
    if not any(p.requires_grad for p in net.parameters()):
        raise ModelError("the model has no parameter to train: every one is frozen, or it has none")
    norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())
    if norms and math.ceil(plan.batch / plan.accumulate) == 1:
        raise OptionError(
            "batch norm cannot learn from one image at a time: "
            f"batch / accumulate must be 2 or more, given {plan.batch} / {plan.accumulate}"
        )
    return net


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
    for part in ("schedule", "masks"):
        if isinstance(words.get(part), dict):
            merged[part] = {**usual.get(part, {}), **words[part]}
    return merged
