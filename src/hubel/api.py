"""The public verbs: load data, build, train, resume, evaluate, predict. Few lines each.

    data = hubel.load_data("photos/")
    result = hubel.train("compact", data, epochs=20)
    run = hubel.load_run(result.folder)
    run.predict(["new.jpg"])
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hubel.data.check import Findings
from hubel.data.open import open_source
from hubel.data.order import derive_seed
from hubel.data.preprocess import Preprocess
from hubel.data.record import PARTS, Source
from hubel.data.split import Split, make_split
from hubel.deploy.predictor import Prediction, Predictor
from hubel.errors import DataError, ModelError, OptionError, RunError
from hubel.gather import gather, judge
from hubel.models.architecture import Architecture
from hubel.models.names import default_side
from hubel.runs.drive import drive
from hubel.runs.report import write_report
from hubel.runs.run import Config, Run
from hubel.runs.weights import Card, fill
from hubel.session import (
    Notice,
    Setting,
    Tell,
    check,
    choose_preprocess,
    choose_speed,
    prepare,
    silent,
)
from hubel.tasks.classify import logits
from hubel.train.distribute import Crew, choose_device, join
from hubel.train.fit import Step, check_broken
from hubel.train.plan import Plan, make_plan
from hubel.train.recipes import OPTIMISERS, recipe
from hubel.train.repeat import repeatable
from hubel.train.speed import Choice
from hubel.train.state import State

TRAIN_JUDGED = 10_000  # training images that the final score of the training part is taken on


@dataclass(frozen=True)
class Result:
    """A finished training.

    Attributes:
        folder: the run folder; `report` is the page in it.
        model: the trained net, in eval mode.
        metrics: scores by part, {"test": {"accuracy": ...}, ...}.
        seconds: wall time, from the call to the finished report.
        images_per_second: training images taken in per second of training.
        choices: how steps were run, and why.
        notices: what was said on the way.
    """

    folder: Path
    model: nn.Module
    metrics: dict[str, dict[str, float]]
    seconds: float
    images_per_second: float
    choices: dict[str, Any]
    notices: tuple[str, ...]

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    def to_json(self) -> dict[str, Any]:
        return {
            "run": str(self.folder),
            "seconds": round(self.seconds, 2),
            "images_per_second": round(self.images_per_second, 1),
            "metrics": self.metrics,
            "choices": self.choices,
            "report": str(self.report),
            "notices": list(self.notices),
        }


def load_data(where: str | Path | Source) -> Source:
    """Labelled images from a name (`fashion-mnist`), a folder, a file or a pair of arrays.

    Raises `DataError`, saying what is allowed, where there is nothing to read.
    """
    return open_source(where)


def train(
    model: str | nn.Module = "compact",
    data: str | Path | Source = "sample",
    *,
    out: str | Path = "runs",
    name: str | None = None,
    tell: Tell = silent,
    **words: Any,
) -> Result:
    """Train `model` on `data`, test it, and write the run folder with its report.

    Args:
        model: a name (`hubel models`), "file.py:function", or any module that maps
            (N, C, H, W) to (N, classes) logits.
        data: what `load_data` takes.
        out, name: the run folder is out/name (name: the data's and model's, numbered).
        tell: called with every `Notice`, `Stage`, `Step` and `Epoch`.
        **words: fields of `hubel.train.plan.Plan` (`epochs`, `batch`, `optimiser={...}`, ...);
            what is not said comes from the model's and the data's recipe.

    Raises `HubelError` for mistakes in the words, the data or the model.
    """
    began = time.perf_counter()
    source = open_source(data)
    label = model if isinstance(model, str) else type(model).__name__
    named = label.rpartition(":")[2]
    start = make_plan(**{**words, "source": _spelling(data, source), "model": label})
    split = make_split(source, val=start.val, test=start.test, seed=start.seed)
    preprocess = choose_preprocess(start, source, split, default_side(label))
    usual = recipe(label, source, len(split.train), preprocess.height)
    plan = make_plan(**_merge(usual, {**words, "source": start.source, "model": label}))
    with repeatable():
        crew = join(plan.device)
        card = Card(_architecture(model, source, preprocess, plan), source.classes, preprocess)
        setting = prepare(plan, source, split, card, crew, tell)
        net = _net(model, card, plan).to(crew.device)
        voice = _Voice(tell)
        findings = _checked(setting, voice)
        choice = choose_speed(setting, net)
        voice.note(f"{crew.device}: {choice.why}")
        run = None
        if crew.leads:
            run = Run.create(Path(out), name, f"{source.name}-{named}")
            config = Config(plan, card, _describe(setting), choice)
            run.begin(config, split.to_json(source), findings.to_json())
        state = State.start(net, plan, crew.world)
        return _train(run, setting, state, choice, voice, began)


def resume(
    run: str | Path,
    *,
    model: nn.Module | None = None,
    data: str | Path | Source | None = None,
    tell: Tell = silent,
) -> Result:
    """Go on with a run from its last checkpoint; the end is bit-equal to an unbroken run.

    Args:
        model: needed only where the run's model was a module made by hand.
        data: where the images are now, if they have moved; they are found again by content.

    Raises `RunError` where the run is finished, damaged, or its data is gone or changed.
    """
    began = time.perf_counter()
    opened = Run.open(run)
    if opened.finished:
        raise RunError(f"{opened.folder} is finished: 'hubel evaluate {opened.folder}' scores it")
    config = opened.config()
    with repeatable():
        crew = join(config.plan.device)
        setting = _reopen(opened, config, data, crew, tell)
        net = _net(model if model is not None else config.plan.model, config.card, config.plan)
        state = State.start(net.to(crew.device), config.plan, crew.world)
        opened.load(state)
        voice = _Voice(tell)
        voice.note(f"going on at step {state.step} (epoch {state.epoch + 1})")
        return _train(opened if crew.leads else None, setting, state, config.choice, voice, began)


@dataclass(frozen=True)
class LoadedRun:
    """A run taken up again for use."""

    run: Run
    model: nn.Module
    card: Card

    def predictor(self, device: str = "auto", top: int = 5) -> Predictor:
        """The net with its preprocessing and class names: files in, predictions out."""
        return Predictor(self.model, self.card, choose_device(device), top)

    def predict(self, files: Iterable[str | Path]) -> list[Prediction]:
        """One prediction per file, in order."""
        return self.predictor()(files)

    def evaluate(
        self, data: str | Path | Source | None = None, device: str = "auto", tell: Tell = silent
    ) -> dict[str, dict[str, float]]:
        """Scores by part: on the run's own split, or on all of another `data` (part "all").

        Raises `DataError` where the other data's class names are not the run's.
        """
        return evaluate(self, data, device, tell)


def load_run(path: str | Path, *, model: nn.Module | None = None) -> LoadedRun:
    """A run's best weights in its model, in eval mode.

    Args:
        model: needed only where the run's model was a module made by hand.
    """
    run = Run.open(path)
    weights, card = run.weights()
    plan = run.config().plan
    net = _net(model if model is not None else plan.model, card, plan)
    fill(net, weights, str(run.folder))
    return LoadedRun(run, net.eval(), card)


def evaluate(
    loaded: LoadedRun, data: str | Path | Source | None, device: str, tell: Tell
) -> dict[str, dict[str, float]]:
    """See `LoadedRun.evaluate`."""
    config = loaded.run.config()
    crew = Crew(0, 1, choose_device(device))
    if data is None:
        setting = _reopen(loaded.run, config, None, crew, tell)
        parts: tuple[str, ...] = ("train", "val", "test")
    else:
        setting = _foreign(config, data, crew, tell)
        parts = ("test",)
    net = loaded.model.to(crew.device)
    scores = {}
    for part in parts:
        judged = judge(setting, net, part, Choice())
        if judged is not None:
            scores["all" if data is not None else part] = setting.task.scores(judged[0])
    return scores


# How the verbs do it -----------------------------------------------------------------------------


class _Voice:
    """Tells, and keeps what was told for the results."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self.said: list[str] = []

    def note(self, text: str, level: str = "note") -> None:
        self.said.append(text)
        self.tell(Notice(text, level))


def _train(
    run: Run | None, setting: Setting, state: State, choice: Choice, voice: _Voice, began: float
) -> Result:
    """From the first (or next) step to the finished report."""
    plan, crew = setting.plan, setting.crew
    for record in drive(run, state, setting.task, setting.feeds, plan, choice, crew):
        if isinstance(record, Step) and record.note:
            voice.note(record.note, "warning")
        if crew.leads:
            voice.tell(record)
    return _finish(run, setting, state, choice, voice, began)


def _finish(
    run: Run | None, setting: Setting, state: State, choice: Choice, voice: _Voice, began: float
) -> Result:
    """Judge the best weights on every part, write results, evidence and report."""
    net, plan = state.model, setting.plan
    net.load_state_dict(state.best.weights)
    net.eval()
    judged = {
        part: judge(setting, net, part, Choice(), TRAIN_JUDGED if part == "train" else None)
        for part in PARTS
    }
    scores = {part: setting.task.scores(found[0]) for part, found in judged.items() if found}
    for error in setting.store.broken.values():
        voice.note(f"left out: {error}", "warning")
    pace = state.images * setting.crew.world / max(state.seconds, 1e-9)
    choices = {"device": str(setting.crew.device), **choice.to_json()}
    result = Result(
        run.folder if run else Path(), net, scores, 0.0, pace, choices, tuple(voice.said)
    )
    if run is None:
        return result
    part = next(p for p in ("test", "val", "train") if judged[p])
    tally, said = judged[part]  # type: ignore[misc]
    gather(setting, net, part, tally, said).save(run.folder)
    result = replace(result, seconds=time.perf_counter() - began)
    run.finish(state.best.weights, setting.card, {**result.to_json(), **_ending(state, plan)})
    write_report(run.folder)
    return replace(result, seconds=time.perf_counter() - began)


def _ending(state: State, plan: Plan) -> dict[str, Any]:
    stopped = "finished" if state.epoch >= plan.epochs else "early"
    return {"best_epoch": state.best.epoch, "epochs": state.epoch, "stopped": stopped}


def _checked(setting: Setting, voice: _Voice) -> Findings:
    """The data check, said aloud where it matters. Raises `TrainingError` for too many broken."""
    if setting.source.notice:
        voice.note(setting.source.notice, "warning")
    check_broken(setting.feeds.train, setting.plan.max_broken)
    findings = check(setting)
    for finding in findings.findings:
        if finding.level != "note":
            voice.note(finding.text, finding.level)
    return findings


def _reopen(
    run: Run, config: Config, data: str | Path | Source | None, crew: Crew, tell: Tell
) -> Setting:
    """The run's own data, split as it was."""
    source = open_source(config.source["where"] if data is None else data)
    return prepare(config.plan, source, run.split(source), config.card, crew, tell)


def _foreign(config: Config, data: str | Path | Source, crew: Crew, tell: Tell) -> Setting:
    """Other data, all of it to be judged. Classes are matched by name, never by order."""
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
    options = {} if plan.dropout is None else {"dropout": plan.dropout}
    size = (preprocess.height, preprocess.width)
    return Architecture(model, len(source.classes), preprocess.channels, size, options)


def _net(model: str | nn.Module, card: Card, plan: Plan) -> nn.Module:
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


def _spelling(data: str | Path | Source, source: Source) -> str:
    """How to find the data again: a whole path, a name, or what the source calls itself."""
    if isinstance(data, str | Path):
        path = Path(data)
        return str(path.resolve()) if path.exists() else str(data)
    return source.origin


def _describe(setting: Setting) -> dict[str, Any]:
    count = {part: len(getattr(setting.split, part)) for part in PARTS}
    source = setting.source
    return {
        "name": source.name,
        "origin": source.origin,
        "where": setting.plan.source,
        "count": count,
    }


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
    if isinstance(words.get("schedule"), dict):
        merged["schedule"] = {**usual["schedule"], **words["schedule"]}
    return merged
