"""The run folder as the report reads it: every file may be missing, torn, or from another day."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubel.data.masks.palette import voc_palette
from hubel.errors import RunError
from hubel.runs.files import read_json
from hubel.runs.report.evidence import Evidence
from hubel.runs.report.history import History, read_history
from hubel.runs.report.words import number

PARTS = {"test": "test", "val": "validation", "train": "training"}


@dataclass(frozen=True)
class RunFiles:
    """All the inputs of one report. `unread` names the files that could not be read, and why."""

    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    results: dict[str, Any]
    data: dict[str, Any]
    history: History
    evidence: Evidence
    unread: list[str] = field(default_factory=list)

    @property
    def plan(self) -> dict[str, Any]:
        return record(self.config, "plan")

    @property
    def task(self) -> str:
        """What the net does: "classify" or "segment"."""
        return str(self.config.get("task") or "classify")

    @property
    def colours(self) -> list[tuple[int, int, int]]:
        """Each class's (r, g, b) of 0..255: the run's own, else VOC's."""
        given = self.config.get("colours")
        if isinstance(given, list) and len(given) == len(self.classes):
            return [(int(r), int(g), int(b)) for r, g, b in given]
        return list(voc_palette(len(self.classes)))

    @property
    def classes(self) -> list[str]:
        """Class names; numbers where the config holds none but the evidence has classes."""
        names = self.config.get("classes")
        if isinstance(names, list) and names:
            return [str(name) for name in names]
        confusion = self.evidence.confusion
        return [] if confusion is None else [str(k) for k in range(len(confusion))]

    def name_of(self, index: int) -> str:
        """A class's name; its number where there is none."""
        names = self.classes
        return names[index] if 0 <= index < len(names) else str(index)

    def size_of(self, part: str) -> int | None:
        """How many images `part` holds, if the run says so."""
        size = number(record(self.config, "source", "count").get(part))
        return int(size) if size > 0 else None

    def metrics(self, part: str) -> dict[str, Any]:
        return record(self.results, "metrics", part)

    @property
    def best(self) -> int | None:
        """The history's row whose weights were kept."""
        flagged = self.history.best
        return self.history.row_of(self.results.get("best_epoch")) if flagged is None else flagged


def read_run(path: Path) -> RunFiles:
    """Read what is there. Raises `RunError` where `path` is no run folder at all."""
    if not path.is_dir():
        raise RunError(f"a run folder is needed to write a report, given {str(path)!r}")
    unread: list[str] = []
    files = {
        name: _json(path / f"{name}.json", unread)
        for name in ("config", "environment", "results", "data")
    }
    try:
        evidence = Evidence.load(path)
    except RunError as error:
        unread.append(str(error))
        evidence = Evidence()
    history = read_history(path / "metrics.jsonl")
    if not any(files.values()) and not len(history):
        raise RunError(f"{path} holds no config.json, results.json or metrics.jsonl: not a run")
    return RunFiles(path, **files, history=history, evidence=evidence, unread=unread)


def record(record: Any, *path: str) -> dict[str, Any]:
    """The record at `path` inside nested records; empty where it is not there."""
    for key in path:
        record = record.get(key) if isinstance(record, dict) else None
    return record if isinstance(record, dict) else {}


def _json(path: Path, unread: list[str]) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = read_json(path)
    except RunError as error:
        unread.append(str(error))
        return {}
    return found if isinstance(found, dict) else {}
