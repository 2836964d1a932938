"""`hubel heatmap`: where in a photo a run's net sees what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def heatmap(
    run: Annotated[str, typer.Argument(help="A run folder, as runs/photos-compact-1.")],
    photo: Annotated[Path, typer.Argument(help="An image file, larger than the run's images.")],
    out: Annotated[Path, typer.Option(help="The picture to write, a PNG.")] = Path("heatmap.png"),
    top: Annotated[int, typer.Option(help="Likeliest classes to draw.", min=1)] = 3,
    wanted: Annotated[
        list[str] | None, typer.Option("--class", help="Draw this class; may be given again.")
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="Enlarge (2) or reduce (0.5) the photo first.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Or: pixels of the photo's short side.", min=1)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show where in a photo a net sees what: its classes for every window, as a heat map.

    The net looks through windows as large as the images it was trained with: bring the photo to a
    size at which its things are as large as they were in those.

    \b
      hubel heatmap runs/photos-compact-1 street.jpg
      hubel heatmap runs/photos-compact-1 street.jpg --scale 0.5 --class cat --class dog
    """
    from hubel.data.decode import decode
    from hubel.errors import OptionError, unknown
    from hubel.loaded import LoadedNet
    from hubel.probe.heatmap import fitted
    from hubel.probe.heatmap_picture import draw_heatmap
    from hubel.runs.files import replacing
    from hubel.together import load_run

    loaded = load_run(run)
    if not isinstance(loaded, LoadedNet):
        raise OptionError(f"a heat map is of one net, and {run} is several: give one of its runs")
    if loaded.card.task != "classify":
        raise OptionError(
            f"{run} labels every pixel already: 'hubel predict {run} {photo} --out masks/'"
        )
    classes = loaded.card.classes
    for name in wanted or ():
        if name not in classes:
            raise OptionError(unknown("class", name, classes))
    pixels = decode(photo, str(photo))
    fed = fitted(pixels, loaded.card.preprocess, scale=scale, short=size)
    found = _found(loaded, fed, device)
    picked = [classes.index(name) for name in wanted or ()] or found.likeliest(top)
    with replacing(out) as draft:
        draw_heatmap(fed, found, classes, picked, draft)
    record = _record(pixels, fed, found, classes, picked) | {"picture": str(out)}
    if as_json:
        print(json.dumps(record))
    else:
        _print(record)


def register(app: typer.Typer) -> None:
    """Add this command to the app."""
    app.command()(heatmap)


def _found(loaded: Any, fed: Any, device: str) -> Any:
    """The net's answer for all windows of uint8 (C, H', W')."""
    import torch

    from hubel.probe.heatmap import class_heatmap
    from hubel.training.distribute import choose_device

    at, preprocess = choose_device(device), loaded.card.preprocess
    image = preprocess.normalise(torch.from_numpy(fed[None]).to(at))[0]
    size = (preprocess.height, preprocess.width)
    return class_heatmap(loaded.model.to(at), image, size=size)


def _record(
    pixels: Any, fed: Any, found: Any, classes: tuple[str, ...], picked: list[int]
) -> dict[str, Any]:
    """What was drawn, in words and numbers; x and y are pixels of the image fed."""
    peaks = [(classes[number], found.peak(number)) for number in picked]
    return {
        "photo": list(pixels.shape[1:]),
        "fed": list(fed.shape[1:]),
        "window": list(found.window),
        "stride": list(found.stride),
        "windows": list(found.probabilities.shape[1:]),
        "classes": [
            {"class": name, "probability": peak.probability, "x": peak.x, "y": peak.y}
            for name, peak in peaks
        ],
    }


def _print(record: dict[str, Any]) -> None:
    from hubel.show import print_table

    by = {key: "x".join(map(str, record[key])) for key in ("photo", "fed", "window", "windows")}
    down, right = record["stride"]
    if record["photo"] != record["fed"]:
        larger = record["fed"] > record["photo"]
        print(
            f"the photo of {by['photo']} was {'enlarged' if larger else 'reduced'} to {by['fed']}"
        )
    print(f"{by['windows']} windows of {by['window']} pixels, one every {down} down, {right} right")
    rows = [
        [row["class"], f"{row['probability']:.1%}", f"{row['x']:g}, {row['y']:g}"]
        for row in record["classes"]
    ]
    print_table(("class", "at most", "at x, y"), rows, right="at most")
    print(f"picture: {record['picture']}")
