"""Several trainings as one: the same with other seeds, or with another fold held out each time.

Trainings differ by chance; a handful of them says how much, and their ensemble is better than any.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from hubel import api
from hubel.api import Result
from hubel.data.record import PARTS, Source
from hubel.errors import HubelError, OptionError, RunError
from hubel.kinds.kind import Data
from hubel.kinds.table import kind_of, task_of, usual_model
from hubel.runs.drive import Interrupted
from hubel.runs.group import Group, Kind, Member, is_group
from hubel.session import Notice, Tell, choose_split, downloading, silent
from hubel.tasks.interval import Interval, intervals
from hubel.together import LoadedEnsemble, Scores, load_run
from hubel.training.plan import Plan, make_plan


@dataclass(frozen=True)
class Several:
    """A finished group of trainings.

    Attributes:
        folder: the group's; the members' run folders are in it, and `report`.
        kind: "seeds" or "folds".
        part: of the images that the members are compared on, "test" if there is such a part.
        members: each member's scores on it, by folder name.
        intervals: mean, deviation and 95 % interval of each score over the members.
        ensemble: the ensemble's scores by part; for folds, "out-of-fold".
        seconds: of all trainings together.
    """

    folder: Path
    kind: Kind
    part: str
    members: dict[str, dict[str, float]]
    intervals: dict[str, Interval]
    ensemble: Scores
    seconds: float

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    def to_json(self) -> dict[str, Any]:
        return {
            "group": str(self.folder),
            "kind": self.kind,
            "part": self.part,
            "members": self.members,
            "intervals": {name: it.to_json() for name, it in self.intervals.items()},
            "ensemble": self.ensemble,
            "seconds": round(self.seconds, 2),
            "report": str(self.report),
        }


def train_seeds(
    model: str | None = None,
    data: Data = "sample",
    *,
    seeds: int = 5,
    out: str | Path = "runs",
    name: str | None = None,
    tell: Tell = silent,
    **words: Any,
) -> Several:
    """Train `seeds` times: with seed, seed + 1, ..., all on the split that the first seed draws.

    Args:
        seeds: how many, 2 or more.
        out, name: the group's folder is out/name; the runs are seed-0, seed-1, ... in it.
        model, data, tell, **words: as `hubel.train` takes them; `model` must be a name, so that
            it can be built anew each time.

    Raises `HubelError` as `hubel.train` does; `Interrupted` after Ctrl-C, with the state saved.
    """
    plan = _plan(model or usual_model(words.get("task")), words)
    if seeds < 2:
        raise OptionError(f"seeds must be 2 or more, to tell how much they differ, given {seeds}")
    drawn = plan.seed if plan.split_seed is None else plan.split_seed
    numbers = range(plan.seed, plan.seed + seeds)
    members = [Member(f"seed-{n}", {"seed": n, "split_seed": drawn}) for n in numbers]
    return _begin("seeds", members, plan, _opened(plan, data, tell), Path(out), name, tell)


def cross_validate(
    model: str | None = None,
    data: Data = "sample",
    *,
    folds: int = 5,
    out: str | Path = "runs",
    name: str | None = None,
    tell: Tell = silent,
    **words: Any,
) -> Several:
    """Train `folds` times, each time tested on the fold that was held out: every image once.

    Args:
        folds: how many, 2 or more; cut as `hubel.data.folds.make_folds` says.
        out, name: the group's folder is out/name; the runs are fold-1, fold-2, ... in it.
        model, data, tell, **words: as `train_seeds`.

    Raises `HubelError` as `train_seeds` does, and where the images do not suffice for the folds.
    """
    plan = _plan(model or usual_model(words.get("task")), words)
    if plan.fold is not None:
        raise OptionError(f"give folds={folds} for all folds or one fold, not both")
    if folds < 2:
        raise OptionError(f"folds must be 2 or more, given {folds}")
    source = _opened(plan, data, tell)
    choose_split(plan.model_copy(update={"fold": (1, folds)}), source)  # mistakes show at once
    members = [Member(f"fold-{n}", {"fold": [n, folds]}) for n in range(1, folds + 1)]
    return _begin("folds", members, plan, source, Path(out), name, tell)


def train(
    model: str | nn.Module | None,
    data: Data,
    *,
    seeds: int | None = None,
    folds: int | None = None,
    **rest: Any,
) -> Result | Several:
    """One training, or several where `seeds` or `folds` says how many. Not both."""
    if seeds is not None and folds is not None:
        raise OptionError("give seeds or folds, not both: each fold would need each seed")
    if seeds is None and folds is None:
        return api.train(model, data, **rest)
    if isinstance(model, nn.Module):
        raise OptionError(
            "several trainings build the model anew each time: give a name or 'file.py:function', "
            f"given a module ({type(model).__name__})"
        )
    if seeds is not None:
        return train_seeds(model, data, seeds=seeds, **rest)
    return cross_validate(model, data, folds=folds or 0, **rest)


def resume(
    run: str | Path,
    *,
    model: nn.Module | None = None,
    data: Data | None = None,
    tell: Tell = silent,
) -> Result | Several:
    """Go on with a run from its last checkpoint; the end is bit-equal to an unbroken run.

    With a group's folder: its finished members are kept, the one that was broken off is resumed,
    the others are trained.

    Args:
        model: needed only where the run's model was a module made by hand.
        data: where the images are now, if they have moved; they are found again by content.

    Raises `RunError` where the run is finished, damaged, or its data is gone or changed.
    """
    if not is_group(run):
        return api.resume(run, model=model, data=data, tell=tell)
    group = Group.open(run)
    if group.finished:
        raise RunError(f"{group.folder} is finished: 'hubel evaluate {group.folder}' scores it")
    where = group.source["where"] if data is None else data
    if where is None:
        raise RunError(
            f"{group.folder} was trained on images given in Python ({group.source['name']}): "
            "give them again as data=..."
        )
    return _go_on(group, _opened(_plan(group.model, group.plan), where, tell), tell)


# How it is done -----------------------------------------------------------------------------------


def _plan(model: str, words: dict[str, Any]) -> Plan:
    """The words that were said, checked. Raises `OptionError`."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise OptionError(
            "seeds and folds are trained one after the other by one process: run without torchrun, "
            "or train each with its own --seed or --fold"
        )
    return make_plan(**{**words, "source": "", "model": model})


def _opened(plan: Plan, data: Data, tell: Tell) -> Source:
    """The data, as the plan's task has it."""
    task = task_of(plan.model, plan.task if "task" in plan.model_fields_set else None)
    return kind_of(task).open_data(data, plan, downloading(tell))


def _begin(
    kind: Kind,
    members: Sequence[Member],
    plan: Plan,
    source: Source,
    out: Path,
    name: str | None,
    tell: Tell,
) -> Several:
    said = plan.model_dump(mode="json", exclude_unset=True, exclude={"source", "model"})
    where = {"name": source.name, "origin": source.origin, "where": source.where}
    group = Group.create(out, name, kind, plan.model, where, said, tuple(members))
    try:
        return _go_on(group, source, tell)
    except HubelError:
        group.discard()
        raise


def _go_on(group: Group, source: Source, tell: Tell) -> Several:
    """Train what is not trained yet, then judge all of it together."""
    for number, member in enumerate(group.members, start=1):
        doing = "trained already" if group.run(member).finished else "training"
        tell(Notice(f"{member.name}: {doing}, {number} of {len(group.members)}"))
        try:
            _train(group, member, source, tell)
        except Interrupted:
            raise Interrupted(
                f"stopped and saved in {member.name}: go on with 'hubel resume {group.folder}'"
            ) from None
    return _finish(group, source, tell)


def _train(group: Group, member: Member, source: Source, tell: Tell) -> None:
    """One member, from wherever it stands."""
    run = group.run(member)
    if run.finished:
        if not (run.folder / "report.html").exists():  # it was stopped between the two
            from hubel.runs.report.page import write_report  # noqa: PLC0415 (matplotlib: half a second)

            write_report(run.folder)
    elif list(run.folder.glob("checkpoints/*.safetensors")):
        api.resume(run.folder, data=source, tell=tell)
    else:
        group.clear(member)
        words = {**group.plan, **member.words}
        api.train(group.model, source, out=group.folder, name=member.name, tell=tell, **words)


def _finish(group: Group, source: Source, tell: Tell) -> Several:
    """Scores of the members and of the ensemble, written down and drawn."""
    records = {member.name: group.run(member).results() for member in group.members}
    scores = {name: record["metrics"] for name, record in records.items()}
    part = next(p for p in reversed(PARTS) if all(p in parts for parts in scores.values()))
    members = {name: _numbers(parts[part]) for name, parts in scores.items()}
    loaded = load_run(group.folder)
    assert isinstance(loaded, LoadedEnsemble)
    device = loaded.members[0].run.config().plan.device
    parts = ("val", "test") if part != "train" else PARTS
    found = Several(
        group.folder,
        group.kind,
        part,
        members,
        intervals(list(members.values())),
        loaded.own_scores(source, parts, device, tell),
        sum(record["seconds"] for record in records.values()),
    )
    group.finish(found.to_json())
    from hubel.runs.report.group_page import write_group_report  # noqa: PLC0415 (matplotlib: half a second)

    write_group_report(group)
    return found


def _numbers(scores: dict[str, float | None]) -> dict[str, float]:
    """Scores from a file, where NaN stands as null."""
    return {name: math.nan if value is None else value for name, value in scores.items()}
