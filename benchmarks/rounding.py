"""What Winograd's form costs in precision: by its points, and in the gradients of a deep net.

Points: patches of random numbers, 32 channels, all but the transform of the weights in float32,
against float64; root mean squares over that of the plain float32 sum. Gradients: resnet20 with tanh
for ReLU, so that no mask hangs on rounding, random images; the worst parameter's largest deviation
from float64, over its own largest gradient, for PyTorch, for the plain kernels, and for patches of
2 and of 4 on the way forward (4 back).
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import common
import numpy as np
import torch
from contenders.step_nets import CASES, build
from torch import Tensor, nn

from hubel.engine.native.kernels.winograd import POINTS, toom_cook
from hubel.engine.native.lower import winograd
from hubel.engine.native.machine import this_machine
from hubel.engine.native.plan import Aim
from hubel.engine.native.step import compile_step

USUAL = tuple(map(Fraction, (0, 1, -1, 2, -2)))
FORMS = {
    "patches of 2, kernel 3": (POINTS[4], 2, 3),
    "patches of 4, kernel 3": (POINTS[6], 4, 3),
    "the same with 0, 1, -1, 2, -2": (USUAL, 4, 3),
    "patches of 2, kernel 5": (POINTS[6], 2, 5),
    "the same with the usual points": (USUAL, 2, 5),
}
WAYS = {"plain": (0.0, 2), "patches of 2": (winograd.GAIN, 2), "patches of 4": (winograd.GAIN, 4)}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    words = _words(argv)
    found: dict[str, Any] = {
        "points": {
            name: common.summary(lost(*form, seed) for seed in range(words.seeds))
            for name, form in FORMS.items()
        }
    }
    rows = [(name, common.shown(of, ".2f")) for name, of in found["points"].items()]
    common.table("rounding, over that of the plain sum", ("", "root mean square"), rows)
    off = [gradients(seed, words.batch) for seed in range(words.seeds)]
    found["gradients"] = {who: common.summary(one[who] for one in off) for who in off[0]}
    rows = [(who, common.shown(of, ".1e")) for who, of in found["gradients"].items()]
    common.table("resnet20 with tanh: worst gradient", ("", "off by"), rows)
    common.write(words.results, "rounding", found)


def _words(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=48, help="images for the gradients")
    return parser.parse_args(argv)


def lost(points: tuple[Fraction, ...], patch: int, kernel: int, seed: int) -> float:
    """Rounding of one form, over the plain sum's: 384 patches for each of 16 channels."""
    inputs, weights, outputs = map(np.array, toom_cook(points, patch, kernel))
    chance, n = np.random.default_rng(seed), patch + kernel - 1
    x = chance.standard_normal((32, 24, n, n)).astype(np.float32)
    w = chance.standard_normal((16, 32, kernel, kernel)).astype(np.float32)
    plain = np.zeros((16, 24, patch, patch), np.float32)
    exact = plain.astype(np.float64)
    for c, i, j in np.ndindex(32, kernel, kernel):
        here = x[c, :, i : i + patch, j : j + patch]
        plain += w[:, c, i, j][:, None, None, None] * here
        exact += w[:, c, i, j][:, None, None, None].astype(np.float64) * here
    u = np.einsum("ai,ocij,bj->ocab", weights, w, weights).astype(np.float32)
    b, a = inputs.astype(np.float32), outputs.astype(np.float32)
    v = b @ x @ b.T
    sums = np.zeros((16, 24, n, n), np.float32)
    for c in range(32):
        sums += u[:, c][:, None] * v[c]
    apart = [np.square(y - exact).mean() ** 0.5 for y in (a @ sums @ a.T, plain)]
    return float(apart[0] / apart[1])


def gradients(seed: int, batch: int) -> dict[str, float]:
    """How far the worst parameter's gradient is off, for PyTorch and for each way."""
    net = _smooth(build(CASES["resnet20, batch 128"], seed)).train()
    chance = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, 3, 32, 32, generator=chance)
    labels = torch.randint(0, 10, (batch,), generator=chance)
    exact = _gradients(net, images.double(), labels)
    found = {"PyTorch, float32": _worst(_gradients(net, images, labels), exact)}
    gain, forward = winograd.GAIN, winograd.FORWARD
    for name, (winograd.GAIN, winograd.FORWARD) in WAYS.items():
        step = compile_step(copy.deepcopy(net), images, aim=Aim(True), machine=this_machine())
        step.run(images, labels)
        found[f"{name}, forward" if name != "plain" else name] = _worst(step.gradients, exact)
    winograd.GAIN, winograd.FORWARD = gain, forward
    return found


def _smooth(net: nn.Module) -> nn.Module:
    for name, child in net.named_children():
        setattr(net, name, nn.Tanh() if isinstance(child, nn.ReLU) else _smooth(child))
    return net


def _gradients(net: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    mine = copy.deepcopy(net).to(images.dtype)
    torch.nn.functional.cross_entropy(mine(images), labels).backward()  # type: ignore[no-untyped-call]
    return {name: p.grad for name, p in mine.named_parameters() if p.grad is not None}


def _worst(ours: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    return max(
        float((ours[name].double() - g).abs().max() / g.abs().max()) for name, g in exact.items()
    )


if __name__ == "__main__":
    main()
