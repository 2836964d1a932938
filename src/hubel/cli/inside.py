"""`hubel check` and `hubel look`: gradients proven, a pass laid open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

WRONG = 3  # exit code of a check that found a wrong gradient


def check(
    target: Annotated[
        str, typer.Argument(help="A run folder, a model's name, or net.py:function.")
    ],
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Only list the operators, and which are borrowed.")
    ] = False,
    input_size: Annotated[
        str | None, typer.Option("--input", help="What the net takes: CxHxW, as 3x32x32.")
    ] = None,
    classes: Annotated[int, typer.Option(help="Classes of a net that is not a run's.")] = 10,
    images: Annotated[int, typer.Option(help="Random images to check with.", min=1)] = 2,
    differences: Annotated[
        bool, typer.Option(help="Finite differences too; without, autograd alone.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Another seed, other images.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Prove a net's gradients: hubel's formulas = autograd = finite differences, in float64.

    \b
      hubel check lenet5
      hubel check runs/photos-compact-1
      hubel check net.py:make --input 3x32x32
      hubel check resnet20 --coverage

    Exit code 3 where a gradient is wrong.
    """
    from hubel import examine
    from hubel.show import Display

    shape = _shape(input_size)
    found = examine.subject(target, images=images, shape=shape, classes=classes, seed=seed)
    if coverage:
        _print_coverage(examine.coverage(found), as_json)
        return 0
    with Display(machine=as_json) as display:
        report = examine.check_subject(found, differences=differences, seed=seed, tell=display)
    if as_json:
        print(json.dumps(report.to_json()))
    else:
        print(report)
    return 0 if report.fine else WRONG


def look(
    run: Annotated[str, typer.Argument(help="A run folder, as runs/photos-compact-1.")],
    image: Annotated[Path, typer.Argument(help="An image file.")],
    label: Annotated[
        str | None, typer.Option(help="Class whose loss is differentiated. Default: the likeliest.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page with every operator's maps.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Lay one pass of a net open: every operator, its values, its gradients.

    \b
      hubel look runs/photos-compact-1 new.jpg
      hubel look runs/photos-compact-1 new.jpg --html look.html
    """
    from hubel import examine
    from hubel.runs.files import write_text

    found = examine.look_at(run, image, label=label)
    if html is not None:
        write_text(html, found.page)
    if as_json:
        print(
            json.dumps(
                {"guess": found.guessed, "confidence": found.confidence, **found.look.to_json()}
            )
        )
        return
    print(
        f"{image}: {found.guessed} ({found.confidence:.1%}); "
        f"gradients of the loss for {found.label}"
    )
    print(found.look)
    if html is not None:
        print(f"page: {html}")


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command()(check)
    app.command()(look)


def _shape(words: str | None) -> tuple[int, int, int] | None:
    """Numbers of "3x32x32". Raises `OptionError`."""
    from hubel.errors import OptionError

    if words is None:
        return None
    parts = words.lower().split("x")
    if len(parts) != 3 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise OptionError(f"--input is channels x height x width, as 3x32x32, given {words!r}")
    channels, height, width = map(int, parts)
    return channels, height, width


def _print_coverage(found: dict[str, dict[str, int]], as_json: bool) -> None:
    from hubel.show import print_table

    if as_json:
        print(json.dumps(found))
        return
    rows = [[kind, str(n), "hubel"] for kind, n in found["operators"].items()]
    rows += [[kind, str(n), "borrowed from autograd"] for kind, n in found["borrowed"].items()]
    print_table(("operator", "calls", "differentiated by"), rows, right="calls")
    print(f"{len(found['borrowed'])} operators borrowed")
