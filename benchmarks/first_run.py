"""`hubel train` with no words, as on a machine where it never ran: wall time and accuracy.

From the start of the process to its end, report and all. Nothing is remembered from before: the
measured choice of precision and layout, Matplotlib's list of fonts and compiled nets all start
anew in every repetition. Goal: under 90 s on 2 cores, at least 87 % on the sample's test part.

For a smaller trial, give words after `--`: first_run.py --repeats 1 -- --epochs 1
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
from typing import Any

import common

CACHES = ("HUBEL_CACHE", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command several times; print and write how long it took and what it reached."""
    words = _words(argv)
    runs = [_run(words.words) for _ in range(words.repeats)]
    wall = common.summary(run["wall_seconds"] for run in runs)
    accuracy = common.summary(run["metrics"]["test"]["accuracy"] for run in runs)
    rows = [
        ("wall seconds", common.shown(wall, ".1f"), "< 90"),
        ("test accuracy", common.shown(accuracy, ".2%"), ">= 87 %"),
    ]
    title = " ".join(["hubel train", *words.words])
    common.table(title, ("", f"median (range) of {words.repeats}", "goal"), rows)
    found = {"words": words.words, "wall_seconds": wall, "accuracy": accuracy, "runs": runs}
    common.write(words.results, "first_run", found)


def _words(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("words", nargs="*", help="for a trial: words for `hubel train`, after --")
    return parser.parse_args(argv)


def _run(words: Sequence[str]) -> dict[str, Any]:
    """One run in a folder of its own. Its JSON, and the seconds seen from outside."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = os.environ | {name: f"{folder}/{name.lower()}" for name in CACHES}
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "hubel", "train", *words, "--json"],
            cwd=folder,
            env=fresh,
            stdout=subprocess.PIPE,
            check=True,
        )
        seconds = time.perf_counter() - began
    answer = json.loads(done.stdout)
    kept = ("seconds", "images_per_second", "metrics", "choices")
    return {"wall_seconds": seconds} | {name: answer[name] for name in kept}


if __name__ == "__main__":
    main()
