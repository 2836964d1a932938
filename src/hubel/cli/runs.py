"""`hubel evaluate`, `predict`, `report`, `runs`, `compare` and `models`: what trainings left."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

RunPath = Annotated[
    str, typer.Argument(help="A run folder, as runs/photos-compact-1, or a group's.")
]
Tta = Annotated[
    str,
    typer.Option(
        help="Views of each image to average: none, flip (where mirrored images stay what they "
        "are: photos, not digits), ten-crop or dense (both with mirrors); of masks none, flip or "
        "scales (0.75, 1 and 1.25, with mirrors)."
    ),
]
Refine = Annotated[
    str,
    typer.Option(
        metavar="WORD",
        help="Of masks, what makes them follow the photo's edges: none; crf, with settings as in "
        "crf:w1=4,alpha=50,beta=5,iterations=10; superpixels, as in superpixels:scale=200.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")]
Out = Annotated[Path, typer.Option(help="Where the run folders are.")]


def evaluate(
    run: RunPath,
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]... [SOURCE]", help="More runs; other data. Default: their own parts."
        ),
    ] = None,
    device: Device = "auto",
    tta: Tta = "none",
    refine: Refine = "none",
    part: Annotated[
        str | None, typer.Option(help="Only this one of its own: train, val or test.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score a run on its parts, or on other data; of a group or several runs, their ensemble.

    \b
      hubel evaluate runs/photos-compact-1
      hubel evaluate runs/photos-compact-1 other-photos/ --tta flip
      hubel evaluate runs/photos-compact-seeds-1        the average of its members
      hubel evaluate runs/A runs/B other-photos/        the average of two
      hubel evaluate runs/streets-unet_padded-1 --refine crf     masks, by a CRF's edges
    """
    from hubel.runs.files import finite
    from hubel.show import Display, scores_table
    from hubel.together import take_up

    runs, rest = _peel([run, *(more or [])])
    if len(rest) > 1:  # the last word alone may be data
        runs, rest = [*runs, *rest[:-1]], rest[-1:]
    source = rest[0] if rest else None
    with Display(machine=as_json) as display:
        loaded = take_up(runs)
        parts = None if part is None else [part]
        scores = loaded.evaluate(source, device, display, tta, refine, parts)
    if as_json:
        record = {"run": run if len(runs) == 1 else runs, "source": source, "metrics": scores}
        print(json.dumps(finite(record)))
    else:
        from rich.console import Console

        Console(highlight=False).print(scores_table(scores))


def predict(
    run: RunPath,
    files: Annotated[
        list[str], typer.Argument(help="Images, folders of images, or '*.png'; more runs first.")
    ],
    form: Annotated[str, typer.Option("--format", help="table, json or csv.")] = "table",
    top: Annotated[int, typer.Option(help="Likeliest or largest classes to name.", min=1)] = 3,
    device: Device = "auto",
    tta: Tta = "none",
    refine: Refine = "none",
    out: Annotated[
        Path | None,
        typer.Option(help="Of masks: the folder to write them to, as NAME.png in class colours."),
    ] = None,
    overlay: Annotated[
        bool, typer.Option(help="With --out, the photo tinted by its mask too: NAME.overlay.jpg.")
    ] = True,
) -> None:
    """Name what is in images, or label their pixels, as the run was trained to.

    With a group or several runs, by the average of them. A file that cannot be read gets a line
    that says why, and the exit code is then 1.

    \b
      hubel predict runs/photos-compact-1 new.jpg 'more/*.png'
      hubel predict runs/streets-unet_padded-1 photos/               shares of the classes
      hubel predict runs/streets-unet_padded-1 photos/ --out masks/  and the masks themselves
      hubel predict runs/streets-unet_padded-1 photos/ --out masks/ --tta flip --refine crf

    Masks are indexed PNG: a pixel's value is its class, listed in masks/classes.txt, so that they
    can be data again. Images of any size are labelled, large ones window by window.
    """
    from hubel.deploy.door import labels_alone
    from hubel.deploy.mask_files import MaskFolder
    from hubel.deploy.mask_predictor import MaskPredictor
    from hubel.deploy.predictor import find_images
    from hubel.errors import OptionError, unknown
    from hubel.session import Stage
    from hubel.show import Display
    from hubel.together import take_up

    if form not in WRITERS:
        raise OptionError(unknown("format", form, WRITERS))
    runs, images = _peel([run, *files])
    if not images:
        raise OptionError(f"predict takes images after the runs, given {', '.join(runs)} alone")
    loaded = take_up(runs)
    predictor = loaded.predictor(device, top, tta, refine)
    paths = find_images(images)
    found: list[Any]
    if isinstance(predictor, MaskPredictor):
        folder = MaskFolder(out, loaded.card, overlay) if out is not None else None
        with Display() as display:

            def told(doing: str, done: int, of: int) -> None:
                display(Stage(doing, done, of))

            found = list(predictor.stream(paths, folder, told=told))
        MASK_WRITERS[form](found, top)
    else:
        labels_alone(predictor.classes, out=out)
        found = list(predictor.stream(paths))
        WRITERS[form](found)
    if any(answer.error for answer in found):
        raise typer.Exit(1)


def report(run: RunPath) -> None:
    """Write the report of a run or a group again."""
    from hubel.runs.group import Group, is_group
    from hubel.runs.report.group_page import write_group_report
    from hubel.runs.report.page import write_report
    from hubel.runs.run import Run

    if is_group(run):
        print(write_group_report(Group.open(run)))
    else:
        print(write_report(Run.open(run).folder))


def list_runs(out: Out = Path("runs"), as_json: Json = False) -> None:
    """All trainings so far, oldest first."""
    from hubel.runs.group import group_lines
    from hubel.runs.overview import overview
    from hubel.show import print_table

    rows = sorted([*overview(out), *group_lines(out)], key=lambda row: row["started"] or "")
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
        columns = ("name", "paper", "parameters", "MACs", "input", "summary")
        shown = [
            [
                r["name"],
                f"{r['paper'].partition(',')[0]} {r['year']}",
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


def _peel(words: list[str]) -> tuple[list[str], list[str]]:
    """The run and group folders that the words begin with, one at least; and what follows them."""
    runs = 1
    while runs < len(words) and any(
        (Path(words[runs]) / file).is_file() for file in ("config.json", "group.json")
    ):
        runs += 1
    return words[:runs], words[runs:]


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


def _masks_as_table(found: list[Any], top: int) -> None:
    from hubel.show import print_table

    rows = []
    for answer in found:
        if answer.error:
            rows.append([answer.file, "-", answer.error, "-"])
        else:
            shares = ", ".join(f"{name} {share:.1%}" for name, share in answer.largest[:top])
            size = "{1} x {0}".format(*answer.size)
            rows.append([answer.file, size, shares, answer.mask_file or "-"])
    columns = ("file", "pixels", "shares of the pixels", "mask")
    written = any(answer.mask_file for answer in found)
    print_table(columns[: 3 + written], [row[: 3 + written] for row in rows])


def _masks_as_json(found: list[Any], top: int) -> None:
    _as_json(found)


def _masks_as_csv(found: list[Any], top: int) -> None:
    """A column per class: its share of the pixels."""
    classes = next((list(answer.areas) for answer in found if not answer.error), [])
    writer = csv.writer(sys.stdout)
    writer.writerow(["file", "height", "width", *classes, "mask", "overlay", "error"])
    for a in found:
        shares = [f"{a.areas[name]:.6f}" if a.areas else "" for name in classes]
        size = a.size or ("", "")
        writer.writerow(
            [a.file, *size, *shares, a.mask_file or "", a.overlay_file or "", a.error or ""]
        )


WRITERS = {"table": _as_table, "json": _as_json, "csv": _as_csv}
MASK_WRITERS = {"table": _masks_as_table, "json": _masks_as_json, "csv": _masks_as_csv}


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.2%}"


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)
