"""How many processor cores this process may use, and how many PyTorch does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch


def cores() -> int:
    """At least 1; fewer than the machine has under `taskset`."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch's operators on one thread. Where they take several, the others go on looking for work
    for some milliseconds, and whoever needs their cores next has to share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
