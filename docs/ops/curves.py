"""Pictures of functions: activations, elementary functions, losses, softmax, reductions, time."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
from drawing import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    SKY,
    cells,
    panels,
    plain,
    save,
    written,
)  # fmt: skip
from matplotlib.axes import Axes
from torch import Tensor

from hubel.engine.ops import activate, elementary
from hubel.engine.ops.base import OPS
from hubel.engine.ops.softmax import jacobian, softmax

EXTRA = {"threshold": {"threshold": 0.3, "value": -1.0}, "clamp": {"min": -0.5, "max": 0.7}}
EXTRA |= {
    "clamp_min": {"min": 0.2},
    "clamp_max": {"max": 0.2},
    "leaky_relu": {"negative_slope": 0.1},
}
LIMITS = {"relu6": ((-3, 9), (-1.4, 6.6))}  # else its upper bend is out of sight


def names_in(module: object) -> list[str]:
    """The functions that a file registers with `pointwise`, in its order."""
    return re.findall(r'^pointwise\(\s*"(\w+)"', Path(module.__file__).read_text(), re.MULTILINE)


def activations(path: Path) -> None:
    """Every activation and its slope."""
    _functions(path, names_in(activate), 5, (-4, 4))


def elementary_functions(path: Path) -> None:
    """Every elementary function and its slope."""
    _functions(path, names_in(elementary), 7, (-3, 3))


def _functions(path: Path, names: list[str], columns: int, room: tuple[float, float]) -> None:
    rows = -(-len(names) // columns)
    figure, grid = panels(rows, columns, (10, 1.75 * rows + 0.4))
    for axes, name in zip(grid.flat, names, strict=False):
        _function(axes, name, room)
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    handles = grid[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False)
    save(figure, path)


def _function(axes: Axes, name: str, room: tuple[float, float]) -> None:
    room, heights = LIMITS.get(name, (room, None))
    x = torch.linspace(*room, 601, dtype=torch.float64)
    y, saved = OPS[name].forward(x, **EXTRA.get(name, {}))
    (slope,) = OPS[name].backward(torch.ones_like(y), saved)
    far = (slope.abs() > 6) | y.isnan()
    axes.plot(x, y.masked_fill(y.abs() > 6, torch.nan), color=BLUE, linewidth=2, label="f(x)")
    axes.plot(
        x, slope.masked_fill(far, torch.nan), color=RED, linewidth=1.5, linestyle="--",
        label="slope f'(x)",
    )  # fmt: skip
    plain(axes, name)
    low = min(-1.2, max(float(y[y.isfinite()].min()), -3))
    top = min(max(1.4, float(y[y.isfinite()].max())), 3.2)
    axes.set_ylim(*(heights or (low - 0.2, top)))
    axes.set_xlim(*room)


def softmax_jacobian(path: Path) -> None:
    """Scores, probabilities, and the matrix of slopes."""
    figure, grid = panels(1, 3, (9, 3))
    z = torch.tensor([2.0, 1.0, 0.5, 0.0], dtype=torch.float64)
    p = softmax(z, 0)
    for axes, values, title, colour in (
        (grid[0][0], z, "scores z", GREY), (grid[0][1], p, "probabilities p", BLUE),
    ):  # fmt: skip
        bars = axes.bar(range(4), values, color=colour)
        axes.bar_label(bars, [written(v) for v in values.tolist()], fontsize=9, padding=2)
        plain(axes, title)
        axes.set_xticks(range(4))
        axes.margins(y=0.15)
    table = jacobian(p)
    good = [(i, i) for i in range(4)]
    rest = [(i, j) for i in range(4) for j in range(4) if i != j]
    cells(grid[0][2], table, "dp_i / dz_j: row i, column j", marks={ORANGE: good, SKY: rest})
    save(figure, path)


def losses(path: Path) -> None:
    """Regression losses by error, classification losses by margin, with their slopes."""
    figure, grid = panels(2, 2, (9, 5))
    e = torch.linspace(-3, 3, 401, dtype=torch.float64)
    zero, one = torch.zeros_like(e), torch.ones_like(e)
    regression = {
        "l2_loss": (BLUE, {}), "l1_loss": (RED, {}), "huber_loss": (GREEN, {"delta": 1.0}),
        "smooth_l1_loss": (ORANGE, {"beta": 0.5}),
    }  # fmt: skip
    for name, (colour, options) in regression.items():
        values, saved = OPS[name].forward(e, zero, reduction="none", **options)
        slope = OPS[name].backward(one, saved)[0]
        words = "".join(f", {k} = {v:g}" for k, v in options.items())
        grid[0][0].plot(e, values, color=colour, linewidth=2, label=name + words)
        grid[0][1].plot(e, slope, color=colour, linewidth=2)
    grid[0][0].set_ylim(0, 4)
    for name, colour in (("cross_entropy", BLUE), ("hinge", RED)):
        values, slope = _by_margin(name, e)
        grid[1][0].plot(e, values, color=colour, linewidth=2, label=f"{name}, 2 classes")
        grid[1][1].plot(e, slope, color=colour, linewidth=2)
    for axes, title in zip(
        grid.flat, ("loss", "slope", "loss", "slope by the right class's score"), strict=True
    ):
        plain(axes, title)
    for row, words in enumerate(("error x - t", "score of the right class less the other's")):
        grid[row][0].set_xlabel(words, fontsize=9)
        grid[row][1].set_xlabel(words, fontsize=9)
        grid[row][0].legend(fontsize=8, frameon=False)
    save(figure, path)


def _by_margin(name: str, margin: Tensor) -> tuple[Tensor, Tensor]:
    z = torch.stack([margin, torch.zeros_like(margin)], 1)
    target = torch.zeros(len(z), dtype=torch.int64)
    tensors = (z, target, None) if name == "cross_entropy" else (z, target)
    values, saved = OPS[name].forward(*tensors, reduction="none")
    dz = OPS[name].backward(torch.ones_like(values), saved)[0]
    assert dz is not None
    return values, dz[:, 0]


def reductions(path: Path) -> None:
    """Who gets the gradient: dx of each reduction of the same seven numbers."""
    figure, grid = panels(2, 4, (10, 4.2))
    x = torch.tensor([0.5, 1.5, -1.0, 2.0, 1.0, 0.8, 2.0], dtype=torch.float64)
    all_of = {"axes": (0,)}
    calls = (
        ("sum", all_of), ("mean", all_of), ("variance", all_of), ("extreme", all_of),
        ("product", all_of), ("norm", {**all_of, "p": 2.0}), ("logsumexp", all_of),
    )  # fmt: skip
    _bars(grid[0][0], x, "x", GREY)
    for axes, (name, options) in zip(grid.flat[1:], calls, strict=True):
        y, saved = OPS[name].forward(x, **options)
        (dx,) = OPS[name].backward(torch.ones_like(y), saved)
        title = {"extreme": "max (two winners)", "norm": "2-norm"}.get(name, name)
        _bars(axes, dx, f"dx of {title} = {written(float(y))}", BLUE)
    save(figure, path)


def _bars(axes: Axes, values: Tensor, title: str, colour: str) -> None:
    axes.axhline(0, color="#bbbbbb", linewidth=1)
    axes.bar(range(len(values)), values, color=colour)
    plain(axes, title)
    axes.set_xticks([])
    axes.set_ylim(1.15 * min(0.0, float(values.min())), 1.15 * max(float(values.max()), 0.2))


def through_time(path: Path) -> None:
    """How much of the last step's gradient reaches each step before it."""
    figure, ((axes,),) = panels(1, 1, (7, 3.2))
    for name, colour, label in (
        ("rnn_tanh", RED, "rnn_tanh"), ("gru", GREEN, "gru"), ("lstm", BLUE, "lstm"),
    ):  # fmt: skip
        axes.plot(range(-39, 1), _reach(name), color=colour, linewidth=2, label=label)
    axes.plot(
        range(-39, 1), _reach("lstm", 3.0), color=ORANGE, linewidth=2, label="lstm, forget bias 3"
    )
    plain(axes)
    axes.set_yscale("log")
    axes.set_xlabel("step before the last")
    axes.set_ylabel("|dx|, mean, last step = 1")
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


def _reach(name: str, forget: float = 0.0, steps: int = 40, n: int = 16) -> Tensor:
    gates = {"rnn_tanh": 1, "gru": 3, "lstm": 4}[name]
    chance = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return (torch.rand(shape, generator=chance, dtype=torch.float64) * 2 - 1) / n**0.5

    state = [torch.zeros(1, 4, n).double() for _ in range(OPS[name].states)]
    weights = [draw(gates * n, n), draw(gates * n, n), draw(gates * n), draw(gates * n)]
    if forget:
        weights[2][n : 2 * n] = forget
    options = {"biases": True, "layers": 1, "bidirectional": False, "batch_first": False}
    out, saved = OPS[name].forward(draw(steps, 4, n) * 4, *state, *weights, **options)
    dy = torch.zeros_like(out[0])
    dy[-1] = 1.0
    dx = OPS[name].backward((dy, *[None] * (len(out) - 1)), saved)[0]
    assert dx is not None
    size = dx.abs().mean((1, 2))
    return size / size[-1]


def attention(path: Path) -> None:
    """The weights of five queries over five keys, free and causal, and the scores' gradient."""
    figure, grid = panels(1, 3, (9, 3.1))
    chance = torch.Generator().manual_seed(5)
    q, k, v, dy = (torch.randn(5, 4, generator=chance, dtype=torch.float64) for _ in range(4))
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    for axes, mask, title in (
        (grid[0][0], None, "p, no mask"),
        (grid[0][1], causal, "p, causal mask"),
    ):
        p = OPS["attention"].forward(q, k, v, mask, scale=0.5)[1][3]
        _shaded(axes, p, title)
    p = OPS["attention"].forward(q, k, v, causal, scale=0.5)[1][3]
    dp = dy @ v.mT
    _shaded(grid[0][2], p * (dp - (dp * p).sum(-1, keepdim=True)), "ds, causal: rows add up to 0")
    save(figure, path)


def _shaded(axes: Axes, values: Tensor, title: str) -> None:
    high = [(i, j) for i in range(5) for j in range(5) if values[i, j] > 0.005]
    low = [(i, j) for i in range(5) for j in range(5) if values[i, j] < -0.005]
    cells(axes, values, title, marks={SKY: high, ORANGE: low}, size=9)
    axes.set_xlabel("key")
    axes.set_ylabel("query")


def step_sizes(path: Path) -> None:
    """The error of a central difference: the step's square on one side, rounding on the other."""
    figure, ((axes,),) = panels(1, 1, (6.5, 3.2))
    h = torch.logspace(-12, 0, 97, dtype=torch.float64)
    x = torch.tensor(0.7, dtype=torch.float64)

    def f(at: Tensor) -> Tensor:
        return OPS["sigmoid"].forward(at)[0]

    slope = OPS["sigmoid"].backward(torch.ones_like(x), OPS["sigmoid"].forward(x)[1])[0]
    assert slope is not None
    central, forward = (f(x + h) - f(x - h)) / (2 * h), (f(x + h) - f(x)) / h
    for values, colour, label in ((forward, ORANGE, "one-sided"), (central, BLUE, "central")):
        axes.loglog(h, ((values - slope) / slope).abs().clamp(min=1e-16), color=colour, label=label)
    plain(axes)
    axes.set_xlabel("step h")
    axes.set_ylabel("relative error of the slope")
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


PICTURES: dict[str, Callable[[Path], None]] = {
    "activations.png": activations,
    "elementary.png": elementary_functions,
    "softmax.png": softmax_jacobian,
    "losses.png": losses,
    "reductions.png": reductions,
    "through-time.png": through_time,
    "attention.png": attention,
    "steps.png": step_sizes,
}
