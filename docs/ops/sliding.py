"""Pictures of everything that slides or samples: convolution, pooling, regions, resampling."""

from __future__ import annotations

from pathlib import Path

import torch
from drawing import (
    BLUE,
    GREEN,
    GREY,
    LIGHT,
    ORANGE,
    RED,
    SKY,
    bare,
    cells,
    frame,
    heat,
    numbers,
    panels,
    save,
)  # fmt: skip
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle
from torch import Tensor

from hubel.engine.ops.base import OPS
from hubel.engine.ops.columns import Geometry, columns
from hubel.engine.ops.region import _bins

ONE = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
IMAGE = torch.tensor([
    [1, 0, 2, 1, 0],
    [0, 3, 1, 0, 1],
    [2, 1, 0, 2, 1],
    [1, 0, 1, 3, 0],
    [0, 2, 1, 0, 1],
], dtype=torch.float64)[None, None]  # fmt: skip
EDGE = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float64)[None, None]
POOLED = torch.tensor([[1, 3, 2, 1], [4, 2, 0, 5], [2, 1, 7, 3], [0, 6, 2, 4]]).double()[None, None]
NINE = (
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
    "#999999",
    "#333333",
)


def sliding(path: Path) -> None:
    """Three places of the window, and the outputs that they give."""
    figure, grid = panels(1, 5, (11, 2.5))
    y = OPS["conv"].forward(IMAGE, EDGE, None, **ONE)[0][0, 0]
    places = {ORANGE: (0, 0), GREEN: (0, 1), BLUE: (2, 2)}
    for axes, (colour, (i, j)) in zip(grid[0], places.items(), strict=False):
        under = [(i + a, j + b) for a in range(3) for b in range(3)]
        cells(axes, IMAGE[0, 0], f"window at ({i}, {j})", marks={colour: under})
        frame(axes, i, j, 3, 3, colour)
    cells(grid[0][3], EDGE[0, 0], "kernel")
    cells(grid[0][4], y, "output", marks={c: [p] for c, p in places.items()})
    save(figure, path)


def toeplitz(path: Path) -> None:
    """The sparse matrix of a 3x3 kernel on a 5x5 image, a colour per weight."""
    figure, ((kernel, left, right),) = panels(1, 3, (10, 3), widths=(1, 3, 3))
    w = numbers(1, 1, 3, 3)
    shades = ListedColormap((LIGHT, *NINE))
    kernel.imshow(w[0, 0].numpy(), cmap=shades, vmin=-0.5, vmax=9.5, interpolation="nearest")
    bare(kernel, "kernel")
    for axes, size, title in (
        (left, 5, "3x3 kernel on 5x5: 9 outputs, 25 inputs"),
        (right, 8, "the same on 8x8: 36 outputs, 64 inputs"),
    ):
        matrix = (
            OPS["conv"].matrix((torch.zeros(1, 1, size, size).double(), w), ONE, "x").to_dense()
        )
        axes.imshow(matrix.numpy(), cmap=shades, vmin=-0.5, vmax=9.5, interpolation="nearest")
        bare(axes, title)
        axes.set_xlabel("input, row by row")
        axes.set_ylabel("output, row by row")
    save(figure, path)


def im2col(path: Path) -> None:
    """Windows of a 3x4 image as columns; col2im counts how often each place was read."""
    figure, grid = panels(1, 3, (9, 2.8))
    x = numbers(1, 1, 3, 4)
    geometry = Geometry((2, 2), (1, 1), (0, 0), (1, 1))
    cols = columns(x, geometry, geometry.out((3, 4))).reshape(4, 6)
    cells(grid[0][0], x[0, 0], "input", marks={ORANGE: [(0, 1), (0, 2), (1, 1), (1, 2)]})
    frame(grid[0][0], 0, 1, 2, 2, ORANGE)
    cells(
        grid[0][1], cols, "im2col: a column per window", marks={ORANGE: [(r, 1) for r in range(4)]}
    )
    frame(grid[0][1], 0, 1, 4, 1, ORANGE)
    ones = torch.ones(1, 4, 6, dtype=torch.float64)
    counts = OPS["col2im"].forward(ones, geometry=geometry, size=(3, 4))[0][0, 0]
    cells(grid[0][2], counts, "col2im of ones: how often each was read")
    save(figure, path)


def transposed(path: Path) -> None:
    """Each input spreads the kernel; overlaps add up."""
    figure, grid = panels(1, 5, (11, 2.5))
    x = torch.tensor([[1.0, 2], [3, 1]], dtype=torch.float64)
    w = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]], dtype=torch.float64)[None, None]
    options = {**ONE, "stride": (2, 2), "output_padding": (0, 0)}
    forward = OPS["conv_transposed"].forward
    cells(grid[0][0], x, "input", marks={ORANGE: [(0, 0)], GREEN: [(0, 1)]})
    cells(grid[0][1], w[0, 0], "kernel, stride 2")
    for axes, (i, j), colour in ((grid[0][2], (0, 0), ORANGE), (grid[0][3], (0, 1), GREEN)):
        alone = torch.zeros_like(x)
        alone[i, j] = x[i, j]
        spread = forward(alone[None, None], w, None, **options)[0][0, 0]
        under = [(2 * i + a, 2 * j + b) for a in range(3) for b in range(3)]
        cells(axes, spread, f"what ({i}, {j}) spreads", marks={colour: under})
    both = [(a, 2) for a in range(5)] + [(2, a) for a in range(5)]
    whole = forward(x[None, None], w, None, **options)[0][0, 0]
    cells(grid[0][4], whole, "output: overlaps (blue) add up", marks={SKY: both})
    save(figure, path)


def max_pooling(path: Path) -> None:
    """Max pooling forward, its memory, its backward, and the two ways up again."""
    figure, grid = panels(1, 5, (11, 2.5))
    options = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1)}
    (y, places), saved = OPS["max_pool"].forward(POOLED, **options, indices=True)
    winners = [divmod(int(p), 4) for p in places.flatten()]
    up = torch.tensor([[0.1, 0.2], [0.3, 0.4]]).double()[None, None]
    dx = OPS["max_pool"].backward(up, saved)[0]
    cells(grid[0][0], POOLED[0, 0], "input x", marks={ORANGE: winners})
    for corner in ((0, 0), (0, 2), (2, 0), (2, 2)):
        frame(grid[0][0], *corner, 2, 2, GREY)
    cells(grid[0][1], y[0, 0], "output y", marks={ORANGE: [(a, b) for a in (0, 1) for b in (0, 1)]})
    cells(grid[0][2], places[0, 0], "remembered places")
    cells(grid[0][3], up[0, 0], "gradient dy")
    assert dx is not None
    cells(grid[0][4], dx[0, 0], "gradient dx", marks={ORANGE: winners})
    save(figure, path)


def poolings(path: Path) -> None:
    """One input, four poolings, two unpoolings."""
    figure, grid = panels(2, 4, (9, 4.6))
    two = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}
    most, places = OPS["max_pool"].forward(POOLED, **two, dilation=(1, 1), indices=True)[0]
    nearest = OPS["upsample"].forward(most, size=(4, 4), kind="nearest")[0]
    shown: list[tuple[str, Tensor]] = [
        ("input", POOLED),
        ("max", most),
        ("average", OPS["average_pool"].forward(POOLED, **two)[0]),
        ("L2: root of the sum of squares", OPS["power_pool"].forward(POOLED, **two, power=2.0)[0]),
        ("adaptive average to 3x3", OPS["adaptive_average_pool"].forward(POOLED, size=(3, 3))[0]),
        ("max unpooling of 'max'", OPS["max_unpool"].forward(most, places, size=(4, 4))[0]),
        ("bed of nails of 'max'", OPS["bed_of_nails"].forward(most, stride=(2, 2))[0]),
        ("nearest neighbour of 'max'", nearest),
    ]  # fmt: skip
    for axes, (title, values) in zip(grid.flat, shown, strict=True):
        plane = values[0, 0]
        full = [(i, j) for i in range(len(plane)) for j in range(len(plane)) if plane[i, j]]
        up = "un" in title or "nails" in title or "nearest" in title
        cells(axes, plane, title, marks={SKY: full} if up else None)
    save(figure, path)


def upsampling(path: Path) -> None:
    """Four kinds on one small picture, and the row that each mixes."""
    figure, grid = panels(2, 5, (10, 3.9))
    x = torch.tensor([[0, 1, 0, 0], [1, 1, 0, 1], [0, 1, 1, 0], [0, 0, 1, 1]]).double()[None, None]
    line = torch.tensor([0.0, 1, 0.2, 0.8, 0.5]).double()[None, None]
    kinds = (("nearest", False), ("linear", False), ("linear", True), ("cubic", False))
    grid[0][0].imshow(x[0, 0], cmap="gray", vmin=-0.2, vmax=1.2, interpolation="nearest")
    bare(grid[0][0], "input 4x4")
    _line(grid[1][0], line, line, "a row of 5")
    for (kind, aligned), upper, lower in zip(kinds, grid[0][1:], grid[1][1:], strict=True):
        y = OPS["upsample"].forward(x, size=(32, 32), kind=kind, corners=aligned)[0]
        upper.imshow(y[0, 0], cmap="gray", vmin=-0.2, vmax=1.2, interpolation="nearest")
        bare(upper, kind + (", corners" if aligned else ""))
        row = OPS["upsample"].forward(line, size=(60,), kind=kind, corners=aligned)[0]
        _line(lower, line, row, "", aligned)
    save(figure, path)


def _line(axes, given: Tensor, row: Tensor, title: str, aligned: bool = False) -> None:
    n, o = given.size(-1), row.size(-1)
    at = torch.linspace(0, n - 1, o) if aligned else (torch.arange(o) + 0.5) * n / o - 0.5
    axes.axhline(0, color="#dddddd", linewidth=1)
    if o > n:
        axes.plot(at, row.flatten(), color=BLUE, linewidth=2)
    axes.plot(range(n), given.flatten(), "o", color=ORANGE, markersize=6)
    axes.set_ylim(-0.25, 1.25)
    bare(axes, title)


def warping(path: Path) -> None:
    """An affine grid laid over a picture, and what is read there."""
    figure, grid = panels(1, 3, (9, 3.1))
    i = torch.arange(24, dtype=torch.float64)
    picture = ((i[:, None] // 4 + i // 4) % 2 * 0.5 + 0.5 * (i[None] > i[:, None]))[None, None]
    angle = torch.tensor(0.5, dtype=torch.float64)
    cos, sin = angle.cos() * 0.8, angle.sin() * 0.8
    theta = torch.stack([cos, -sin, 0 * cos, sin, cos, 0 * cos]).view(1, 2, 3)
    net = OPS["affine_grid"].forward(theta, size=(9, 9))[0]
    places = (net[0] + 1) * 12 - 0.5
    y, saved = OPS["grid_sample"].forward(
        picture, OPS["affine_grid"].forward(theta, size=(24, 24))[0]
    )
    dx = OPS["grid_sample"].backward(torch.ones_like(y), saved)[0]
    grid[0][0].imshow(picture[0, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    grid[0][0].plot(
        places[..., 0].flatten(), places[..., 1].flatten(), ".", color=ORANGE, markersize=6
    )
    bare(grid[0][0], "input, and where it is read")
    grid[0][1].imshow(y[0, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    bare(grid[0][1], "output: turned by 0.5, scaled by 0.8")
    assert dx is not None
    heat(grid[0][2], dx[0, 0], "dx of the sum: how much each was read", signed=False)
    save(figure, path)


def regions(path: Path) -> None:
    """One box, two ways to pool it to 2x2."""
    figure, ((left, right),) = panels(1, 2, (8, 3.7))
    chance = torch.Generator().manual_seed(3)
    x = torch.randint(0, 10, (1, 1, 7, 9), generator=chance).double()
    box = torch.tensor([[0, 1.6, 0.7, 6.9, 5.1]], dtype=torch.float64)
    rows, cols = _bins(box[0].tolist(), (2, 2), 1.0, (7, 9))
    y, saved = OPS["roi_max_pool"].forward(x, box, size=(2, 2))
    winners = [divmod(int(p), 9) for p in saved[0].flatten()]
    given = [round(v) for v in y.flatten().tolist()]
    cells(left, x[0, 0], f"RoI max pooling: {given}", marks={ORANGE: winners})
    for (top, bottom), colour, inset in zip(rows, (RED, GREEN), (0.02, 0.1), strict=True):
        for first, last in cols:
            frame(left, top, first, bottom - top, last - first, colour, inset)
    y = OPS["roi_align"].forward(x, box, size=(2, 2), samples=2)[0]
    shown = ", ".join(f"{v:.1f}" for v in y.flatten().tolist())
    cells(right, x[0, 0], f"RoIAlign: [{shown}]")
    x1, y1, x2, y2 = (box[0, 1:] - 0.5).tolist()
    for i in range(4):
        for j in range(4):
            at = (x1 + (j + 0.5) * (x2 - x1) / 4, y1 + (i + 0.5) * (y2 - y1) / 4)
            right.plot(*at, "o", color=BLUE, markersize=5)
    for axes in (left, right):
        outline = {"fill": False, "edgecolor": BLUE, "linestyle": "--", "linewidth": 2}
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, **outline))
    right.plot([(x1 + x2) / 2] * 2, [y1, y2], color=BLUE, linestyle="--", linewidth=1)
    right.plot([x1, x2], [(y1 + y2) / 2] * 2, color=BLUE, linestyle="--", linewidth=1)
    save(figure, path)


PICTURES = {
    "sliding.png": sliding,
    "toeplitz.png": toeplitz,
    "im2col.png": im2col,
    "transposed.png": transposed,
    "max-pooling.png": max_pooling,
    "poolings.png": poolings,
    "upsampling.png": upsampling,
    "warping.png": warping,
    "regions.png": regions,
}
