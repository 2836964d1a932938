"""What a training step costs by the engine, against autograd: time and memory.

  autograd   PyTorch as it comes: loss.backward()
  torch      the engine's tape and walk with torch's kernels
  math       the engine's readable formulas, as `hubel train --engine explicit` runs them

The same net, batch and loss; no optimiser. Contenders take turns; medians, and ratios round by
round. Memory is what is kept for the way back, parameters and inputs aside.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import common
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hubel
from hubel.engine.backprop import backpropagate
from hubel.engine.tape import Kernels, Tape

CASES = {
    "resnet20": (32, 3, 32),
    "lenet5": (64, 1, 28),
    "compact": (64, 1, 28),
}  # name: batch, channels, side


def main(argv: Sequence[str] | None = None) -> None:
    """Time every case, print, write."""
    words = _words(argv)
    found = {}
    rows = []
    for name in words.cases:
        batch, channels, side = CASES[name]
        found[name] = measure(name, batch, channels, side, words.rounds)
        times = found[name]["milliseconds"]
        ratios = found[name]["ratios"]
        rows.append(
            (
                f"{name}, batch {batch}", f"{times['autograd']['median']:.1f}",
                common.shown(ratios["torch"], ".2f"), common.shown(ratios["math"], ".2f"),
                f"{found[name]['kept_mib']['autograd']:.1f}",
                f"{found[name]['kept_mib']['torch']:.1f}", f"{found[name]['kept_mib']['math']:.1f}",
            )
        )  # fmt: skip
    heads = ("net", "autograd, ms", "torch kernels", "formulas", "MiB", "MiB", "MiB")
    common.table("one step, forward and backward, against autograd", heads, rows)
    common.write(words.results, "explicit", found)


def measure(name: str, batch: int, channels: int, side: int, rounds: int) -> dict[str, object]:
    """Milliseconds and kept MiB of each way, on random images."""
    torch.manual_seed(0)
    net = hubel.build(name, classes=10, channels=channels, size=(side, side)).train()
    images, labels = torch.randn(batch, channels, side, side), torch.randint(0, 10, (batch,))
    ways = {
        "autograd": lambda: by_autograd(net, images, labels),
        "torch": lambda: by_engine(net, images, labels, "torch"),
        "math": lambda: by_engine(net, images, labels, "math"),
    }
    for way in (*ways.values(), *ways.values()):
        way()  # to warm up
    times = common.in_turns({name: timed(way) for name, way in ways.items()}, rounds)
    ratios = {way: common.ratio(times[way], times["autograd"]) for way in ("torch", "math")}
    kept = {way: kept_by_engine(net, images, labels, way) for way in ("torch", "math")}
    kept["autograd"] = kept_by_autograd(net, images, labels)
    return {
        "milliseconds": {way: common.summary(t * 1e3 for t in ts) for way, ts in times.items()},
        "ratios": ratios,
        "kept_mib": {way: n / 2**20 for way, n in kept.items()},
    }


def timed(way: Callable[[], None]) -> Callable[[], float]:
    """The way, as something that returns its seconds."""

    def run() -> float:
        start = time.perf_counter()
        way()
        return time.perf_counter() - start

    return run


def by_autograd(net: nn.Module, images: Tensor, labels: Tensor) -> None:
    """One step's gradients as everybody takes them."""
    net.zero_grad(set_to_none=True)
    F.cross_entropy(net(images), labels).backward()


def by_engine(net: nn.Module, images: Tensor, labels: Tensor, kernels: Kernels) -> None:
    """The same gradients from the tape."""
    with Tape(net, kernels=kernels) as tape:
        loss = F.cross_entropy(net(images), labels)
    backpropagate(tape, loss, free=True)


def kept_by_engine(net: nn.Module, images: Tensor, labels: Tensor, kernels: Kernels) -> int:
    """Bytes that the tape keeps for the way back."""
    with Tape(net, kernels=kernels) as tape:
        F.cross_entropy(net(images), labels)
    return tape.saved_bytes()


def kept_by_autograd(net: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Bytes that autograd keeps, parameters and inputs aside."""
    outside = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers(), images)}
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in outside:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        loss = F.cross_entropy(net(images), labels)
    del loss
    return sum(sizes.values())


def _words(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=15)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
