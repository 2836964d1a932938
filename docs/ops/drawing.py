"""What the pictures of these pages share: panels, tables of cells, arrows, colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

# Okabe and Ito's colours, told apart by colour-blind readers too
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PINK, GREY, LIGHT = "#56B4E9", "#CC79A7", "#888888", "#F1F1F1"
Places = Iterable[tuple[int, int]]


def panels(
    rows: int, columns: int, size: tuple[float, float], widths: Sequence[float] | None = None
) -> tuple[Figure, np.ndarray]:
    """A white figure of `size` inches with (rows, columns) panels."""
    figure = Figure(figsize=size, dpi=100, layout="constrained", facecolor="white")
    return figure, figure.subplots(rows, columns, squeeze=False, width_ratios=widths)


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a small PNG: 64 colours are enough for lines and cells."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def bare(axes: Axes, title: str = "") -> None:
    """No ticks, no frame."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=10)


def plain(axes: Axes, title: str = "") -> None:
    """A panel for curves."""
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def written(value: float) -> str:
    """A number as short as it can be read."""
    return f"{round(value, 2) + 0:.2f}".rstrip("0").rstrip(".")  # + 0: no "-0"


def cells(
    axes: Axes, values: Tensor, title: str = "", *, words: Sequence[Sequence[str]] | None = None,
    marks: dict[str, Places] | None = None, size: int = 10,
) -> None:  # fmt: skip
    """A matrix (H, W) as cells with their numbers; `marks` colours places of it."""
    h, w = values.shape
    ground = np.tile(to_rgb(LIGHT), (h, w, 1))
    for colour, places in (marks or {}).items():
        for place in places:
            ground[place] = 0.45 * np.array(to_rgb(colour)) + 0.55
    axes.imshow(ground, interpolation="nearest")
    for i in range(h):
        for j in range(w):
            text = words[i][j] if words else written(float(values[i, j]))
            axes.text(j, i, text, ha="center", va="center", fontsize=size)
    for line in range(1, h):
        axes.axhline(line - 0.5, color="white", linewidth=2)
    for line in range(1, w):
        axes.axvline(line - 0.5, color="white", linewidth=2)
    bare(axes, title)


def frame(
    axes: Axes, top: int, left: int, height: int, width: int, colour: str, inset: float = 0.0
) -> None:
    """A thick frame round some cells."""
    corner = (left - 0.5 + inset, top - 0.5 + inset)
    size = (width - 2 * inset, height - 2 * inset)
    style = {"fill": False, "edgecolor": colour, "linewidth": 2.5, "zorder": 5, "clip_on": False}
    axes.add_patch(Rectangle(corner, *size, **style))


def heat(axes: Axes, values: Tensor, title: str = "", *, signed: bool = True) -> None:
    """A matrix as colours: red positive, blue negative, or white to dark."""
    top = float(values.abs().max()) or 1.0
    colours, low = ("RdBu_r", -top) if signed else ("Greys", 0.0)
    shown = values.detach().numpy()
    axes.imshow(shown, cmap=colours, vmin=low, vmax=top, interpolation="nearest")
    bare(axes, title)


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = GREY
) -> None:
    """An arrow in the panel's own numbers."""
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=style)


def numbers(*shape: int) -> Tensor:
    """1, 2, 3, ... in float64."""
    n = int(np.prod(shape))
    return torch.arange(1, n + 1, dtype=torch.float64).view(shape)
