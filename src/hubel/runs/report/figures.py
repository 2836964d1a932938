"""The charts, as inline SVG that takes its colours and fonts from the page's style sheet.

Matplotlib draws with stand-in colours; each is then exchanged for a CSS variable, so one drawing
reads in the light and in the dark scheme, on screen and on paper.
"""

from __future__ import annotations

import html
import io
import re
import threading
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from hubel.runs.report.history import Column, History
from hubel.runs.report.measures import wilson
from hubel.runs.report.words import short

INK, MUTED, LINE = "#010101", "#020202", "#030303"
TRAIN, VAL, GOOD, BAD = "#040404", "#050505", "#060606", "#070707"
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    TRAIN: "var(--train)",
    VAL: "var(--val)",
    GOOD: "var(--good)",
    BAD: "var(--bad)",
}
WIDTH = 4.8  # inches at 100 px: drawn close to the size it is shown at, so that text stays text
SPAN = 10  # percentage points of accuracy shown at least
DOTS = 200  # points that step by step curves are averaged to

# Matplotlib takes the SVG options from its one global table; one drawing at a time may set them.
_ONE_AT_A_TIME = threading.Lock()
_OPTIONS: Any = {"svg.fonttype": "none", "svg.hashsalt": "hubel"}


def loss_curve(history: History, best: int | None) -> Markup:
    """Loss by epoch: training (with its steps, faint) against validation."""
    figure, axes = _panel(2.9)
    if len(history.steps) > 1:
        x, y = _averaged(history.step_at, history.step_loss)
        axes.plot(x, y, color=TRAIN, alpha=0.35, linewidth=1)
    _pair(axes, history.epoch, history.train_loss, history.val_loss)
    _mark_best(axes, history.epoch, history.val_loss, best)
    _limit_loss(axes, history)
    _epochs(axes, history)
    return _svg(figure, "loss", _told("Loss", history.train_loss, history.val_loss, "{:.3g}"))


def miou_curve(history: History, best: int | None) -> Markup:
    """Mean IoU on the validation part by epoch, in percent."""
    figure, axes = _panel(2.9)
    val = 100 * history.val_miou
    _pair(axes, history.epoch, np.full_like(val, np.nan), val)
    _mark_best(axes, history.epoch, val, best)
    _percents(axes)
    _epochs(axes, history)
    nothing = np.empty(0)
    return _svg(figure, "miou", _told("Mean IoU in percent", nothing, val, "{:.1f}"))


def accuracy_curve(history: History, best: int | None) -> Markup:
    """Accuracy by epoch, in percent: training against validation."""
    figure, axes = _panel(2.9)
    train, val = 100 * history.train_accuracy, 100 * history.val_accuracy
    _pair(axes, history.epoch, train, val)
    _mark_best(axes, history.epoch, val, best)
    _percents(axes)
    _epochs(axes, history)
    return _svg(figure, "accuracy", _told("Accuracy in percent", train, val, "{:.1f}"))


def rate_strip(history: History) -> Markup | None:
    """The learning rate over the training, as a thin strip. None where it was not logged."""
    x, y = history.step_at, history.step_lr
    if np.isfinite(y).sum() < 2:
        x, y = history.epoch, history.lr
    if np.isfinite(y).sum() < 2:
        return None
    known = y[np.isfinite(y)]
    highest = float(known.max())
    told = (
        f"Learning rate: starts at {known[0]:.3g}, highest {highest:.3g}, ends at {known[-1]:.3g}"
    )
    x, y = _averaged(x, y)
    figure, axes = _panel(1.15)
    axes.fill_between(x, y, color=MUTED, alpha=0.18, linewidth=0)
    axes.plot(x, y, color=MUTED, linewidth=1.5)
    axes.set_ylim(0, 1.12 * highest or 1.0)
    axes.set_yticks([0, highest], labels=["0", f"{highest:.3g}"])
    _epochs(axes, history)
    return _svg(figure, "rate", told)


def reliability(table: NDArray[np.float64], unit: str = "image") -> Markup:
    """Accuracy against confidence, bin by bin; below it how many answers each bin counts.

    Images get 95 % whiskers; pixels are not independent of each other, and get none.
    """
    edges = np.linspace(0, 1, len(table) + 1)
    middle, width = (edges[:-1] + edges[1:]) / 2, 0.86 / len(table)
    some = table[:, 0] > 0
    counts = table[some, 0]
    right = table[some, 2] / counts
    figure = _figure(4.6)
    top, low = figure.subplots(2, 1, sharex=True, height_ratios=(3.6, 1))
    for axes in (top, low):
        _quiet(axes)
    top.plot([0, 1], [0, 1], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
    top.bar(middle[some], right, width, color=TRAIN, alpha=0.75, linewidth=0)
    if unit == "image":
        spans = np.array([wilson(r * n, n) for r, n in zip(right, counts, strict=True)])
        reach = np.abs(spans.T - right)
        top.errorbar(middle[some], right, reach, fmt="none", ecolor=INK, elinewidth=1.1)
    else:
        low.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    top.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="how often it is right")
    low.bar(middle[some], counts, width, color=MUTED, alpha=0.55, linewidth=0)
    low.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    low.set(xlabel="how sure the model says it is", ylabel=f"{unit}s")
    figure.align_ylabels([top, low])
    for axis in (top.xaxis, top.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    bins = ", ".join(
        f"{100 * a:.0f}–{100 * b:.0f} %: {100 * share:.0f} % of {n:.0f}"
        for a, b, share, n in zip(edges[:-1][some], edges[1:][some], right, counts, strict=True)
    )
    return _svg(figure, "reliability", f"Share right in each range of confidence. {bins}")


def _panel(height: float) -> tuple[Figure, Axes]:
    figure = _figure(height)
    axes = figure.subplots()
    _quiet(axes)
    return figure, axes


def _figure(height: float) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02)
    figure = Figure(figsize=(WIDTH, height), dpi=100, layout=layout)
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    return figure


def _quiet(axes: Axes) -> None:
    """Axes without a box: a faint grid, small muted numbers, the data in front."""
    axes.patch.set_alpha(0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=9, length=0, pad=5)
    axes.xaxis.label.set(color=MUTED, fontsize=9)
    axes.yaxis.label.set(color=MUTED, fontsize=9)


def _pair(axes: Axes, x: Column, train: Column, val: Column) -> None:
    """Training solid, validation dashed: told apart without colour too."""
    dots, size = ("o" if len(x) <= 30 else None), (3.2 if len(x) > 3 else 6)
    look: dict[str, Any] = {
        "linewidth": 2,
        "marker": dots,
        "markersize": size,
        "markeredgewidth": 0,
    }
    if np.isfinite(train).any():
        axes.plot(x, train, color=TRAIN, **look)
    if np.isfinite(val).any():
        axes.plot(x, val, color=VAL, linestyle=(0, (5, 1.8)), **look)


def _mark_best(axes: Axes, epoch: Column, values: Column, best: int | None) -> None:
    """A ring and a dotted line at the epoch whose weights were kept."""
    if best is None:
        return
    axes.axvline(epoch[best], color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
    if np.isfinite(values[best]):
        ring: dict[str, Any] = {"markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.6}
        axes.plot(epoch[best], values[best], marker="o", color=VAL, **ring)


def _limit_loss(axes: Axes, history: History) -> None:
    """From zero to just above the epochs' losses: a spike of one step may leave the picture."""
    every = np.concatenate([history.train_loss, history.val_loss])
    some = every[np.isfinite(every)]
    if not len(some):
        some = history.step_loss[np.isfinite(history.step_loss)]
    if len(some) and some.max() > 0:
        axes.set_ylim(0, 1.15 * float(some.max()))


def _percents(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    low, high = axes.get_ylim()
    high = min(101.0, high)
    axes.set_ylim(max(0.0, min(low, high - SPAN)), high)  # a flat curve shall look flat


def _epochs(axes: Axes, history: History) -> None:
    last = history.epoch[-1] if len(history) else 0.0
    if len(history.step_at):
        last = max(last, history.step_at[-1])
    axes.set_xlim(0, (float(last) or 1.0) * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("epoch" if len(history) else "step")


def _averaged(x: Column, y: Column) -> tuple[Column, Column]:
    """At most DOTS points, each the mean of its stretch; stretches without numbers are dropped."""
    known = np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) <= DOTS:
        return x, y
    groups = [np.arange(len(x))[k] for k in np.array_split(np.arange(len(x)), DOTS)]
    return np.array([x[g].mean() for g in groups]), np.array([y[g].mean() for g in groups])


def _told(what: str, train: Column, val: Column, form: str) -> str:
    """The chart in a sentence, for those who hear the page."""
    parts = []
    for name, values in (("training", train), ("validation", val)):
        known = values[np.isfinite(values)]
        if len(known):
            first, last = form.format(known[0]), form.format(known[-1])
            parts.append(f"{name} from {first} to {last}")
    return f"{what} by epoch: {'; '.join(parts) or 'no numbers'}"


def _svg(figure: Figure, name: str, told: str) -> Markup:
    """The figure as one <svg> element; `name` keeps its ids apart from the other figures'."""
    page = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with _ONE_AT_A_TIME, matplotlib.rc_context(_OPTIONS):
        figure.savefig(page, format="svg", metadata=nothing, transparent=True)
    drawn = page.getvalue()
    inside = drawn[drawn.index(">", drawn.index("<svg")) + 1 :]
    box = re.search(r'viewBox="([^"]+)"', drawn)
    size = box.group(1) if box else "0 0 1 1"
    label = html.escape(told, quote=True)
    for clean in (_drop_idle_ids, _shorten, lambda text: _own_ids(text, name), _recolour):
        inside = clean(inside)
    return Markup(f'<svg role="img" aria-label="{label}" viewBox="{size}">{inside}')


def _recolour(text: str) -> str:
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, variable)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    return re.sub(r" ?font-family: [^;\"]*;?", "", text)


def _drop_idle_ids(text: str) -> str:
    """Matplotlib names every group; a page may hold each id once, so unused names go."""
    used = set(re.findall(r"(?:url\(#|href=\"#)([\w-]+)", text))
    return re.sub(
        r' id="([^"]+)"', lambda found: found.group(0) if found.group(1) in used else "", text
    )


def _own_ids(text: str, name: str) -> str:
    text = re.sub(r' id="([^"]+)"', rf' id="{name}-\1"', text)
    text = re.sub(r"url\(#([\w-]+)\)", rf"url(#{name}-\1)", text)
    return re.sub(r'(?:xlink:)?href="#([\w-]+)"', rf'href="#{name}-\1"', text)


def _shorten(text: str) -> str:
    """Comments and long decimals say nothing on a screen."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag.group()), text)
    return re.sub(r">\s+<", "><", text)
