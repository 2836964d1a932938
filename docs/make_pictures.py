"""Draws the pictures of these pages: `python docs/make_pictures.py [folder]`.

All of them come from the code that they explain: the augmentations from `Augment`, the curves
from `learning_rate` and `MomentumSGD`, the range test from `tune_lr`, the heat map from a net
trained on crops of BCCD's blood photos (MIT licence). These are looked for where HUBEL_TEST_DATA
points; without them that picture is left as it is. Two minutes at most.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from hubel.api import load_run, train, tune_lr
from hubel.data import open_source
from hubel.data.augment import Augment
from hubel.data.decode import decode
from hubel.data.preprocess import Preprocess
from hubel.data.record import ArraySource
from hubel.engine.expression import expression
from hubel.probe.heatmap import class_heatmap, fitted
from hubel.probe.heatmap_picture import draw_heatmap
from hubel.training.optimiser import MomentumSGD, set_rate
from hubel.training.plan import Momentum, Schedule
from hubel.training.schedule import learning_rate

HERE = Path(__file__).parent / "images"
WORDS = (
    *("none", "flip", "vflip", "shift=4", "rotate=20", "scale=0.3", "elastic=2"),
    *("erase=10", "jitter=0.5", "mixup=0.5"),
)
SHOWN = ("Sneaker", "Dress", "Bag", "Ankle boot", "T-shirt/top", "Sandal", "Coat", "Trouser")
SCHEDULES = (
    ("constant, warmup 0.1", Schedule(name="constant", warmup=0.1)),
    ("step", Schedule(name="step")),
    ("cosine", Schedule(name="cosine")),
    ("one-cycle", Schedule(name="one-cycle")),
)
COLOURS = ("#c08a2b", "#b53a2f", "#2c8c57", "#2f6db5")
SEED = 15  # of the augmentations: one whose draws show what each word does

DATA = Path(os.environ.get("HUBEL_TEST_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
CELLS = ("background", "red cell", "white cell", "platelet")
BOXES = {"RBC": 1, "WBC": 2, "Platelets": 3}  # later ones lie over earlier ones
SHRINK, CROP, EACH = 4, 32, 6  # of a photo's side; pixels; crops of a class and photo
SHOWN_PHOTO = "BloodImage_00031"  # of the test part: two white cells, and platelets


class AbsentError(Exception):
    """The data that a picture is made from are not on this machine."""


def augmentations(path: Path) -> None:
    """One row per augmentation word: the same eight images, changed."""
    images, labels, preprocess = _images()
    figure = Figure(figsize=(7, 8.6), dpi=100, layout="constrained")
    grid = figure.subplots(len(WORDS), len(SHOWN))
    for row, word in enumerate(WORDS):
        for axes, image in zip(grid[row], _changed(word, images, labels, preprocess), strict=True):
            axes.imshow(image[0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        grid[row][0].set_ylabel(word, rotation=0, ha="right", va="center", fontsize=11)
    _save(figure, path)


def schedules(path: Path) -> None:
    """The learning rate over a training of 1,000 steps."""
    figure, axes = _panel("share of the training", "learning rate / highest")
    for (name, plan), colour in zip(SCHEDULES, COLOURS, strict=True):
        rates = [learning_rate(plan, 1.0, step, 1000) for step in range(1000)]
        axes.plot(np.arange(1000) / 1000, rates, label=name, color=colour, linewidth=2)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right", frameon=False)
    _save(figure, path)


def momentum(path: Path) -> None:
    """How far the four forms step when the rate falls to a tenth under a steady gradient."""
    figure, axes = _panel("step", "length of the step")
    for form, colour, width in zip(get_args(Momentum), COLOURS, (2, 2, 2, 5), strict=True):
        label = "average, rate x 10" if form == "average" else form
        axes.plot(_steps(form), color=colour, label=label, linewidth=width, zorder=3 - width / 5)
    axes.axvline(60, color="#bbbbbb", linewidth=1)
    axes.annotate("rate / 10", (60, 1.08), xytext=(4, 0), textcoords="offset points", fontsize=9)
    axes.set_ylim(0, 1.2)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right", frameon=False)
    _save(figure, path)


def lr_range(path: Path) -> None:
    """The range test of `lenet5` on the sample, as `hubel tune-lr` draws it."""
    tune_lr("lenet5", "sample", out=path)


def expression_graph(path: Path) -> None:
    """The lectures' f = (x + y) z, values and gradients."""
    _save(expression("(x + y) * z", x=-2, y=5, z=-4).figure(), path)


def heat_map(path: Path) -> None:
    """`net32`, trained on crops of blood photos, slides over one. Raises `AbsentError`."""
    if not (DATA / "bccd").is_dir():
        raise AbsentError(f"no blood photos in {DATA / 'bccd'}")
    images, labels = (np.stack(part) for part in zip(*_crops("train"), strict=True))
    source = ArraySource(images, labels, CELLS, name="cells", origin="BCCD")
    words = {"epochs": 6, "tune": "off", "augment": Augment(flip=True, jitter=0.1)}
    with tempfile.TemporaryDirectory() as out:
        run = load_run(train("net32", source, out=out, **words).folder)
    file = DATA / "bccd/JPEGImages" / f"{SHOWN_PHOTO}.jpg"
    photo = fitted(decode(file, file.name), run.card.preprocess, scale=1 / SHRINK)
    image = run.card.preprocess.normalise(torch.from_numpy(photo[None]))[0]
    found = class_heatmap(run.model, image, size=(CROP, CROP))
    draw_heatmap(photo, found, CELLS, [2, 3, 1], path)
    with Image.open(path) as drawn:
        small = drawn.convert("RGB").resize((1000, round(1000 * drawn.height / drawn.width)))
    small.point(lambda value: min(255, round(value / 8) * 8)).save(path, optimize=True)


PICTURES = {
    "expression.png": expression_graph,
    "augment.png": augmentations,
    "schedules.png": schedules,
    "momentum.png": momentum,
    "lr-range.png": lr_range,
    "heatmap.png": heat_map,
}


def main(folder: Path) -> None:
    """Draw them all into `folder`."""
    for name, draw in PICTURES.items():
        try:
            draw(folder / name)
            print(folder / name)
        except AbsentError as error:
            print(f"left out: {name}: {error}")


def _photo(name: str) -> np.ndarray:
    """uint8 (3, 120, 160)."""
    with Image.open(DATA / "bccd/JPEGImages" / f"{name}.jpg") as file:
        return np.ascontiguousarray(np.asarray(file.reduce(SHRINK)).transpose(2, 0, 1))


def _crops(part: str) -> Iterator[tuple[np.ndarray, int]]:
    """uint8 (3, 32, 32) and what its middle lies on, up to EACH of every class and photo."""
    draw = np.random.default_rng(0)
    for name in (DATA / "bccd/ImageSets/Main" / f"{part}.txt").read_text().split():
        photo, marks = _photo(name), _marks(name)
        ends = [side - CROP // 2 + 1 for side in marks.shape]
        middles = marks[CROP // 2 : ends[0], CROP // 2 : ends[1]]
        for kind in range(len(CELLS)):
            places = np.argwhere(middles == kind)
            for top, left in draw.permutation(places)[:EACH]:
                yield photo[:, top : top + CROP, left : left + CROP], kind


def _marks(name: str) -> np.ndarray:
    """What every pixel of a photo lies on (120, 160): the ellipses in the cells' boxes."""
    height, width = _photo(name).shape[1:]
    y, x = np.mgrid[:height, :width]
    marks = np.zeros((height, width), dtype=np.int64)
    cells = list(ElementTree.parse(DATA / "bccd/Annotations" / f"{name}.xml").iter("object"))
    for cell in sorted(cells, key=lambda cell: BOXES[cell.findtext("name", "")]):
        left, top, right, bottom = (
            int(cell.findtext(f"bndbox/{side}", "")) / SHRINK
            for side in ("xmin", "ymin", "xmax", "ymax")
        )
        across = (x - (left + right) / 2) / max(right - left, 1)
        down = (y - (top + bottom) / 2) / max(bottom - top, 1)
        marks[across**2 + down**2 < 0.25] = BOXES[cell.findtext("name", "")]
    return marks


def _images() -> tuple[torch.Tensor, torch.Tensor, Preprocess]:
    """The first image of each shown class: uint8 (N, 1, 28, 28), labels, scaling."""
    source = open_source("sample")
    wanted = [source.classes.index(name) for name in SHOWN]
    rows = [int(np.flatnonzero(source.targets == label)[0]) for label in wanted]
    images = torch.from_numpy(np.stack([source[row].image for row in rows]))
    return images, torch.tensor(wanted), Preprocess(1, 28, 28, "stretch", (0.286,), (0.353,))


def _changed(
    word: str, images: torch.Tensor, labels: torch.Tensor, preprocess: Preprocess
) -> np.ndarray:
    augment, chance = Augment.parse(word), torch.Generator().manual_seed(SEED)
    fill = torch.tensor([round(255 * preprocess.mean[0])], dtype=torch.uint8)
    draws = augment.chances(range(len(images)), SEED)
    floats = preprocess.normalise(augment.moved(images, draws, fill))
    if augment.mixup:
        floats, _ = augment.mix(floats, labels, 10, chance)
    return preprocess.denormalise(floats).numpy()


def _steps(form: str, steps: int = 120) -> list[float]:
    """Step lengths at gradient 1, momentum 0.9; `average` at ten times the rate, as it needs."""
    weight = torch.nn.Parameter(torch.zeros(()))
    rate = 1.0 if form == "average" else 0.1
    optimiser = MomentumSGD([weight], rate, 0.9, form)
    lengths = []
    for step in range(steps):
        set_rate(optimiser, rate if step < steps // 2 else rate / 10)
        before = weight.item()
        weight.grad = torch.ones(())
        optimiser.step()
        lengths.append(before - weight.item())
    return lengths


def _panel(across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 3.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else HERE)
