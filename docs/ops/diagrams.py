"""Diagrams: the computation graph, matrix shapes, axes of the norms, cells that move."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from drawing import (
    BLUE,
    GREEN,
    LIGHT,
    ORANGE,
    PINK,
    RED,
    SKY,
    arrow,
    bare,
    cells,
    numbers,
    panels,
    save,
    written,
)  # fmt: skip
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from hubel.engine.ops.base import OPS


def graph(path: Path) -> None:
    """f = (x + y) z: values above the lines, gradients below."""
    figure, ((axes,),) = panels(1, 1, (7, 3))
    x, y, z = (torch.tensor(v, dtype=torch.float64) for v in (-2, 5, -4))
    q, add = OPS["add"].forward(x, y)
    f, multiply = OPS["multiply"].forward(q, z)
    dq, dz = OPS["multiply"].backward(torch.ones_like(f), multiply)
    dx, dy = OPS["add"].backward(dq, add)
    nodes = {"+": (3, 1.5), "×": (6, 0.8)}
    lines = (
        ("x", x, dx, (0, 2.4), (3, 1.5)), ("y", y, dy, (0, 0.9), (3, 1.5)),
        ("z", z, dz, (0, 0), (6, 0.8)), ("q", q, dq, (3, 1.5), (6, 0.8)),
        ("f", f, torch.ones(()), (6, 0.8), (8.6, 0.8)),
    )  # fmt: skip
    for name, value, gradient, start, end in lines:
        _line(axes, name, float(value), float(gradient), np.array(start), np.array(end))
    for sign, at in nodes.items():
        axes.add_patch(
            Circle(at, 0.3, facecolor="white", edgecolor="black", linewidth=1.5, zorder=3)
        )
        axes.text(*at, sign, ha="center", va="center", fontsize=15, zorder=4)
    axes.set(xlim=(-0.4, 9.2), ylim=(-0.5, 2.8), aspect="equal")
    bare(axes)
    axes.text(5.6, 2.45, "value, forward", color=GREEN, fontsize=11)
    axes.text(5.6, 2.1, "gradient, backward", color=RED, fontsize=11)
    save(figure, path)


def _line(axes: Axes, name: str, value: float, gradient: float, start, end) -> None:
    way = (end - start) / np.linalg.norm(end - start)
    last = end - (0.32 * way if name != "f" else 0)
    first = start + (0.32 * way if name in "qf" else 0)
    axes.annotate("", last, first, arrowprops={"arrowstyle": "-|>", "color": "black"})
    middle = first + (last - first) * 0.45
    up = np.array([-way[1], way[0]]) * 0.07
    turn = float(np.degrees(np.arctan2(way[1], way[0])))
    style = {"ha": "center", "rotation": turn, "rotation_mode": "anchor", "fontsize": 11}
    axes.text(*(middle + up), f"{name} = {written(value)}", color=GREEN, va="bottom", **style)
    words = f"d{name} = {written(gradient)}"
    axes.text(*(middle - up), words, color=RED, va="top", **style)


def products(path: Path) -> None:
    """The three products of a fully connected layer, as blocks."""
    figure, ((axes,),) = panels(1, 1, (10, 1.8))
    n, i, o = 1.0, 1.7, 1.2
    rows = (
        ("y", (n, o), "x", (n, i), "w^T", (i, o), ("N", "O"), ("N", "I"), ("I", "O")),
        ("dx", (n, i), "dy", (n, o), "w", (o, i), ("N", "I"), ("N", "O"), ("O", "I")),
        ("dw", (o, i), "dy^T", (o, n), "x", (n, i), ("O", "I"), ("O", "N"), ("N", "I")),
    )  # fmt: skip
    colours = {"y": BLUE, "x": SKY, "w^T": ORANGE, "w": ORANGE, "dx": GREEN, "dy": PINK}
    colours |= {"dw": RED, "dy^T": PINK}
    left = 0.0
    for first, a, second, b, third, c, *sides in rows:
        for name, size, side, sign in zip(
            (first, second, third), (a, b, c), sides, ("=", " ", ""), strict=True
        ):
            _block(axes, left, name, size, side, colours[name])
            left += size[1] + 0.15
            if sign:
                axes.text(left + 0.1, 0, sign, fontsize=16, ha="center", va="center")
                left += 0.6 if sign == "=" else 0.3
        left += 0.8
    axes.set(xlim=(-0.5, left - 0.6), ylim=(-1.15, 1.2), aspect="equal")
    bare(axes)
    save(figure, path)


def _block(axes: Axes, left: float, name: str, size, side, colour: str) -> None:
    h, w = size
    axes.add_patch(Rectangle((left, -h / 2), w, h, facecolor=colour, alpha=0.45))
    axes.text(left + w / 2, 0, name, ha="center", va="center", fontsize=13)
    axes.text(left + w / 2, h / 2 + 0.06, side[1], ha="center", fontsize=9, color="#555555")
    axes.text(left - 0.06, 0, side[0], ha="right", va="center", fontsize=9, color="#555555")


def norm_axes(path: Path) -> None:
    """Which numbers share one mean and variance, in a block of N x C x places."""
    figure = Figure(figsize=(10, 2.9), dpi=100, layout="constrained", facecolor="white")
    n, c, hw = 3, 4, 4
    sets = {
        "batch norm: N and places": (slice(None), slice(0, 1), slice(None)),
        "layer norm: C and places": (slice(0, 1), slice(None), slice(None)),
        "group norm, 2 groups": (slice(0, 1), slice(0, 2), slice(None)),
        "instance norm: places": (slice(0, 1), slice(0, 1), slice(None)),
    }
    for k, (title, chosen) in enumerate(sets.items()):
        axes = figure.add_subplot(1, 4, k + 1, projection="3d")
        colours = np.full((c, n, hw), LIGHT, dtype=object)
        picked = np.zeros((n, c, hw), dtype=bool)
        picked[chosen] = True
        colours[picked.transpose(1, 0, 2)] = SKY
        axes.voxels(
            np.ones((c, n, hw), bool), facecolors=colours, edgecolor="#777777", linewidth=0.5
        )
        axes.set_title(title, fontsize=10)
        axes.set(xticks=[], yticks=[], zticks=[])
        axes.set_box_aspect((c, n, hw), zoom=0.85)
        axes.set_xlabel("C", labelpad=-14)
        axes.set_ylabel("N", labelpad=-14)
        axes.set_zlabel("H W", labelpad=-8)
        axes.view_init(elev=22, azim=-55)
    save(figure, path)


def broadcasting(path: Path) -> None:
    """A column plus a row, and how the gradient is summed back."""
    figure, grid = panels(1, 6, (11, 1.9))
    x, y = torch.tensor([[1.0], [2], [3]]).double(), torch.tensor([[10.0, 20, 30, 40]]).double()
    z, saved = OPS["add"].forward(x, y)
    dz = torch.tensor([[1.0, 0, 2, 1], [0, 1, 1, 0], [1, 1, 0, 3]]).double()
    dx, dy = OPS["add"].backward(dz, saved)
    assert dx is not None
    assert dy is not None
    column, row = [(i, 0) for i in range(3)], [(0, j) for j in range(4)]
    shown = (
        (x, "x (3, 1)", {ORANGE: column}), (y, "y (1, 4)", {SKY: row}), (z, "z = x + y (3, 4)", {}),
        (dz, "dz (3, 4)", {}), (dx, "dx: row sums", {ORANGE: column}),
        (dy, "dy: column sums", {SKY: row}),
    )  # fmt: skip
    for axes, (values, title, marks) in zip(grid[0], shown, strict=True):
        cells(axes, values, marks=marks)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set(xlim=(-0.6, 3.6), ylim=(2.6, -0.6))
    save(figure, path)


def shapes(path: Path) -> None:
    """One small tensor, moved in eight ways."""
    figure, grid = panels(2, 5, (11, 4))
    x = numbers(2, 3)
    wide = {"sides": (2, 2)}
    shown = [
        ("x", x),
        ("reshape to (3, 2)", OPS["reshape"].forward(x, shape=(3, 2))[0]),
        ("permute (1, 0)", OPS["permute"].forward(x, axes=(1, 0))[0]),
        ("flip axis 1", OPS["flip"].forward(x, axes=(1,))[0]),
        ("roll by 1", OPS["roll"].forward(x, shifts=(1,), axes=(1,))[0]),
        ("repeat (2, 1)", OPS["repeat"].forward(x, times=(2, 1))[0]),
        ("pad constant", OPS["pad"].forward(x, **wide, mode="constant")[0]),
        ("pad reflect", OPS["pad"].forward(x, **wide, mode="reflect")[0]),
        ("pad replicate", OPS["pad"].forward(x, **wide, mode="replicate")[0]),
        ("pad circular", OPS["pad"].forward(x, **wide, mode="circular")[0]),
    ]
    for axes, (title, values) in zip(grid.flat, shown, strict=True):
        kept = [(i, j) for i in range(2) for j in range(2, 5)]
        cells(axes, values, title, marks={SKY: kept} if "pad" in title else None)
    save(figure, path)


def picking(path: Path) -> None:
    """Rows read by number; a row that was read twice gets two gradients."""
    figure, grid = panels(1, 4, (9, 2.3))
    w = torch.tensor([[1.0, 1], [2, 0], [0, 3], [4, 2]]).double()
    index = torch.tensor([2, 0, 2])
    y, saved = OPS["embedding"].forward(w, index)
    dy = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]).double()
    dw = OPS["embedding"].backward(dy, saved)[0]
    assert dw is not None
    twice, once = [(2, 0), (2, 1)], [(0, 0), (0, 1)]
    read = {ORANGE: [(0, 0), (0, 1), (2, 0), (2, 1)], SKY: [(1, 0), (1, 1)]}
    cells(grid[0][0], w, "w", marks={ORANGE: twice, SKY: once})
    cells(grid[0][1], y, "y = w[2, 0, 2]", marks=read)
    cells(grid[0][2], dy, "dy", marks=read)
    cells(grid[0][3], dw, "dw: row 2 gets both", marks={ORANGE: twice, SKY: once})
    save(figure, path)


def unrolled(path: Path) -> None:
    """A recurrent layer as a chain of equal cells; the gradient comes back the same way."""
    figure, ((axes,),) = panels(1, 1, (8, 2.9))
    for t in range(4):
        left = 2.2 * t
        axes.add_patch(Rectangle((left, 0), 1, 0.9, facecolor=SKY, alpha=0.5, edgecolor="black"))
        axes.text(left + 0.5, 0.45, "W, U", ha="center", va="center", fontsize=11)
        arrow(axes, (left + 0.4, -0.75), (left + 0.4, 0), "black")
        arrow(axes, (left + 0.4, 0.9), (left + 0.4, 1.6), "black")
        arrow(axes, (left + 0.65, 1.6), (left + 0.65, 0.9), RED)
        arrow(axes, (left + 0.65, 0), (left + 0.65, -0.75), RED)
        axes.text(left + 0.3, -0.5, f"x{t}", ha="right", fontsize=11)
        axes.text(left + 0.3, 1.2, f"h{t}", ha="right", fontsize=11)
        axes.text(left + 0.75, 1.2, f"dy{t}", color=RED, fontsize=11)
        axes.text(left + 0.75, -0.5, f"dx{t}", color=RED, fontsize=11)
        if t < 3:
            arrow(axes, (left + 1, 0.6), (left + 2.2, 0.6), "black")
            arrow(axes, (left + 2.2, 0.25), (left + 1, 0.25), RED)
            axes.text(left + 1.6, 0.68, f"h{t}", ha="center", fontsize=11)
            axes.text(left + 1.6, 0.17, f"dh{t}", ha="center", va="top", color=RED, fontsize=11)
    axes.set(xlim=(-0.4, 8.1), ylim=(-0.95, 1.7))
    bare(axes)
    save(figure, path)


PICTURES = {
    "graph.png": graph,
    "products.png": products,
    "norm-axes.png": norm_axes,
    "broadcasting.png": broadcasting,
    "shapes.png": shapes,
    "picking.png": picking,
    "unrolled.png": unrolled,
}
