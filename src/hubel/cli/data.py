"""`hubel data`: check, get and list data sets."""

from __future__ import annotations

import json
from typing import Annotated

import typer

app = typer.Typer(help="Look at data before it is trained on.", no_args_is_help=True)
LISTED = 10  # names under a finding
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")]


@app.command()
def check(
    source: Annotated[str, typer.Argument(help="Folder, file or name of labelled images.")],
    task: Annotated[str, typer.Option(help="classify or segment.")] = "classify",
    classes: Annotated[
        str | None, typer.Option(help="segment: file with the classes' names and colours.")
    ] = None,
    ignore: Annotated[
        int | None, typer.Option(help="segment: the index of pixels without a label.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 on warnings too.")] = False,
    as_json: Json = False,
) -> None:
    """Decode every image and say what is wrong.

    Broken files, copies, images in two parts, class counts, sizes; of masks also labels that are
    no class, and classes with few pixels.

    Exits 1 where something is wrong that must be mended before training.
    """
    from hubel import api
    from hubel.show import Display, print_table

    with Display(machine=as_json) as display:
        opened = api.load_data(source, display, task=task, classes=classes, ignore=ignore)
        found = api.check_data(opened, display)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        print(f"{found.images} images of {len(found.classes)} classes from {opened.origin}")
        for finding in found.findings:
            print(f"{finding.level}: {finding.text}")
            for name in finding.names[:LISTED]:
                print(f"    {name}")
            if len(finding.names) > LISTED:
                print(f"    and {len(finding.names) - LISTED} more (--json lists them)")
        if not found.findings:
            print("nothing to complain of")
        rows = [[n, *(c[k] for c in found.counts.values())] for k, n in enumerate(found.classes)]
        print_table(["class", *(part or "images" for part in found.counts)], rows)
    bad = {"error", "warning"} if strict else {"error"}
    if any(finding.level in bad for finding in found.findings):
        raise typer.Exit(1)


@app.command()
def get(name: Annotated[str, typer.Argument(help="A name of 'hubel data list'.")]) -> None:
    """Download a data set, checksummed."""
    from hubel.data.named import get as fetch
    from hubel.session import downloading
    from hubel.show import Display

    with Display() as display:
        folder = fetch(name, downloading(display))
    print(folder)


@app.command("list")
def list_named(as_json: Json = False) -> None:
    """The data sets that have a name."""
    from hubel.data.named import catalogue
    from hubel.show import print_table

    rows = [
        {
            "name": entry.named.name,
            "train": entry.named.train,
            "test": entry.named.test,
            "size": "x".join(map(str, entry.named.size)),
            "licence": entry.named.licence,
            "found": str(entry.found) if entry.found else None,
        }
        for entry in catalogue()
    ]
    if as_json:
        print(json.dumps(rows))
    else:
        columns = ("name", "train", "test", "size", "licence", "found")
        for row in rows:
            row["found"] = row["found"] or f"no: 'hubel data get {row['name']}'"
        shown = [[row[column] for column in columns] for row in rows]
        print_table(columns, shown, right="train test")
