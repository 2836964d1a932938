"""The public verbs: load data, build, train, resume, evaluate, predict. Few lines each.

data = hubel.load_data("photos/")
result = hubel.train("compact", data, epochs=20)
run = hubel.load_run(result.folder)
run.predict(["new.jpg"])
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hubel.assemble import assemble, make_net, reopen
from hubel.data.check import Findings
from hubel.data.record import PARTS, Source
from hubel.errors import RunError
from hubel.gather.door import gather, judge
from hubel.kinds.kind import Data
from hubel.kinds.table import kind_of, usual_model
from hubel.loaded import LoadedNet, LoadedRun, load_run
from hubel.models.names import catalogue
from hubel.probe.costs import costs
from hubel.runs.drive import drive
from hubel.runs.run import Config, Run
from hubel.session import (
    Notice,
    Setting,
    Stage,
    Tell,
    check,
    choose_speed,
    downloading,
    silent,
)
from hubel.training.distribute import join
from hubel.training.fit import Step, check_broken
from hubel.training.freeze import freeze
from hubel.training.head_alone import is_head_alone
from hubel.training.lr_range import Range, lr_range
from hubel.training.plan import Plan, make_plan
from hubel.training.repeat import repeatable
from hubel.training.speed import Choice
from hubel.training.state import State

__all__ = [
    "LoadedNet", "LoadedRun", "Result", "Tuned", "list_models", "load_data", "load_run", "resume",
    "train", "tune_lr",
]  # fmt: skip
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


def load_data(
    where: Data,
    tell: Tell = silent,
    *,
    task: str = "classify",
    classes: str | Path | None = None,
    ignore: int | None = None,
) -> Source:
    """Labelled images from a name (`fashion-mnist`), a folder, a file or a pair of arrays.

    Args:
        task: "segment" for images with masks, a label for every pixel.
        classes, ignore: of masks: a file with the classes' names and colours; the index of pixels
            without a label.

    Raises `DataError`, saying what is allowed, where there is nothing to read.
    """
    masks = {"classes": classes and str(classes), "ignore": ignore}
    plan = make_plan(source="", model="", task=task, masks=masks)
    return kind_of(task).open_data(where, plan, downloading(tell))


def check_data(source: Source, tell: Tell = silent) -> Findings:
    """Every image and label read, and all that is wrong with them."""
    if source.notice:
        tell(Notice(source.notice, "warning"))
    kind = kind_of("segment" if source.kind == "masks" else "classify")
    return kind.full_check(source, lambda n, of: tell(Stage("reading images", n, of)))


def train(
    model: str | nn.Module | None = None,
    data: Data = "sample",
    *,
    out: str | Path = "runs",
    name: str | None = None,
    tell: Tell = silent,
    **words: Any,
) -> Result:
    """Train `model` on `data`, test it, and write the run folder with its report.

    Args:
        model: a name (`hubel models`), "file.py:function", or any module that maps
            (N, C, H, W) to (N, classes) logits, or with task="segment" to (N, classes, H, W).
            None: the task's usual one.
        data: what `load_data` takes.
        out, name: the run folder is out/name (name: the data's and model's, numbered).
        tell: called with every `Notice`, `Stage`, `Step` and `Epoch`.
        **words: fields of `hubel.training.plan.Plan` (`epochs`, `batch`, `optimiser={...}`, ...);
            what is not said comes from the model's and the data's recipe.

    Raises `HubelError` for mistakes in the words, the data or the model.
    """
    began = time.perf_counter()
    with repeatable():
        setting, net = assemble(model or usual_model(words.get("task")), data, words, tell)
        voice = _Voice(tell if setting.crew.leads else silent)
        findings = _checked(setting, voice)
        choice = choose_speed(setting, net, voice.tell)
        voice.note(f"{setting.crew.device}: {choice.why}")
        run = None
        if setting.crew.leads:
            stem = f"{setting.source.name}-{setting.plan.model.rpartition(':')[2]}"
            run = Run.create(Path(out), name, stem)
            config = Config(setting.plan, setting.card, _describe(setting), choice)
            run.begin(config, setting.split.to_json(setting.source), findings.to_json())
        state = State.start(net, setting.plan, setting.crew.world)
        return _train(run, setting, state, choice, voice, began)


def resume(
    run: str | Path,
    *,
    model: nn.Module | None = None,
    data: Data | None = None,
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
        tell = tell if crew.leads else silent
        setting = reopen(opened, config, data, crew, tell)
        net = make_net(model if model is not None else config.plan.model, config.card, config.plan)
        freeze(net, config.plan.freeze)
        state = State.start(net.to(crew.device), config.plan, crew.world)
        opened.load(state)
        voice = _Voice(tell)
        voice.note(f"going on at step {state.step} (epoch {state.epoch + 1})")
        return _train(opened if crew.leads else None, setting, state, config.choice, voice, began)


def list_models() -> list[dict[str, Any]]:
    """The named models: name, year, paper, parameters and multiply-adds at the usual input."""
    rows = []
    for listing in catalogue():
        entry = listing.entry
        channels, height, width = entry.usual
        image = torch.zeros(1, *entry.usual, device="meta")
        rows.append(
            {
                "name": entry.name,
                "year": entry.year,
                "paper": entry.paper,
                "summary": entry.summary,
                "parameters": listing.parameters,
                "macs": costs(listing.net, image, repeats=0, sight=False).macs,
                "input": f"{channels}x{height}x{width}",
                "classes": entry.classes,
                "task": entry.task,
            }
        )
    return rows


@dataclass(frozen=True)
class Tuned:
    """A learning-rate range test: the numbers and their picture.

    Attributes:
        rates, losses: what the test went through.
        suggested: the rate at which the loss fell fastest; a good highest rate to train with.
        highest: the last rate at which the loss still stood below where it began.
        picture: a PNG.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggested: float
    highest: float
    picture: Path


def tune_lr(
    model: str | nn.Module | None = None,
    data: Data = "sample",
    *,
    out: str | Path = "lr-range.png",
    steps: int = 100,
    tell: Tell = silent,
    **words: Any,
) -> Tuned:
    """Train a copy for `steps` steps while the rate grows from 1e-6 to 10, and draw the loss.

    Takes the words that `train` takes. Raises `HubelError` as it does.
    """
    with repeatable():
        setting, net = assemble(model or usual_model(words.get("task")), data, words, tell)
        walk = lr_range(net, setting.task, setting.feeds.train, setting.plan, setting.crew, steps)
        seen = []
        for record in walk:
            seen.append(record)
            tell(Stage("trying rates", min(len(seen), steps), steps))
    found = seen[-1]
    assert isinstance(found, Range)  # the walk ends with it
    from hubel.runs.range_picture import draw_range  # noqa: PLC0415 (matplotlib: half a second)

    return Tuned(**vars(found), picture=draw_range(found, Path(out)))


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
    if is_head_alone(plan):
        voice.note("the body is frozen and images come as they are: its features are made once")
    for record in drive(run, state, setting.task, setting.feeds, plan, choice, crew):
        if isinstance(record, Step) and record.note:
            voice.note(record.note, "warning")
        if crew.leads:
            voice.tell(record)
    result = _finish(run, setting, state, choice, voice, began)
    crew.meet()
    return result


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
    from hubel.runs.report.page import write_report  # noqa: PLC0415 (matplotlib: half a second)

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


def _describe(setting: Setting) -> dict[str, Any]:
    count = {part: len(getattr(setting.split, part)) for part in PARTS}
    source = setting.source
    return {
        "name": source.name,
        "origin": source.origin,
        "where": source.where,
        "count": count,
    }
