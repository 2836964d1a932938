"""`hubel lab`: the field's claims, put to the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The field's claims, put to the test.", no_args_is_help=True)


@app.callback()
def _lab() -> None:
    """Keeps the experiments' names: with a single one, typer would do without."""


@app.command()
def depth(
    source: Annotated[str, typer.Argument(help="Labelled images of 32x32 pixels.")] = "cifar10",
    depths: Annotated[str, typer.Option(help="Two or more of 20, 32, 44, 56, 110.")] = "20,56",
    seeds: Annotated[int, typer.Option(help="Trainings of each net.", min=2)] = 3,
    epochs: Annotated[int, typer.Option(help="Epochs of each training.", min=1)] = 5,
    batch: Annotated[int, typer.Option(help="Images per step.", min=2)] = 64,
    out: Annotated[Path, typer.Option(help="Where the runs are made.")] = Path("lab/depth"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Are deeper nets better? Plain ones against residual ones.

    Trains plain and residual nets of each depth, several times each, and compares their errors
    with 95 % intervals (He et al. 2015, figure 6). Hours on two cores; stopped and called again,
    it goes on where it was.

    \b
      hubel lab depth                                 12 trainings on CIFAR-10
      hubel lab depth cifar10 --depths 20,44,110 --epochs 20
    """
    from hubel.errors import OptionError
    from hubel.lab.depth import depth as run
    from hubel.show import Display, print_table

    try:
        wanted = [int(word) for word in depths.split(",")]
    except ValueError:
        raise OptionError(f"--depths takes numbers like 20,56, given {depths!r}") from None
    with Display(machine=as_json) as display:
        found = run(
            source, depths=wanted, seeds=seeds, epochs=epochs, batch=batch, out=out, tell=display
        )
    if as_json:
        print(json.dumps(found.to_json()))
        return
    rows = [
        [net, *(f"{(i := found.interval(net, part)).mean:.2%} ± {i.half:.2%}" for part in parts)]
        for net, parts in found.errors.items()
    ]
    print_table(("net", "training error", "test error"), rows, right="training error test")
    for claim in found.claims:
        print(f"{'holds' if claim.holds else 'does not hold'}: {claim.text}")
    print(f"picture: {found.picture}")
