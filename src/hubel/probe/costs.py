"""What a forward pass costs, layer by layer: parameters, multiply-adds, memory, time.

Multiply-adds are counted from the operations that really run, so a layer used three times counts
three times and a convolution called as a function counts as well. One multiply-add (MAC) is two
FLOPs; additions of biases, norms, activations and pools are not counted, as is the custom.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from hubel.models.watch import is_leaf, tensors, untouched, watch

WHOLE = "(model)"  # the path of the model itself, where it computes by itself


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One layer in one forward pass of all images.

    Attributes:
        layer: path in the model; "(model)" for what the model does outside of its layers.
        kind: its class, as in "Conv2d".
        shape: of its last output, (N, ...); empty where it did not run.
        parameters: learned numbers it holds; shared ones count at the first layer that has them.
        macs: multiply-adds, over all its uses.
        bytes: of its outputs, over all its uses.
        milliseconds: median over the timed passes, all its uses together; NaN where not timed.
        share: of the milliseconds of all layers, 0..1; NaN where not timed.
        uses: how often it ran.
    """

    layer: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    macs: int
    bytes: int
    milliseconds: float
    share: float
    uses: int


@dataclass(frozen=True, slots=True)
class Costs:
    """All layers in the order they first ran, and the sums over the whole model.

    `milliseconds` is the median of whole passes without any watching, so it differs from the
    layers' sum: that leaves out what happens between layers and pays for the watching.
    """

    layers: tuple[LayerCost, ...]
    parameters: int
    macs: int
    bytes: int
    milliseconds: float


def costs(model: nn.Module, images: Tensor, *, repeats: int = 5) -> Costs:
    """The costs of one forward pass in eval mode. The model is left as it was.

    Args:
        images: float (N, C, H, W) on the model's device; all counts are for all N.
        repeats: timed passes to take the median of; 0 for counts without times.
    """
    with torch.no_grad(), untouched(model, training=False):
        seen = _count(model, images)
        times, whole = _time(model, images, repeats)
    rows = _rows(model, seen, times)
    return Costs(
        tuple(rows),
        parameters=sum(row.parameters for row in rows),
        macs=sum(row.macs for row in rows),
        bytes=sum(row.bytes for row in rows),
        milliseconds=whole,
    )


@dataclass
class _Seen:
    """What one module did in one pass."""

    macs: int = 0
    bytes: int = 0
    uses: int = 0
    shape: tuple[int, ...] = ()


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds the multiply-adds of every operation to the innermost module that is running."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: dict[str, _Seen] = {}
        self.running = [""]

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        self.running.append(path)
        self.seen.setdefault(path, _Seen())

    def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        self.running.pop()
        seen = self.seen[path]
        seen.uses += 1
        made = list(tensors(output))
        seen.bytes += sum(t.numel() * t.element_size() for t in made)
        seen.shape = tuple(made[0].shape) if made else ()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            flops = formula(*args, **kwargs, out_val=output)
            self.seen[self.running[-1]].macs += int(flops) // 2
        return output


def _count(model: nn.Module, images: Tensor) -> dict[str, _Seen]:
    """What every module did, by path, in the order they began."""
    counter = _Counter()
    with _open_attention(), watch(model, enter=counter.enter, leave=counter.leave), counter:
        model(images)
    return counter.seen


@contextmanager
def _open_attention() -> Iterator[None]:
    """Inside, attention runs as matrix products; its fused kernels cannot be counted."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Stopwatch:
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


def _time(model: nn.Module, images: Tensor, repeats: int) -> tuple[dict[str, float], float]:
    """Median milliseconds of every module by path, and of a whole pass that is not watched."""
    if repeats == 0:
        return {}, math.nan
    model(images)  # the first pass of its kind pays for the choice of kernels
    whole, passes = [], []
    for _ in range(repeats):
        clock = _Stopwatch(images.device)
        began = clock.now()
        model(images)
        whole.append(clock.now() - began)
        with watch(model, enter=clock.enter, leave=clock.leave):
            model(images)
        passes.append(clock.own)
    layers = {path: statistics.median(each[path] for each in passes) for path in passes[0]}
    return layers, statistics.median(whole)


def _rows(model: nn.Module, seen: dict[str, _Seen], times: dict[str, float]) -> list[LayerCost]:
    """One row for every module that computes or learns by itself, in the order they began."""
    modules = dict(model.named_modules())
    counted: set[int] = set()
    rows = []
    for path in [*seen, *(path for path in modules if path not in seen)]:
        module, did = modules[path], seen.get(path, _Seen())
        fresh = {id(p): p for p in module.parameters(recurse=False) if id(p) not in counted}
        counted |= fresh.keys()
        learned = sum(p.numel() for p in fresh.values())
        if learned or did.macs or (did.uses and is_leaf(module)):
            rows.append(_row(path, module, did, learned, times))
    total = sum(row.milliseconds for row in rows)
    return [replace(row, share=row.milliseconds / total) for row in rows] if total else rows


def _row(
    path: str, module: nn.Module, did: _Seen, parameters: int, times: dict[str, float]
) -> LayerCost:
    return LayerCost(
        layer=path or WHOLE,
        kind=type(module).__name__,
        shape=did.shape,
        parameters=parameters,
        macs=did.macs,
        bytes=did.bytes,
        milliseconds=times.get(path, 0.0) if times else math.nan,
        share=math.nan,
        uses=did.uses,
    )
