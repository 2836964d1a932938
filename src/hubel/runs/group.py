"""`Group`: a folder of trainings that belong together: several seeds, or the folds of one data set.

group.json     what is trained, the members, and once all are trained: scores, intervals, ensemble
seed-0/ ...    one whole run folder per member (fold-1/ ... for folds)
report.html    all members in one table and one picture
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hubel.errors import RunError
from hubel.runs.environment import environment
from hubel.runs.files import read_json, write_json
from hubel.runs.headline import headline
from hubel.runs.run import Run

FILE = "group.json"
Kind = Literal["seeds", "folds"]


@dataclass(frozen=True)
class Member:
    """One training of a group: its folder's name and the words of the plan that are its own."""

    name: str
    words: dict[str, Any]


@dataclass(frozen=True)
class Group:
    """A group's folder and what was decided before its first step.

    Attributes:
        kind: "seeds": one split, other weights; "folds": each member tests on another part.
        model: the name that all members are built by.
        source: {"name", "origin", "where"} of the images.
        plan: words of `Plan` that all members share.
    """

    folder: Path
    kind: Kind
    model: str
    source: dict[str, Any]
    plan: dict[str, Any]
    members: tuple[Member, ...]

    @classmethod
    def create(
        cls,
        out: Path,
        name: str | None,
        kind: Kind,
        model: str,
        source: dict[str, Any],
        plan: dict[str, Any],
        members: tuple[Member, ...],
    ) -> Group:
        """A new folder below `out`, named as a run's is, with its group.json.

        Raises `RunError` where the name is taken or the place cannot be written.
        """
        stem = f"{source['name']}-{model.rpartition(':')[2]}-{kind}"
        folder = Run.create(out, name, stem).folder
        group = cls(folder, kind, model, source, plan, members)
        write_json(folder / FILE, {**group._decided(), "environment": environment()})
        return group

    @classmethod
    def open(cls, folder: str | Path) -> Group:
        """An existing group. Raises `RunError` where group.json is missing or damaged."""
        folder = Path(folder)
        record = read_json(folder / FILE)
        try:
            members = tuple(Member(**member) for member in record["members"])
            decided = (record["kind"], record["model"], record["source"], record["plan"])
        except (KeyError, TypeError) as error:
            raise RunError(f"{folder / FILE} is damaged: {error!r}") from None
        return cls(folder, *decided, members)

    @property
    def finished(self) -> bool:
        return "results" in read_json(self.folder / FILE)

    def run(self, member: Member) -> Run:
        """The member's folder, which may not be there yet."""
        return Run(self.folder / member.name)

    def runs(self) -> list[Run]:
        """The run of every member, in order. Raises `RunError` where one is not finished."""
        found = [self.run(member) for member in self.members]
        if not all(run.finished for run in found):
            raise RunError(
                f"{self.folder} is not finished: go on with 'hubel resume {self.folder}'"
            )
        return found

    def clear(self, member: Member) -> None:
        """Drop a member's folder that was begun but holds no state to go on from."""
        shutil.rmtree(self.folder / member.name, ignore_errors=True)

    def discard(self) -> None:
        """Drop the group where not one member was begun."""
        if not any((self.folder / member.name).exists() for member in self.members):
            shutil.rmtree(self.folder)

    def finish(self, results: dict[str, Any]) -> None:
        """Write down what came of it: its being there means that the group is finished."""
        write_json(self.folder / FILE, {**read_json(self.folder / FILE), "results": results})

    def results(self) -> dict[str, Any]:
        """What `finish` wrote. Raises `RunError` where the group is not finished."""
        self.runs()
        record: dict[str, Any] = read_json(self.folder / FILE)
        if "results" not in record:
            raise RunError(
                f"{self.folder} is not finished: go on with 'hubel resume {self.folder}'"
            )
        return dict(record["results"])

    def _decided(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "model": self.model,
            "source": self.source,
            "plan": self.plan,
            "members": [vars(member) for member in self.members],
        }


def is_group(path: str | Path) -> bool:
    """Whether this is a group's folder."""
    return (Path(path) / FILE).is_file()


def list_groups(out: Path) -> list[Group]:
    """The groups below `out`, oldest first; damaged ones are left out."""
    found = []
    for path in sorted(out.glob(f"*/{FILE}"), key=lambda path: path.stat().st_mtime_ns):
        try:
            found.append(Group.open(path.parent))
        except RunError:
            continue
    return found


def group_lines(out: Path) -> list[dict[str, Any]]:
    """One record per group below `out`, with the keys of `hubel.runs.overview.overview`."""
    return [_line(group) for group in list_groups(out)]


def _line(group: Group) -> dict[str, Any]:
    record = read_json(group.folder / FILE)
    done = sum(group.run(member).finished for member in group.members)
    line = {
        "name": group.folder.name,
        "data": group.source["name"],
        "model": group.model,
        "epochs": f"{done}/{len(group.members)} {group.kind}",
        "val": None,
        "test": None,
        "status": "stopped: 'hubel resume'",
        "started": record["environment"]["started"].replace("T", " ")[:16],
    }
    results = record.get("results")
    if not results:
        return line
    score = results["intervals"][headline(results["intervals"])]["mean"]
    return line | {results["part"]: score, "status": "finished"}
