"""`hubel evaluate`, `predict`, `report`, `runs`, `compare` and `models`: what trainings left."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

RunPath = Annotated[str, typer.Argument(help="A run folder, as runs/photos-compact-1.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")]
Out = Annotated[Path, typer.Option(help="Where the run folders are.")]


def evaluate(
    run: RunPath,
    source: Annotated[
        str | None, typer.Argument(help="Other data. Default: its own parts.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score a run on its parts, or on other data."""
    from hubel import api
    from hubel.show import Display, scores_table

    with Display(machine=as_json) as display:
        scores = api.load_run(run).evaluate(source, device=device, tell=display)
    if as_json:
        print(json.dumps({"run": run, "source": source, "metrics": scores}))
    else:
        from rich.console import Console

        Console(highlight=False).print(scores_table(scores))


def predict(
    run: RunPath,
    files: Annotated[list[str], typer.Argument(help="Images, folders of images, or '*.png'.")],
    form: Annotated[str, typer.Option("--format", help="table, json or csv.")] = "table",
    top: Annotated[int, typer.Option(help="Likeliest classes to name.", min=1)] = 3,
    device: Device = "auto",
) -> None:
    """Name what is in images.

    A file that cannot be read gets a line that says why, and the exit code is then 1.
    """
    from hubel import api
    from hubel.deploy.predictor import find_images
    from hubel.errors import OptionError, unknown

    if form not in WRITERS:
        raise OptionError(unknown("format", form, WRITERS))
    predictor = api.load_run(run).predictor(device, top)
    found = list(predictor.stream(find_images(files)))
    WRITERS[form](found)
    if any(answer.error for answer in found):
        raise typer.Exit(1)


def report(run: RunPath) -> None:
    """Write the report of a run again."""
    from hubel.runs.report import write_report
    from hubel.runs.run import Run

    print(write_report(Run.open(run).folder))


def list_runs(out: Out = Path("runs"), as_json: Json = False) -> None:
    """All trainings so far, oldest first."""
    from hubel.runs.overview import overview
    from hubel.show import print_table

    rows = overview(out)
    if as_json:
        print(json.dumps(rows))
    elif not rows:
        print(f"no runs in {out}: 'hubel train' makes one")
    else:
        columns = ("name", "data", "model", "epochs", "val", "test", "status", "started")
        for row in rows:
            row |= {part: _percent(row[part]) for part in ("val", "test")}
        shown = [[_cell(row[column]) for column in columns] for row in rows]
        print_table(columns, shown, right="epochs val test")


def compare(
    runs: Annotated[list[str], typer.Argument(help="Two run folders or more.")],
    as_json: Json = False,
) -> None:
    """What differed, and what came of it."""
    from hubel.errors import OptionError
    from hubel.runs.overview import differences
    from hubel.show import print_table

    if len(runs) < 2:
        raise OptionError(f"compare takes two runs or more, given {len(runs)}")
    rows = differences(runs)
    if as_json:
        print(json.dumps(rows))
    else:
        names = [Path(run).name for run in runs]
        print_table(["", *names], [[row["what"], *map(_cell, row["values"])] for row in rows])


def models(as_json: Json = False) -> None:
    """The models that have a name, and their cost."""
    from hubel import api
    from hubel.show import print_table

    rows = api.list_models()
    if as_json:
        print(json.dumps(rows))
    else:
        columns = ("name", "year", "parameters", "MACs", "input", "summary")
        shown = [
            [
                r["name"],
                r["year"],
                f"{r['parameters']:,}",
                f"{r['macs']:,}",
                r["input"],
                r["summary"],
            ]
            for r in rows
        ]
        print_table(columns, shown, right="parameters MACs")


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    for command in (evaluate, predict, report, compare, models):
        app.command()(command)
    app.command("runs")(list_runs)


def _as_table(found: list[Any]) -> None:
    from hubel.show import print_table

    rows = []
    for answer in found:
        chances = ", ".join(f"{name} {p:.1%}" for name, p in answer.top[1:])
        if answer.error:
            rows.append([answer.file, "-", "-", answer.error])
        else:
            rows.append([answer.file, answer.label, f"{answer.confidence:.1%}", chances])
    print_table(("file", "is", "sure", "or else"), rows, right="sure")


def _as_json(found: list[Any]) -> None:
    print(json.dumps([answer.to_json() for answer in found], indent=1, ensure_ascii=False))


def _as_csv(found: list[Any]) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(["file", "label", "confidence", "error"])
    for a in found:
        confidence = "" if a.confidence is None else f"{a.confidence:.6f}"
        writer.writerow([a.file, a.label or "", confidence, a.error or ""])


WRITERS = {"table": _as_table, "json": _as_json, "csv": _as_csv}


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.2%}"


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)
