"""The learning-rate range test as a picture: loss against rate, with the suggestion marked."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hubel.runs.files import replacing
from hubel.training.lr_range import Range


def draw_range(found: Range, path: Path) -> Path:
    """Write a PNG to `path`. Raises `RunError` where it cannot be written."""
    figure = Figure(figsize=(7, 4.2), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.plot(found.rates, found.losses, color="#2f6db5", linewidth=2)
    axes.axvline(found.suggested, color="#2c8c57", linewidth=1.5)
    axes.annotate(
        f"falls fastest: {found.suggested:g}",
        (found.suggested, max(found.losses)),
        xytext=(6, 0),
        textcoords="offset points",
        color="#2c8c57",
        va="top",
    )
    axes.axvspan(found.highest, max(found.rates), color="#b53a2f", alpha=0.08, linewidth=0)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss (smoothed)")
    axes.set_title("Loss while the learning rate grows; shaded: too high", fontsize=11)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure)
    with replacing(path) as draft:
        figure.savefig(draft, format="png")
    return path
