"""How long a forward pass takes, module by module."""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from hubel.models.watch import watch

PATIENCE = 10.0  # seconds


class Stopwatch:
    """Adds up how long every module runs, the time of the modules inside it taken out."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.own: dict[str, float] = defaultdict(float)
        self._began: list[float] = []
        self._inside = [0.0]

    def now(self) -> float:
        """Milliseconds on a clock that waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() * 1e3

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        self._inside.append(0.0)
        self._began.append(self.now())

    def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        took = self.now() - self._began.pop()
        self.own[path] += took - self._inside.pop()
        self._inside[-1] += took


def times(model: nn.Module, images: Tensor, repeats: int) -> tuple[dict[str, float], float]:
    """Median milliseconds of every module by path, and of a whole pass that is not watched.

    A module's time leaves out the modules inside it. Images are (N, C, H, W); of `repeats` passes
    fewer are made where they take longer than `PATIENCE` together; of 0, and of images without
    numbers (device "meta"), nothing is known.
    """
    if repeats == 0 or images.is_meta:
        return {}, math.nan
    start = Stopwatch(images.device).now()
    model(images)  # the first pass of its kind pays for the choice of kernels
    whole, passes = [], []
    for _ in range(repeats):
        clock = Stopwatch(images.device)
        began = clock.now()
        model(images)
        whole.append(clock.now() - began)
        with watch(model, enter=clock.enter, leave=clock.leave):
            model(images)
        passes.append(clock.own)
        if clock.now() - start > PATIENCE * 1e3:
            break
    layers = {path: statistics.median(each[path] for each in passes) for path in passes[0]}
    return layers, statistics.median(whole)
