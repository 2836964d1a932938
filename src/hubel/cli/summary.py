"""`hubel summary`: a net in one table, layer by layer."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def summary(
    model: Annotated[str, typer.Argument(help="A model's name, net.py:function, or a run folder.")],
    size: Annotated[
        str | None, typer.Option(help="Pixels of its images: 64, or 48x64 (height x width).")
    ] = None,
    channels: Annotated[int | None, typer.Option(help="3 for colour, 1 for grey.", min=1)] = None,
    classes: Annotated[
        int | None, typer.Option(help="Classes of a net that is not a run's.", min=1)
    ] = None,
    batch: Annotated[int, typer.Option(help="Images in the pass that is counted.", min=1)] = 1,
    depth: Annotated[
        int | None, typer.Option(help="Fold layers below paths of so many parts.", min=1)
    ] = None,
    time: Annotated[bool, typer.Option("--time/--no-time", help="Time every layer too.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """What every layer makes, holds, computes and sees, and how long it takes.

    \b
      hubel summary resnet20
      hubel summary resnet152 --depth 1 --no-time
      hubel summary net.py:make --size 48x64
      hubel summary runs/photos-compact-1

    field: the pixels of the image that one number of the layer sees; all: the whole image.
    """
    from hubel import examine
    from hubel.cli.words import size_of
    from hubel.probe.summary import RIGHT
    from hubel.show import print_table

    found = examine.summary(
        model,
        size=None if size is None else size_of(size),
        channels=channels,
        classes=classes,
        batch=batch,
        times=time,
        depth=depth,
    )
    if as_json:
        print(json.dumps(found.to_json()))
        return
    print(found.title)
    print_table(found.columns, found.rows(), right=" ".join(RIGHT))
    print(found.totals)
    for note in found.notes:
        print(note)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(summary)
