"""How a step is run on this machine: by whom, in which precision and layout; chosen by measuring.

Same model, same weights, same checkpoints, whichever is chosen. The measuring trains a copy for a
fraction of a second; what it finds is handed back in words, to be shown and to be remembered.
"""

from __future__ import annotations

import contextlib
import copy
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

GAIN = 1.05  # a choice away from the plain one must be this much faster, or noise decides
BF16_GAIN = 1.15  # fewer digits must buy more
LONG = 1.0  # seconds of a step from which on few are measured
COMPILE_GAIN = 1.2  # what torch.compile brings to small nets at least, where it brings anything
COMPILE_SECONDS = 60.0  # what compiling a net of some 20 layers takes on a laptop's cores


@dataclass(frozen=True)
class Choice:
    """One way to run a step. The default is what PyTorch does unasked; `native` is hubel's own
    machine code (`engine/native`)."""

    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    native: bool = False
    why: str = "not measured"

    def __str__(self) -> str:
        if self.native:
            return f"hubel's native step, {self.precision}"
        layout = "channels-last" if self.channels_last else "channels-first"
        return f"{self.precision}, {layout}{', compiled' if self.compile else ''}"

    def prepare(self, model: nn.Module) -> nn.Module:
        """The callable to train through. The model itself only changes its memory layout."""
        if self.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return torch.compile(model) if self.compile else model  # type: ignore[return-value]

    def layout(self, images: Tensor) -> Tensor:
        """The images in the chosen memory layout, (N, C, H, W) still."""
        return (
            images.contiguous(memory_format=torch.channels_last) if self.channels_last else images
        )

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """The context in which the forward pass and the loss run."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


Runner = Callable[[], None]


def measure(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    loss_of: Callable[[Any, Tensor], Tensor],
    *,
    precision: str,
    steps: int,
    compiler: bool | None = None,
    native: Callable[[nn.Module, Tensor, Tensor, bool], Runner | None] | None = None,
    native_bf16: bool = False,
) -> Choice:
    """The fastest way found to train `model` on batches like this one.

    Args:
        model: left as it is; copies are trained.
        images, targets: one batch.
        loss_of: (outputs, targets) -> scalar.
        precision: "auto" tries bf16 too; "fp32" and "bf16" are kept to.
        steps: how many steps the training will take; compiling must pay for itself in them.
        compiler: whether torch.compile can work here (None: look for a C++ compiler or CUDA).
        native: (copy of the model, images, targets, in bf16?) -> the native step on them, or None
            where that cannot be; None without one.
        native_bf16: whether it has bf16 here.
    """
    ways = [Choice(p, layout) for p in _precisions(precision) for layout in (False, True)]
    runners = {way: _runner(model, images, targets, loss_of, way) for way in ways}
    for p in _precisions(precision):
        if native is not None and (p == "fp32" or native_bf16):
            run = native(copy.deepcopy(model).train(), images, targets, p == "bf16")
            if run is not None:
                runners[Choice(p, native=True)] = run
    times = _alternate(runners)
    best, *other = [_best_way(times, p) for p in dict.fromkeys(way.precision for way in ways)]
    if other and times[best] > BF16_GAIN * times[other[0]]:
        best = other[0]
    why = _words(best, ways[0], times)
    if best.native:
        return replace(best, why=why)
    saved = steps * times[best] * (1 - 1 / COMPILE_GAIN)
    can = _can_compile(images.device) if compiler is None else compiler
    if not can or saved < 2 * COMPILE_SECONDS:
        return replace(best, why=why)
    return _try_compile(model, images, targets, loss_of, best, times[best], why)


def _best_way(times: dict[Choice, float], precision: str) -> Choice:
    """Away from the plain way, and then on to the next, only where it gains more than the noise."""
    best, *others = (way for way in times if way.precision == precision)
    for way in others:
        if times[best] > GAIN * times[way]:
            best = way
    return best


def _precisions(asked: str) -> list[Literal["fp32", "bf16"]]:
    return {"auto": ["fp32", "bf16"], "bf16": ["bf16"]}.get(asked, ["fp32"])  # type: ignore[return-value]


def _runner(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    loss_of: Callable[[Any, Tensor], Tensor],
    way: Choice,
) -> Runner:
    net = copy.deepcopy(model).train()
    forward = way.prepare(net)

    def step() -> None:
        net.zero_grad(set_to_none=True)
        with way.autocast(images.device):
            loss = loss_of(forward(way.layout(images)), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        if images.is_cuda:
            torch.cuda.synchronize()

    return step


def _alternate(
    runners: dict[Choice, Runner], seconds: float = 1.5, least: int = 5
) -> dict[Choice, float]:
    """Least seconds of each way, taken in turns: what else the machine does only ever adds. The
    turns go there and back, as a step also pays for what the one before it left in the caches.

    Steps of seconds differ by more than their noise: two turns are then enough.
    """
    began = time.perf_counter()
    for step in runners.values():
        step()
    if time.perf_counter() - began > LONG * len(runners):
        least = min(least, 2)
    else:
        for step in runners.values():
            step()
    times: dict[Choice, list[float]] = {way: [] for way in runners}
    order = list(runners.items())
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[order[0][0]]) < least:
        for way, step in order:
            start = time.perf_counter()
            step()
            times[way].append(time.perf_counter() - start)
        order.reverse()
    return {way: min(found) for way, found in times.items()}


def _words(best: Choice, plain: Choice, times: dict[Choice, float]) -> str:
    others = ", ".join(
        f"{way} {seconds * 1e3:.1f} ms" for way, seconds in times.items() if way != best
    )
    gain = times[plain] / times[best]
    faster = f" ({gain:.2f}x the plain way)" if best != plain else ""
    return f"{best} {times[best] * 1e3:.1f} ms a step{faster}; tried {others}"


def _can_compile(device: torch.device) -> bool:
    return device.type == "cuda" or any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def _try_compile(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    loss_of: Callable[[Any, Tensor], Tensor],
    best: Choice,
    seconds: float,
    why: str,
) -> Choice:
    compiled = replace(best, compile=True)
    try:
        times = _alternate({compiled: _runner(model, images, targets, loss_of, compiled)})
    except Exception as error:  # whatever the compiler chokes on: the plain way still works
        return replace(best, why=f"{why}; torch.compile failed ({type(error).__name__})")
    took = times[compiled]
    if seconds < GAIN * took:
        return replace(best, why=f"{why}; torch.compile {took * 1e3:.1f} ms is no gain")
    return replace(compiled, why=f"{why}; torch.compile {took * 1e3:.1f} ms")
