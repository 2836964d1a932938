"""What does every named net cost? A training step of two images, against its multiply-adds.

Every net runs in a process of its own at the size and the number of classes it was made for:
forward, loss, backward, on two images, float32, one step to warm up and then the median of several.
Memory is the highest resident size of the process above what it had before the net was built:
weights, gradients, everything kept for the way back, and the kernels' own room.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import torch

from hubel import api
from hubel.models.names import build
from hubel.models.table import MODELS
from hubel.tasks.classify import Classify

IMAGES = 2


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every net, or one for the parent process."""
    words = _words(argv)
    if words.one:
        print(json.dumps(_measure(words.one, words.steps)))
        return
    costs = {row["name"]: row for row in api.list_models()}
    names = words.names or sorted(MODELS, key=lambda name: costs[name]["macs"])
    found = []
    for name in names:
        call = [sys.executable, __file__, "--one", name, "--steps", str(words.steps)]
        done = subprocess.run(call, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        macs = 3 * IMAGES * costs[name]["macs"]  # the two gradients cost a forward pass each
        row |= {
            "name": name,
            "parameters": costs[name]["parameters"],
            "macs": costs[name]["macs"],
            "gmacs_per_second": macs / row["seconds"]["median"] / 1e9,
        }
        found.append(row)
        print(f"{name}: {row['seconds']['median'] * 1e3:,.0f} ms, {row['mebibytes']:,.0f} MiB")
    _table(found)
    common.write(words.results, "zoo", {"images": IMAGES, "nets": found})


def _table(found: list[dict[str, Any]]) -> None:
    rows = [
        (
            row["name"],
            f"{row['parameters']:,}",
            f"{row['macs'] / 1e6:,.1f}",
            common.shown(common.summary(1e3 * s for s in row["seconds"]["raw"])),
            f"{row['gmacs_per_second']:.1f}",
            f"{row['mebibytes']:,.0f}",
        )
        for row in found
    ]
    columns = ("net", "parameters", "MMACs an image", "ms a step", "GMAC/s", "MiB")
    common.table(f"a training step of {IMAGES} images", columns, rows)


def _measure(name: str, steps: int) -> dict[str, Any]:
    """Seconds of steps and the highest memory of this process above what it began with."""
    entry = MODELS[name]
    Path("/proc/self/clear_refs").write_text("5")  # the highest size counts from here on
    before = _mebibytes("VmRSS")
    torch.manual_seed(0)
    net = build(name, classes=entry.classes, channels=entry.usual[0], size=entry.usual[1:])
    task = Classify(tuple(map(str, range(entry.classes))))
    images = torch.randn(IMAGES, *entry.usual)
    targets = torch.arange(IMAGES)
    seconds = []
    for _ in range(steps + 1):
        net.zero_grad()
        began = time.perf_counter()
        task.total(net(images), targets).backward()
        seconds.append(time.perf_counter() - began)
    return {"seconds": common.summary(seconds[1:]), "mebibytes": _mebibytes("VmHWM") - before}


def _mebibytes(field: str) -> float:
    """Resident memory of this process by Linux's account: VmRSS now, VmHWM at its highest."""
    with Path("/proc/self/status").open() as status:
        line = next(line for line in status if line.startswith(field))
    return int(line.split()[1]) / 1024


def _words(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("names", nargs="*", help="nets; default: all, cheapest first")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each net")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
