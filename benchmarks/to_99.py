"""How long from the start of `hubel train mnist --model lenet5` to 99 % on the test images?

Whole trainings by hubel's own recipe, each a process of its own, from the call to the finished
report: by the native step, and by PyTorch in the way that hubel finds fastest. The passes over the
training images grow until the mean test accuracy of the seeds is 99 %.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common

ENGINES = ("native", "torch")


def main(argv: Sequence[str] | None = None) -> None:
    """Train with more and more epochs, print, write."""
    words = _words(argv)
    found: dict[str, Any] = {}
    for epochs in words.epochs:
        runs = {e: [_run(words.mnist, e, epochs, seed) for seed in words.seeds] for e in ENGINES}
        found[str(epochs)] = {
            engine: {
                "accuracy": common.summary(r["accuracy"] for r in of),
                "seconds": common.summary(r["seconds"] for r in of),
                "images_per_second": common.summary(r["pace"] for r in of),
            }
            for engine, of in runs.items()
        }
        if found[str(epochs)]["native"]["accuracy"]["mean"] >= 0.99:
            break
    rows = [
        (f"{epochs} epochs, {engine}", f"{of['accuracy']['mean']:.2%}",
         common.shown(of["seconds"], ".1f"), common.shown(of["images_per_second"]))
        for epochs, engines in found.items()
        for engine, of in engines.items()
    ]  # fmt: skip
    heads = ("", "mean test accuracy", "seconds: median (range)", "training images/s")
    common.table("lenet5 on MNIST", heads, rows)
    common.write(words.results, "to_99", {"epochs": found}, packages=("llvmlite",))


def _words(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--mnist", default="mnist", help="folder with the four IDX files")
    parser.add_argument("--epochs", nargs="+", type=int, default=[2, 3, 4, 6, 8, 12])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    return parser.parse_args(argv)


def _run(data: str, engine: str, epochs: int, seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "hubel", "train", data, "--model", "lenet5", "--engine", engine,
            "--epochs", str(epochs), "--seed", str(seed), "--out", folder, "--json",
        ]  # fmt: skip
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        run = Path(json.loads(done.stdout.splitlines()[-1])["run"])
        results = json.loads((run / "results.json").read_text())
    print(f"{engine}, {epochs} epochs, seed {seed}: {seconds:.1f} s", file=sys.stderr)
    return {
        "seconds": seconds,
        "accuracy": results["metrics"]["test"]["accuracy"],
        "pace": results["images_per_second"],
    }


if __name__ == "__main__":
    main()
