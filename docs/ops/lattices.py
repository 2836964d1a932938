"""A picture of the permutohedral lattice: its places, its kernel, and an edge that it keeps."""

from __future__ import annotations

from pathlib import Path

import torch
from drawing import BLUE, GREY, ORANGE, RED, SKY, bare, panels, plain, save
from matplotlib.axes import Axes

from hubel.engine.ops.lattice import Lattice, _lifted


def lattice(path: Path) -> None:
    """Splatting, the kernel against the Gaussian, and a noisy step filtered by place and value."""
    figure, ((left, middle, right),) = panels(1, 3, (11, 3.1), widths=(1, 1.1, 1.3))
    _places(left)
    _kernel(middle)
    _step(right)
    save(figure, path)


def _places(axes: Axes) -> None:
    """The plane's triangles, and one point in its own."""
    lift = _lifted(torch.eye(2, dtype=torch.float64))
    down = lift.T / lift.square().sum(1).mean()
    steps = 1 - 3 * torch.eye(3, dtype=torch.float64)
    grid = torch.cartesian_prod(torch.arange(-4, 5), torch.arange(-4, 5)).double()
    at = (grid @ steps[:2]) @ down
    for step in steps @ down:
        for start in at:
            axes.plot(*zip(start, start + step, strict=True), color=GREY, linewidth=0.6, zorder=1)
    point = torch.tensor([[0.33, 0.27]], dtype=torch.float64)
    corners = at[torch.cdist(at, point)[:, 0].argsort()[:3]]
    system = torch.cat([corners.T, torch.ones(1, 3).double()])
    shares = torch.linalg.solve(system, torch.cat([point[0], torch.ones(1).double()]))
    axes.scatter(*at.T, s=14, color=SKY, zorder=2)
    axes.scatter(*corners.T, s=700 * shares, color=ORANGE, zorder=3)
    for corner, share in zip(corners, shares, strict=True):
        away = corner + 0.5 * (corner - point[0]) / (corner - point[0]).norm()
        axes.text(*away, f"{share:.2f}", fontsize=10, ha="center", va="center", zorder=5)
    axes.scatter(*point.T, marker="x", s=60, color=RED, linewidth=2, zorder=4)
    axes.set(xlim=(-1.6, 2.2), ylim=(-1.5, 1.9), aspect="equal")
    bare(axes, "a point splats to three corners")


def _kernel(axes: Axes) -> None:
    """Weights of one point among many, in two dimensions, by distance."""
    chance = torch.Generator().manual_seed(2)
    points = 6 * torch.rand(6000, 2, generator=chance, dtype=torch.float64) - 3
    points[0] = torch.tensor([0.33, 0.27])
    alone = torch.zeros(len(points), 1, dtype=torch.float64)
    alone[0] = 1
    weights = Lattice(points).filter(alone)[:, 0]
    apart = (points - points[0]).norm(dim=1)
    axes.scatter(apart, weights, s=1.5, color=SKY, alpha=0.5, label="lattice")
    r = torch.linspace(0, 3, 100)
    axes.plot(r, torch.exp(-r.square() / 2), color=BLUE, label="exp(-r² / 2)")
    axes.set(xlim=(0, 3))
    axes.legend(frameon=False, fontsize=9, markerscale=5)
    plain(axes, "its weights on all others, by distance r")


def _step(axes: Axes) -> None:
    """A row of values, smoothed by place alone, and by place and value."""
    chance = torch.Generator().manual_seed(0)
    place = torch.arange(120, dtype=torch.float64)
    row = (place >= 60).double() + 0.12 * torch.randn(120, generator=chance, dtype=torch.float64)
    ones = torch.ones(120, 1, dtype=torch.float64)
    axes.plot(place, row, color=GREY, linewidth=0.8, label="values")
    for points, colour, name in (
        (place[:, None] / 8, BLUE, "by place"),
        (torch.stack([place / 8, row / 0.25], 1), RED, "by place and value"),
    ):
        over = Lattice(points)
        smooth = over.filter(row[:, None]) / over.filter(ones)
        axes.plot(place, smooth[:, 0], color=colour, linewidth=2, label=name)
    axes.legend(frameon=False, fontsize=9)
    plain(axes, "a noisy step")


PICTURES = {"lattice.png": lattice}
