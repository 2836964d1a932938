"""Milliseconds per batch of each augmentation, hubel's against Kornia's nearest.

From a batch of 64 uint8 images (3, 32, 32) to normalised float32 ones, conversion included: hubel
moves bytes and converts at the end, Kornia wants floats from the start. Where Kornia is not
installed (pip install kornia), hubel is timed alone. Not the same to the last detail: Kornia's
crop pads with black, its mixup draws the share uniformly.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import common
import numpy as np
import torch
from torch import Tensor, nn

from hubel.data.augment import Augment
from hubel.data.preprocess import Preprocess

WORDS = (
    "none",
    "flip",
    "shift=4",
    "flip,shift=4",
    "rotate=10",
    "scale=0.1",
    "erase=8",
    "jitter=0.2",
    "mixup=0.2",
    "flip,shift=4,rotate=10,scale=0.1,erase=8,jitter=0.2",
)
PREPROCESS = Preprocess(3, 32, 32, "stretch", (0.49, 0.48, 0.45), (0.25, 0.24, 0.26))


def main(argv: Sequence[str] | None = None) -> None:
    """Time every augmentation in turns; print and write the milliseconds."""
    words = _words(argv)
    draw = np.random.default_rng(0)
    images = torch.from_numpy(draw.integers(0, 256, (64, 3, 32, 32), dtype=np.uint8))
    targets = torch.from_numpy(draw.integers(0, 10, 64))
    found = {}
    for text in WORDS:
        makers = {"hubel": ours} | ({"kornia": kornias} if find_spec("kornia") else {})
        runs = {
            who: partial(_milliseconds, make(text, images, targets), words.calls)
            for who, make in makers.items()
        }
        common.in_turns(runs, 2)
        times = common.in_turns(runs, words.rounds)
        found[text] = {who: common.summary(of) for who, of in times.items()}
        if "kornia" in times:
            found[text]["kornia / hubel"] = common.ratio(times["kornia"], times["hubel"])
    rows = [(text, *(common.shown(f, ".2f") for f in of.values())) for text, of in found.items()]
    columns = ("batch 64 of 3x32x32", *(f"{who}, ms" for who in makers), "kornia / hubel")
    common.table("augmentation", columns[: len(rows[0])], rows)
    common.write(words.results, "augment", {"milliseconds": found}, ["kornia"])


def _words(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=20, help="a round")
    return parser.parse_args(argv)


def ours(text: str, images: Tensor, targets: Tensor) -> Callable[[], Any]:
    """As `hubel.data.feed` does it."""
    augment, chance = Augment.parse(text), torch.Generator().manual_seed(0)
    fill = torch.tensor([round(255 * mean) for mean in PREPROCESS.mean], dtype=torch.uint8)

    def run() -> Any:
        draws = augment.chances(range(len(images)), 0)
        floats = PREPROCESS.normalise(augment.moved(images, draws, fill))
        return augment.mix(floats, targets, 10, chance) if augment.mixup else floats

    return run


def kornias(text: str, images: Tensor, targets: Tensor) -> Callable[[], Any]:
    """The augmentations in Kornia's own order of work: floats in 0..1, then normalise."""
    augment = Augment.parse(text)
    change = nn.Sequential(*_layers(augment))
    K = import_module("kornia.augmentation")
    mix = K.RandomMixUpV2(p=1.0, data_keys=["input", "class"]) if augment.mixup else None
    normalise = K.Normalize(torch.tensor(PREPROCESS.mean), torch.tensor(PREPROCESS.std))

    def run() -> Any:
        floats = normalise(change(images.float() / 255))
        return mix(floats, targets) if mix is not None else floats

    return run


def _layers(augment: Augment) -> list[nn.Module]:
    K = import_module("kornia.augmentation")
    found = []
    if augment.flip:
        found.append(K.RandomHorizontalFlip(p=0.5))
    if augment.shift:
        found.append(K.RandomCrop((32, 32), padding=augment.shift))
    if augment.rotate or augment.scale:
        zoom = (1 - augment.scale, 1 + augment.scale) if augment.scale else None
        found.append(K.RandomAffine(augment.rotate, scale=zoom, p=1.0))
    if augment.jitter:
        found.append(K.ColorJitter(*[augment.jitter] * 3, p=1.0))
    if augment.erase:
        share = augment.erase**2 / 32**2
        found.append(K.RandomErasing((share, share), (1.0, 1.0), p=1.0))
    return found


def _milliseconds(run: Callable[[], Any], calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - began) * 1e3 / calls


if __name__ == "__main__":
    main()
