"""How long one waits before anything happens: the command's help, and the imports.

`import hubel` brings names in when they are first used, so the import of everything that training
needs (`import hubel; hubel.train`) is measured too. Goals: `hubel --help` under 0.3 s; either
import of hubel at most 1.5 s more than `import torch`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import common

PYTHON = [sys.executable, "-c"]
COMMAND = shutil.which("hubel", path=sysconfig.get_path("scripts"))
CONTENDERS = {
    "python, nothing": [*PYTHON, "pass"],
    "import torch": [*PYTHON, "import torch"],
    "hubel --help": [*([COMMAND] if COMMAND else [sys.executable, "-m", "hubel"]), "--help"],
    "import hubel": [*PYTHON, "import hubel"],
    "import hubel; hubel.train": [*PYTHON, "import hubel; hubel.train"],
}


def main(argv: Sequence[str] | None = None) -> None:
    """Start every process in turns; print and write the seconds."""
    words = _words(argv)
    runs = {name: partial(_seconds, started) for name, started in CONTENDERS.items()}
    common.in_turns(runs, 1)  # files come from the disk once
    seconds = common.in_turns(runs, words.rounds)
    found = {name: common.summary(values) for name, values in seconds.items()}
    beyond = {
        name: common.summary(
            a - b for a, b in zip(seconds[name], seconds["import torch"], strict=True)
        )
        for name in ("import hubel", "import hubel; hubel.train")
    }
    rows = [(name, common.shown(f, ".2f"), _beyond(beyond, name)) for name, f in found.items()]
    columns = ("", f"seconds: median (range) of {words.rounds}", "more than import torch")
    common.table("startup", columns, rows)
    report = {"seconds": found, "seconds_beyond_torch": beyond, "as_script": bool(COMMAND)}
    common.write(words.results, "startup", report)


def _words(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    return parser.parse_args(argv)


def _beyond(beyond: dict[str, Any], name: str) -> str:
    return common.shown(beyond[name], "+.2f") if name in beyond else ""


def _seconds(started: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(started, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
