"""`Run`: the folder that holds everything needed to use, resume, repeat or inspect one training.

config.json          plan, architecture, preprocessing, classes, source, how steps are run
environment.json     command, versions, machine
split.json           which image is in which part, by content hash
data.json            what the data check found
metrics.jsonl        one line per logged step and per epoch; tensorboard/ holds the same
checkpoints/         the last two states, each one file
weights.safetensors  the best weights, with class names and preprocessing (once finished)
results.json         scores by part, seconds, choices (once finished)
evidence.*           what the report draws
report.html          the report
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hubel.data.record import Source
from hubel.data.split import Split
from hubel.errors import DataError, RunError, unknown
from hubel.runs.environment import environment
from hubel.runs.files import read_json, write_json
from hubel.runs.weights import Card, load_tensors, load_weights, save_tensors, save_weights
from hubel.training.plan import Plan
from hubel.training.speed import Choice
from hubel.training.state import State

KEEP = 2  # checkpoints: the last, and the one before should the last be damaged


@dataclass(frozen=True)
class Config:
    """What `config.json` holds."""

    plan: Plan
    card: Card
    source: dict[str, Any]
    choice: Choice

    def to_json(self) -> dict[str, Any]:
        return {
            "plan": self.plan.model_dump(mode="json"),
            "source": self.source,
            "choice": self.choice.to_json(),
            **self.card.to_json(),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Config:
        return cls(
            Plan(**record["plan"]),
            Card.from_json(record),
            record["source"],
            Choice(**record["choice"]),
        )


class Run:
    """One training's folder. `create` makes one, `open` takes one up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, out: Path, name: str | None, stem: str) -> Run:
        """A new folder below `out`: `name`, or `stem` with the next free number.

        Raises `RunError` where the name is taken or the place cannot be written.
        """
        if name is not None and not re.fullmatch(r"[\w][\w.+-]*", name):
            raise RunError(f"run name {name!r}: letters, digits and . _ + - are allowed")
        if out.exists() and not out.is_dir():
            raise RunError(f"cannot make a run folder in {out}: it is a file, not a folder")
        try:
            out.mkdir(parents=True, exist_ok=True)
            if name is None:
                return cls(_numbered(out, re.sub(r"[^\w.+-]+", "-", stem)))
            (out / name).mkdir()
        except FileExistsError:
            raise RunError(
                f"{out / (name or '')} exists already: give another --name, "
                "or go on with it by 'hubel resume'"
            ) from None
        except OSError as error:
            raise RunError(f"cannot make a run folder in {out}: {error.strerror}") from None
        return cls(out / str(name))

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """An existing run. Raises `RunError`, naming the nearest where there is none here."""
        folder = Path(folder)
        if (folder / "config.json").is_file():
            return cls(folder)
        if (folder / "group.json").is_file():
            below = [run.name for run in list_runs(folder)]
            raise RunError(f"{folder} is a group of runs: give one of them: {', '.join(below)}")
        if folder.is_dir():
            raise RunError(
                f"{folder} is no whole run folder: it has no config.json "
                "(its training ended before it began; train again)"
            )
        siblings = [run.folder.name for run in list_runs(folder.parent)]
        if siblings:
            raise RunError(unknown("run", folder.name, siblings))
        raise RunError(f"no run at {folder}: 'hubel train' makes one, 'hubel runs' lists them")

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def finished(self) -> bool:
        return (self.folder / "results.json").exists()

    def begin(self, config: Config, split: dict[str, Any], findings: dict[str, Any]) -> None:
        """Write down what is decided before the first step."""
        write_json(self.folder / "environment.json", environment())
        write_json(self.folder / "split.json", split)
        write_json(self.folder / "data.json", findings)
        write_json(self.folder / "config.json", config.to_json())

    def config(self) -> Config:
        """Raises `RunError` where config.json is damaged or of another version."""
        record = read_json(self.folder / "config.json")
        try:
            return Config.from_json(record)
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.folder / 'config.json'} is damaged: {error}") from None

    def split(self, source: Source) -> Split:
        """The run's own split, found again in `source` by content.

        Raises `DataError` where images are gone or new, or where labels have changed.
        """
        record = read_json(self.folder / "split.json")
        split = Split.from_json(record, source)
        if record["source"] != source.fingerprint():
            raise DataError(
                f"the images of {source.origin} are those of {self.folder}, but their labels or "
                "class names have changed: train a new run"
            )
        return split

    def results(self) -> dict[str, Any]:
        """What a finished run scored. Raises `RunError` where it is not finished."""
        if not self.finished:
            raise RunError(
                f"{self.folder} is not finished: go on with 'hubel resume {self.folder}'"
            )
        record: dict[str, Any] = read_json(self.folder / "results.json")
        return record

    # States ---------------------------------------------------------------------------------

    def save(self, state: State) -> Path:
        """Write the state as a checkpoint, then drop all but the last two."""
        folder = self.folder / "checkpoints"
        folder.mkdir(exist_ok=True)
        path = folder / f"{state.step:09d}.safetensors"
        save_tensors(path, *state.export())
        for old in sorted(folder.glob("*.safetensors"))[:-KEEP]:
            old.unlink()
        return path

    def load(self, state: State) -> None:
        """Restore the newest whole checkpoint into `state`. Raises `RunError` if there is none."""
        paths = sorted((self.folder / "checkpoints").glob("*.safetensors"), reverse=True)
        trouble = f"{self.folder} has no checkpoint: train again"
        for path in paths:
            try:
                state.restore(*load_tensors(path))
                return
            except RunError as error:
                trouble = str(error)
        raise RunError(trouble)

    # Results --------------------------------------------------------------------------------

    def finish(self, weights: dict[str, Tensor], card: Card, results: dict[str, Any]) -> None:
        """Write the weights, then the results: their being there means the run is finished."""
        save_weights(self.folder / "weights.safetensors", weights, card)
        write_json(self.folder / "results.json", results)

    def weights(self) -> tuple[dict[str, Tensor], Card]:
        """The finished run's weights; of an unfinished one, the best that its checkpoints hold."""
        path = self.folder / "weights.safetensors"
        if path.exists():
            return load_weights(path)
        for checkpoint in sorted((self.folder / "checkpoints").glob("*.safetensors"), reverse=True):
            tensors, _ = load_tensors(checkpoint)
            best = {n.removeprefix("best/"): t for n, t in tensors.items() if n.startswith("best/")}
            if best:
                return best, self.config().card
        raise RunError(f"{self.folder} has no weights yet: go on with 'hubel resume {self.folder}'")


def list_runs(out: Path) -> list[Run]:
    """The runs below `out`, oldest first."""
    if not out.is_dir():
        return []
    configs = sorted(out.glob("*/config.json"), key=lambda path: path.stat().st_mtime_ns)
    return [Run(path.parent) for path in configs]


def _numbered(out: Path, stem: str) -> Path:
    taken = (re.fullmatch(re.escape(stem) + r"-(\d+)", path.name) for path in out.iterdir())
    number = max((int(found[1]) for found in taken if found), default=0)
    while True:
        number += 1
        try:
            (out / f"{stem}-{number}").mkdir()
            return out / f"{stem}-{number}"
        except FileExistsError:  # another training was quicker
            continue
