"""A look inside: the batch as seen, the first filters, feature maps, costs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubel.runs.report.areas import legend
from hubel.runs.report.evidence import SeenBatch
from hubel.runs.report.folder import RunFiles
from hubel.runs.report.pictures import CRISP, LARGEST, Picture, heat, photo, signed
from hubel.runs.report.words import number, percent
from hubel.tasks.segmentation.overlay import overlay

BATCH, FILTERS, WINDOWS = 36, 64, 12
IMAGES, LAYERS, MAPS = 3, 6, 12  # of the feature maps
LONG, COSTLIEST = 24, 12  # a longer table of layers opens with its costliest
NUMBERS = ("parameters", "macs", "milliseconds")
COLUMNS = ("layer", "kind", *NUMBERS)


def batch(files: RunFiles) -> dict[str, Any] | None:
    """The first images of a training batch, with their labels, blends of labels, or masks."""
    seen = files.evidence.batch
    if seen is None or not len(seen.images):
        return None
    largest = LARGEST if max(seen.images.shape[-2:]) <= CRISP else 96
    if seen.labels.ndim == 3:
        return _masked(files, seen)
    pictures = [photo(image, largest) for image in seen.images[:BATCH]]
    labels = [_label(files, label) for label in seen.labels[:BATCH]]
    return {"pictures": list(zip(pictures, labels, strict=True)), "total": len(seen.images)}


def _masked(files: RunFiles, seen: SeenBatch) -> dict[str, Any]:
    """Windows with their masks laid over them; what has no label keeps its own colours."""
    pairs = list(zip(seen.images, seen.labels, strict=True))[:WINDOWS]
    lines = max(seen.images.shape[2:]) > LARGEST  # on smaller ones they would hide the picture
    drawn = [np.asarray(overlay(image, mask, files.colours, edges=lines)) for image, mask in pairs]
    pictures = [photo(picture.transpose(2, 0, 1), LARGEST) for picture in drawn]
    return {
        "pictures": [(picture, "") for picture in pictures],
        "total": len(seen.images),
        "legend": legend(files, seen.labels[:WINDOWS], unlabelled=False),
    }


def filters(files: RunFiles) -> dict[str, Any] | None:
    """The first layer's filters, all on one scale of brightness."""
    layer = files.evidence.filters
    if layer is None or not layer.weights.size:
        return None
    weights = layer.weights[:FILTERS]
    top = _ceiling(np.abs(layer.weights))
    out, inputs, height, width = layer.weights.shape
    return {
        "pictures": [signed(one, top) for one in weights],
        "name": layer.name,
        "shape": f"{out} filters of {height} × {width} pixels over "
        + ("1 channel" if inputs == 1 else f"{inputs} channels"),
        "hidden": out - len(weights),
        "colour": inputs == 3,
    }


def features(files: RunFiles) -> dict[str, Any] | None:
    """What some layers make of a few images: per layer, per image, a row of maps."""
    shown = files.evidence.features
    if shown is None or not len(shown.images) or not shown.layers:
        return None
    count = min(IMAGES, len(shown.images))
    picked = _spread(len(shown.layers), LAYERS)
    layers = []
    for layer in (shown.layers[k] for k in picked):
        maps, height, width = (layer.maps.shape[1], *(layer.size or layer.maps.shape[2:]))
        layers.append(
            {
                "name": layer.layer,
                "kind": layer.kind,
                "size": f"{maps} maps of {height} × {width}",
                "rows": [_maps(layer.maps[image]) for image in range(count)],
            }
        )
    inputs = [photo(image, 96) for image in shown.images[:count]]
    return {"layers": layers, "inputs": inputs, "maps": MAPS}


def costs(files: RunFiles) -> dict[str, Any] | None:
    """One row a layer, the totals, and each layer's share of the time (or else of the MACs)."""
    rows = files.evidence.costs
    if not rows:
        return None
    timed = all(math.isfinite(number(row.get("milliseconds"))) for row in rows)
    measure = "milliseconds" if timed else "macs"
    total = sum(_known(row.get(measure)) for row in rows)
    lines = [
        {
            **dict.fromkeys(COLUMNS), **row,
            "shape": _shape(row.get("shape")), "field": _field(row.get("field")), "share": share,
        }
        for row in rows
        for share in (_known(row.get(measure)) / (total or 1),)
    ]  # fmt: skip
    totals = {key: sum(_known(row.get(key)) for row in rows) for key in NUMBERS}
    costliest = sorted(lines, key=lambda line: -line["share"])[:COSTLIEST]
    return {
        "rows": lines,
        "costliest": costliest if len(lines) > LONG else [],
        "largest": costliest[0]["share"] or 1,
        "totals": totals,
        "timed": timed,
        "sight": any(line["field"] for line in lines),
    }


def parameters(files: RunFiles) -> float | None:
    """The number of learned numbers, from the cost table."""
    rows = files.evidence.costs
    return sum(_known(row.get("parameters")) for row in rows) if rows else None


def _maps(maps: NDArray[np.floating[Any]]) -> list[Picture]:
    """The first maps of one image and layer, on one scale: a silent map stays black."""
    top = _ceiling(maps)
    return [heat(one, top) for one in maps[:MAPS]]


def _ceiling(values: NDArray[np.floating[Any]]) -> float:
    """White: the 99.5th percentile, so that one bright pixel does not darken all others."""
    finite = values[np.isfinite(values)]
    return max(float(np.percentile(finite, 99.5)), 0.0) if finite.size else 0.0


def _spread(total: int, most: int) -> list[int]:
    """At most `most` of `total` places, evenly, the first and the last among them."""
    return sorted({round(k) for k in np.linspace(0, total - 1, min(most, total))})


def _label(files: RunFiles, label: Any) -> str:
    """A class's name; of a blend, its two largest shares."""
    if np.ndim(label) == 0:
        return files.name_of(int(label))
    order = np.argsort(-label, kind="stable")[:2]
    if label[order[0]] >= 0.95:  # the rest cannot be seen in the picture
        return files.name_of(int(order[0]))
    return " + ".join(f"{percent(label[k], 0)} {files.name_of(int(k))}" for k in order)


def _known(value: Any) -> float:
    found = number(value)
    return found if math.isfinite(found) else 0.0


def _shape(shape: Any) -> str:
    """(1, 6, 24, 24) -> "6 × 24 × 24": the costs are those of one image."""
    if isinstance(shape, list | tuple):
        return " × ".join(str(side) for side in shape[1:])
    return str(shape or "")


def _field(field: Any) -> str:
    """The pixels that one number of the layer sees: "14 × 14"; "" where that is not known."""
    if not isinstance(field, dict):
        return ""
    size = field.get("size")
    return "all" if size is None else " × ".join(str(side) for side in size)
