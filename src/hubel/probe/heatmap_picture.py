"""Class heat maps as a picture: the photo, the winners, and the likeliest classes laid over it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from hubel.errors import OptionError
from hubel.probe.heatmap import Heatmap

COLOURS = mpl.colormaps["inferno"]  # perceptually uniform
INK, MUTED = "#22272e", "#6b7480"
WINNERS = (
    "#2f6db5", "#e08a1e", "#2c8c57", "#b53a2f", "#7d5ba6", "#c9b22d", "#2ba6a6", "#d46a9f",
    "#7a5a3c",
)  # fmt: skip
OTHERS = "#8d949c"
A_ROW = 4  # maps side by side
WIDTH = 13.0  # inches
FLATTEST, TALLEST = 0.3, 1.4  # height / width of a picture's room; strips stay small in it


def draw_heatmap(
    image: NDArray[np.uint8],
    found: Heatmap,
    classes: Sequence[str],
    picked: Sequence[int],
    path: Path,
) -> Path:
    """Write a PNG to `path`: the photo, who wins where, and one map for every picked class.

    Args:
        image: uint8 (C, H', W'), C = 1 or 3: what the net was shown.
        found: its answer; its windows lie in this image.
        classes: names of all K.
        picked: numbers of those whose maps are drawn, in this order.

    Raises `OptionError` where there is nothing to draw.
    """
    if not picked or len(classes) != len(found.probabilities):
        raise OptionError(
            f"give {len(found.probabilities)} class names and one class or more to draw, "
            f"given {len(classes)} and {len(picked)}"
        )
    columns = min(A_ROW, len(picked))
    rows = -(-len(picked) // columns)
    upper, lower, figure = _sheet(image, columns, rows)
    _photo(upper[0], image)
    upper[0].set_title("what the net was shown", color=INK)
    _window(upper[0], found, 0, 0, "one window")
    (high, wide), (down, right) = found.window, found.stride
    upper[0].set_xlabel(
        f"windows of {wide}x{high} pixels, one every {right} to the right and {down} down; "
        "no window has its centre in the margin",
        color=MUTED,
        fontsize=8,
    )
    _winners(upper[1], image, found, classes)
    for axes, number in zip(lower, picked, strict=False):
        _map(axes, image, found, number, classes[number])
    for axes in lower[len(picked) :]:
        axes.set_visible(False)
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), COLOURS)
    bar = figure.colorbar(scale, ax=lower, fraction=0.03, pad=0.015, aspect=25)
    bar.set_label("probability", color=MUTED)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=MUTED, length=0)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png")
    return path


def _sheet(image: NDArray[np.uint8], columns: int, rows: int) -> tuple[Any, Any, Figure]:
    """Axes for the two upper pictures and for the maps below, in the photo's proportions."""
    shape = min(max(image.shape[1] / image.shape[2], FLATTEST), TALLEST)
    heights = [WIDTH / 2.6 * shape + 0.5, rows * (WIDTH * 0.94 / max(columns, 2) * shape + 0.5)]
    figure = Figure(figsize=(WIDTH, sum(heights)), dpi=110, layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=heights)
    upper = parts[0].subplots(1, 2)
    lower = parts[1].subplots(rows, columns, squeeze=False).ravel()
    return upper, list(lower), figure


def _photo(axes: Any, image: NDArray[np.uint8], *, pale: bool = False) -> None:
    """The photo; pale: in light grey, for colours to lie on."""
    pixels = image.transpose(1, 2, 0)
    height, width = pixels.shape[:2]
    look: dict[str, Any] = {"extent": (0, width, height, 0), "interpolation": "nearest"}
    if pale or pixels.shape[2] == 1:
        grey = pixels.mean(axis=2) / 255
        axes.imshow(0.25 + 0.75 * grey if pale else grey, cmap="gray", vmin=0, vmax=1, **look)
    else:
        axes.imshow(pixels, **look)
    axes.tick_params(colors=MUTED, labelsize=8, length=2)
    axes.spines[:].set_visible(False)


def _map(axes: Any, image: NDArray[np.uint8], found: Heatmap, number: int, name: str) -> None:
    """One class over the photo: the likelier, the less of the photo shows through."""
    _photo(axes, image, pale=True)
    scores, peak = found.probabilities[number], found.peak(number)
    left, top, right, bottom = found.extent()
    axes.imshow(
        scores,
        cmap=COLOURS,
        vmin=0,
        vmax=1,
        alpha=0.2 + 0.55 * scores,
        extent=(left, right, bottom, top),
        interpolation="bilinear",
    )
    _window(axes, found, peak.row, peak.column)
    _whole(axes, image)
    axes.set_title(f"{name}: {peak.probability:.2f}, at ({peak.x:g}, {peak.y:g})", color=INK)


def _winners(axes: Any, image: NDArray[np.uint8], found: Heatmap, classes: Sequence[str]) -> None:
    """The likeliest class of every window, the surer the stronger in colour."""
    best, sure = found.probabilities.argmax(axis=0), found.probabilities.max(axis=0)
    numbers, counts = np.unique(best, return_counts=True)
    order = [int(k) for k in numbers[np.argsort(-counts, kind="stable")]]
    named, rest = order[: len(WINNERS)], order[len(WINNERS) :]
    paint = dict(zip(named, WINNERS, strict=False)) | dict.fromkeys(rest, OTHERS)
    colours = np.ones((*best.shape, 4))
    for number, colour in paint.items():
        colours[best == number, :3] = mpl.colors.to_rgb(colour)
    colours[..., 3] = 0.1 + 0.5 * sure
    _photo(axes, image, pale=True)
    left, top, right, bottom = found.extent()
    axes.imshow(colours, extent=(left, right, bottom, top), interpolation="nearest")
    _whole(axes, image)
    axes.set_title("the likeliest class of each window, at its centre", color=INK)
    key = [Patch(color=paint[k], label=classes[k]) for k in named]
    key += [Patch(color=OTHERS, label=f"{len(rest)} others")] if rest else []
    axes.legend(
        handles=key, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, labelcolor=INK
    )


def _window(axes: Any, found: Heatmap, row: int, column: int, words: str = "") -> None:
    """The frame of a window, white on black so that it shows on any photo."""
    top, left, bottom, right = found.box(row, column)
    for colour, thickness in (("black", 3.0), ("white", 1.4)):
        axes.add_patch(
            Rectangle(
                (left, top), right - left, bottom - top,
                fill=False, edgecolor=colour, linewidth=thickness,
            )
        )  # fmt: skip
    if words:
        axes.annotate(
            words, (left, bottom), xytext=(3, -3), textcoords="offset points", va="top",
            color="white", fontsize=9, bbox={"facecolor": "black", "alpha": 0.6, "linewidth": 0},
        )  # fmt: skip


def _whole(axes: Any, image: NDArray[np.uint8]) -> None:
    """The axes show the whole photo, whatever was laid over it."""
    axes.set(xlim=(0, image.shape[2]), ylim=(image.shape[1], 0))
