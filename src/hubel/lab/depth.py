"""Does depth help? Plain nets against residual ones, shallow against deep.

He, Zhang, Ren, Sun 2015, figures 1 and 6: among plain nets the deeper one has the higher *training*
error, so it is not overfitting but cannot be optimised; with shortcuts the deeper one is better.
Four nets or more are trained alike, several times each with other seeds; a claim holds where the
95 % intervals of the two errors do not touch.

The recipe is the paper's but for its length (64,000 steps there): SGD with momentum 0.9, decay
1e-4, flips and shifts by 4 pixels, one cycle of the learning rate up to 0.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hubel import api
from hubel.data.augment import Augment
from hubel.errors import OptionError
from hubel.kinds.kind import Data
from hubel.models.resnet import SMALL_DEPTHS
from hubel.runs.files import replacing, write_json
from hubel.runs.log import read_log
from hubel.runs.run import Run
from hubel.session import Notice, Tell, silent
from hubel.tasks.interval import Interval, interval

KINDS = {"plain": "plain", "resnet": "residual"}
COLOURS = {"plain": "#b53a2f", "resnet": "#2f6db5"}
PARTS = ("train", "test")
PAPER: dict[str, Any] = {  # section 4.2, but for length, batch and schedule
    "optimiser": {
        "name": "sgd",
        "lr": 0.1,
        "momentum": 0.9,
        "momentum_form": "velocity",
        "weight_decay": 1e-4,
    },
    "augment": Augment(flip=True, shift=4),
    "smoothing": 0.0,
}


@dataclass(frozen=True)
class Claim:
    """One sentence that the trainings bear out or do not."""

    text: str
    holds: bool
    worse: Interval
    better: Interval


@dataclass(frozen=True)
class DepthResult:
    """What the trainings came to.

    Attributes:
        errors: error (1 - accuracy) by net and part, one number per seed; the training part is
            judged at the end, without augmentation, on 10,000 images of it.
        curves: training error per epoch while it ran, by net, one list per seed.
        claims: the paper's two sentences.
        picture: a PNG.
    """

    errors: dict[str, dict[str, list[float]]]
    curves: dict[str, list[list[float]]]
    claims: tuple[Claim, ...]
    picture: Path

    def interval(self, net: str, part: str) -> Interval:
        return interval(self.errors[net][part])

    def to_json(self) -> dict[str, Any]:
        return {
            "errors": self.errors,
            "curves": self.curves,
            "claims": [
                {
                    "text": claim.text,
                    "holds": claim.holds,
                    "worse": claim.worse.to_json(),
                    "better": claim.better.to_json(),
                }
                for claim in self.claims
            ],
            "picture": str(self.picture),
        }


def depth(
    data: Data = "cifar10",
    *,
    depths: Sequence[int] = (20, 56),
    seeds: int = 3,
    epochs: int = 5,
    batch: int = 64,
    out: str | Path = "lab/depth",
    tell: Tell = silent,
    **words: Any,
) -> DepthResult:
    """Train plain and residual nets of each depth `seeds` times; compare, and draw.

    Every training is a run folder below `out`. Called again, what is finished is read, what was
    interrupted goes on, and what is missing is trained.

    Args:
        depths: of the nets for 32x32 images: 20, 32, 44, 56, 110.
        **words: what `hubel.train` takes besides (`precision`, `device`).

    Raises `OptionError` for other depths, `HubelError` as `hubel.train` does.
    """
    wrong = [d for d in depths if d not in SMALL_DEPTHS]
    if wrong or len(set(depths)) < 2:
        allowed = ", ".join(map(str, SMALL_DEPTHS))
        raise OptionError(f"depths must be two or more of {allowed}, given {list(depths)}")
    if seeds < 2:
        raise OptionError(f"an interval takes 2 seeds or more, given {seeds}")
    out = Path(out)
    depths = sorted(set(depths))
    recipe = {**_recipe(epochs, batch), **words}
    names = [f"{kind}{d}" for d in depths for kind in KINDS]
    todo = [(name, seed) for seed in range(seeds) for name in names]
    for number, (name, seed) in enumerate(todo, start=1):
        tell(Notice(f"training {number} of {len(todo)}: {name}, seed {seed}"))
        _train(name, data, out, seed, recipe, tell)
    found = _read(out, names, seeds, depths)
    write_json(out / "depth.json", found.to_json() | {"picture": found.picture.name})
    return found


def _recipe(epochs: int, batch: int) -> dict[str, Any]:
    return {
        **PAPER,
        "epochs": epochs,
        "batch": batch,
        "schedule": {"name": "one-cycle"},
    }


def _train(name: str, data: Data, out: Path, seed: int, recipe: dict[str, Any], tell: Tell) -> None:
    """One training, from wherever it stands."""
    folder = out / f"{name}-seed{seed}"
    if not (folder / "config.json").exists():
        api.train(name, data, out=out, name=folder.name, seed=seed, tell=tell, **recipe)
    elif not Run.open(folder).finished:
        api.resume(folder, tell=tell)


def _read(out: Path, names: list[str], seeds: int, depths: Sequence[int]) -> DepthResult:
    errors: dict[str, dict[str, list[float]]] = {}
    curves: dict[str, list[list[float]]] = {}
    for name in names:
        runs = [Run.open(out / f"{name}-seed{seed}") for seed in range(seeds)]
        scores = [run.results()["metrics"] for run in runs]
        errors[name] = {p: [1 - s[p]["accuracy"] for s in scores] for p in PARTS}
        curves[name] = [_curve(run) for run in runs]
    claims = _claims(errors, depths)
    return DepthResult(errors, curves, claims, _draw(errors, curves, claims, out / "depth.png"))


def _curve(run: Run) -> list[float]:
    lines = [line for line in read_log(run.folder) if line["kind"] == "epoch"]
    return [1 - line["train"]["accuracy"] for line in lines]


def _claims(errors: dict[str, dict[str, list[float]]], depths: Sequence[int]) -> tuple[Claim, ...]:
    """The deepest against the shallowest, of both kinds, in training error and in test error."""
    shallow, deep = depths[0], depths[-1]
    orders = {
        "train": {"plain": (deep, shallow), "resnet": (shallow, deep)},
        "test": {"plain": (deep, shallow), "resnet": (shallow, deep)},
    }
    found = []
    for part, order in orders.items():
        for kind, (worse, better) in order.items():
            high = interval(errors[f"{kind}{worse}"][part])
            low = interval(errors[f"{kind}{better}"][part])
            text = f"{KINDS[kind]} nets: {worse} layers have more {part} error than {better}"
            found.append(Claim(text, high.low > low.high, high, low))
    return tuple(found)


# The picture -------------------------------------------------------------------------------------


def _draw(
    errors: dict[str, dict[str, list[float]]],
    curves: dict[str, list[list[float]]],
    claims: Sequence[Claim],
    path: Path,
) -> Path:
    """Left: training error by epoch, as in the paper's figure 6; right: where each net ended."""
    figure = Figure(figsize=(11, 5), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_curves(left, curves)
    _draw_ends(right, errors)
    told = "   ".join(f"{'✓' if c.holds else '✗'} {c.text}" for c in claims if "train" in c.text)
    figure.suptitle(told, fontsize=9.5)
    FigureCanvasAgg(figure)
    with replacing(path) as draft:
        figure.savefig(draft, format="png")
    return path


def _style(name: str, names: Sequence[str]) -> dict[str, Any]:
    """Plain nets red, residual ones blue; the deeper, the thicker."""
    kind = "resnet" if name.startswith("resnet") else "plain"
    depths = sorted({int(n.removeprefix("resnet").removeprefix("plain")) for n in names})
    rank = depths.index(int(name.removeprefix(kind)))
    return {"color": COLOURS[kind], "linewidth": 1.2 + 1.6 * rank}


def _draw_curves(axes: Axes, curves: dict[str, list[list[float]]]) -> None:
    ends: list[tuple[float, int, str, str]] = []
    for name, runs in curves.items():
        length = min(map(len, runs))
        style = _style(name, list(curves))
        rows = [[100 * run[epoch] for run in runs] for epoch in range(length)]
        epochs = range(1, length + 1)
        middle = [sum(row) / len(row) for row in rows]
        axes.plot(epochs, middle, label=name, **style)
        axes.fill_between(
            epochs, [min(r) for r in rows], [max(r) for r in rows], color=style["color"],
            alpha=0.12, linewidth=0,
        )  # fmt: skip
        ends.append((middle[-1], length, name, style["color"]))
    _name_ends(axes, ends)
    axes.set_xlabel("epoch")
    axes.set_ylabel("training error, % (while training, augmented)")
    axes.set_title("mean of the seeds; shaded: lowest to highest", fontsize=10)
    axes.margins(x=0.12)
    _plain(axes)


def _name_ends(axes: Axes, ends: list[tuple[float, int, str, str]]) -> None:
    """A name behind every curve (height, last epoch, name, colour), apart where they end close."""
    low, high = axes.get_ylim()
    last = -math.inf
    for height, epoch, name, colour in sorted(ends):
        last = max(height, last + (high - low) / 28)
        axes.annotate(f" {name}", (epoch, last), color=colour, va="center", fontsize=9)


def _draw_ends(axes: Axes, errors: dict[str, dict[str, list[float]]]) -> None:
    for place, (name, parts) in enumerate(errors.items()):
        colour = _style(name, list(errors))["color"]
        for part, shift, marker in (("train", -0.12, "o"), ("test", 0.12, "s")):
            found = interval([100 * error for error in parts[part]])
            axes.errorbar(
                place + shift, found.mean, yerr=found.half, color=colour, marker=marker,
                markerfacecolor=colour if part == "train" else "white", capsize=4, linewidth=1.5,
            )  # fmt: skip
            dots = [100 * error for error in parts[part]]
            axes.plot([place + shift] * len(dots), dots, ".", color=colour, alpha=0.35)
    axes.set_xticks(range(len(errors)), list(errors))
    axes.set_ylabel("error at the end, %")
    axes.set_title("filled: training images, open: test; bars: 95 % interval", fontsize=10)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
