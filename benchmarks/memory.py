"""Peak memory of training on a folder too large to live in memory.

Makes a folder of 100,000 JPEG files from Fashion-MNIST's 70,000 real images: each is scaled to
96x96, given two colours, shifted, and from the 70,001st on mirrored. Every file has a content of
its own and nothing is linked, so hubel's search for copies has its full work. Then `hubel train`
runs on it for one epoch as a process of its own, streaming at 64x64 pixels (1.2 GB as bytes, past
the 1 GiB that hubel keeps in memory), from the data check to the report. Twice a second the
memory of the process and all its workers is added up, in two ways:

  PSS  pages shared by several processes are split among them: what the machine really gives
  RSS  every process counts all its pages: shared ones count several times

Goal: within 1.5 GB. A small trial that streams too, because its pixels are many:
  memory.py --count 1000 --size 610 --model softmax --batch 4
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import psutil
from PIL import Image, ImageOps

from hubel.data.record import ArraySource
from hubel.data.store import MEMORY_LIMIT

SIDE = 96
PAUSE = 0.5  # seconds between two looks


def main(argv: Sequence[str] | None = None) -> None:
    """Make the folder where it is missing, train, print and write the peaks."""
    words = _words(argv)
    if 3 * words.size**2 * words.count <= MEMORY_LIMIT:
        raise SystemExit(
            f"{words.count:,} images at size {words.size} fit in memory: nothing to see"
        )
    folder = words.folder or common.cache() / f"photos-{words.count}"
    _make(folder, words.count)
    found = _train(folder, words)
    rows = [
        (name, f"{found[name]['peak'] / 1e9:.2f}", f"{found[name]['median'] / 1e9:.2f}")
        for name in ("pss", "rss")
    ]
    title = f"{words.count:,} images, {words.model} at {words.size} px, batch {words.batch}"
    common.table(title, ("memory, GB", "peak (goal: 1.5)", "median"), rows)
    print(f"{found['images_per_second']:,.0f} images/s, {found['steps']} steps")
    common.write(words.results, "memory", found)


def _words(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="images")
    parser.add_argument("--size", type=int, default=64, help="pixels a side that the net is fed")
    parser.add_argument("--model", default="compact")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--folder", type=Path, help="where the images are, or are made")
    return parser.parse_args(argv)


def _make(folder: Path, count: int) -> None:
    """count JPEG files in folder/CLASS/. A folder that is whole is taken as it is."""
    done = folder.with_name(f"{folder.name}.done")
    if done.exists():
        if int(done.read_text()) != count:
            raise SystemExit(f"{folder} holds {done.read_text()} images: give another --folder")
        return
    data = common.fashion_mnist()
    for name in range(len(data.classes)):
        (folder / f"class-{name}").mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow scales and encodes without the GIL
        list(pool.map(partial(_draw, data, folder), range(count)))
    done.write_text(str(count))


def _draw(data: ArraySource, folder: Path, number: int) -> None:
    """Image `number`: a real one, in colours and at a place that its number decides."""
    row, again = number % len(data), number // len(data)
    draw = np.random.default_rng(number)
    dark, light = (tuple(draw.integers(low, low + 100, 3).tolist()) for low in (0, 156))
    grey = Image.fromarray(data.images[row, 0]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    across, down = draw.integers(-6, 7, 2).tolist()
    picture = ImageOps.colorize(grey, dark, light).transform(
        grey.size, Image.Transform.AFFINE, (1, 0, across, 0, 1, down), fillcolor=dark
    )
    picture = ImageOps.mirror(picture) if again % 2 else picture
    picture.save(folder / f"class-{data.targets[row]}" / f"{number:06d}.jpg", quality=85)


def _train(folder: Path, words: argparse.Namespace) -> dict[str, Any]:
    """`hubel train` on the folder, watched."""
    flags = {"--model": words.model, "--size": words.size, "--batch": words.batch, "--epochs": 1}
    given = [str(word) for pair in flags.items() for word in pair]
    with tempfile.TemporaryDirectory() as out:
        process = psutil.Popen(
            [sys.executable, "-m", "hubel", "train", str(folder.resolve()), *given, "--json"],
            stdout=subprocess.PIPE,
            cwd=out,
        )
        seen = _watch(process)
        answer = json.loads(process.communicate()[0] or "{}")
        if process.returncode:
            raise SystemExit(f"hubel train ended with {process.returncode}")
        log = (Path(out) / answer["run"] / "metrics.jsonl").read_text()
    return {
        "words": given,
        "count": words.count,
        "images_per_second": answer["images_per_second"],
        "seconds": answer["seconds"],
        "steps": max(json.loads(line).get("step", 0) for line in log.splitlines()),
        "choices": answer["choices"],
        "processes": max(one["processes"] for one in seen),
        "looks": len(seen),
        "folder_bytes": sum(entry.stat().st_size for entry in folder.rglob("*.jpg")),
        **{name: _over_time(seen, name) for name in ("pss", "rss")},
    }


def _watch(process: psutil.Popen) -> list[dict[str, Any]]:
    """What the process and its children hold, until it ends."""
    seen, began = [], time.monotonic()
    try:
        while process.poll() is None:
            seen.append(footprint(process) | {"second": round(time.monotonic() - began, 1)})
            time.sleep(PAUSE)
    finally:
        if process.is_running():
            process.terminate()
    return seen


def footprint(process: psutil.Process) -> dict[str, Any]:
    """Bytes held by a process and all below it: {"pss", "rss"}, and how many processes."""
    found = {"pss": 0, "rss": 0, "processes": 0}
    for each in [process, *process.children(recursive=True)]:
        try:
            memory = each.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        found["rss"] += memory.rss
        found["pss"] += getattr(memory, "pss", memory.rss)  # only Linux knows PSS
        found["processes"] += 1
    return found


def _over_time(seen: list[dict[str, Any]], name: str) -> dict[str, float]:
    values = [one[name] for one in seen]
    at = max(range(len(seen)), key=values.__getitem__)
    return {
        "peak": values[at],
        "peak_second": seen[at]["second"],
        "median": float(np.median(values)),
    }


if __name__ == "__main__":
    main()
