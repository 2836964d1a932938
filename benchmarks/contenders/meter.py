"""What the contenders share: their words, the images, the count of images/s, and the answer."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray


def words() -> argparse.Namespace:
    """--net NAME --data FILE.npz --batch N --seconds S --shift PIXELS"""
    parser = argparse.ArgumentParser()
    parser.add_argument("--net", choices=("lenet5", "resnet20"), required=True)
    parser.add_argument("--data", required=True, help=".npz: images uint8 (N, C, H, W), labels")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="of counting after warm-up")
    parser.add_argument(
        "--shift", type=int, default=0, help="pixels; with it images are flipped too"
    )
    return parser.parse_args()


def load(path: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """images uint8 (N, C, H, W), labels int64 (N,)."""
    with np.load(path) as file:
        return file["images"], file["labels"]


class Meter:
    """Counts images from the first step after the warm-up on, and says when it has enough."""

    WARM_STEPS, WARM_SECONDS = 20, 3.0

    def __init__(self, seconds: float) -> None:
        self.wanted = seconds
        self.born = time.perf_counter()
        self.steps = self.images = 0
        self.began: float | None = None
        self.seconds = 0.0

    def __call__(self, images: int) -> bool:
        """After every step: True once `seconds` have been counted."""
        now = time.perf_counter()
        self.steps += 1
        if self.began is None:
            warm = self.steps >= self.WARM_STEPS and now - self.born >= self.WARM_SECONDS
            self.began = now if warm else None
            return False
        self.images += images
        self.seconds = now - self.began
        return self.seconds >= self.wanted


def answer(
    images: int, seconds: float, parameters: int, packages: Iterable[str], **more: Any
) -> None:
    """Print one line of JSON, the last of the output."""
    found = {
        "images_per_second": images / seconds,
        "images": images,
        "seconds": seconds,
        "parameters": parameters,
        "versions": {name: version(name) for name in packages},
    }
    print("\n" + json.dumps(found | more))
