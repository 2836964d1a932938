"""The same command twice gives the same bits: the switches that this takes, on and off again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

_memory: Any = torch.utils.deterministic  # a class in a module's place: type checkers are lost


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """Deterministic kernels while it lasts; the caller's switches and random state afterwards.

    Kernels that have no deterministic form (a few CUDA ones) warn rather than stop.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    before = (
        torch.get_deterministic_debug_mode(),
        torch.backends.cudnn.benchmark,
        _memory.fill_uninitialized_memory,
    )
    torch.set_deterministic_debug_mode("warn")  # its elder sister imports a compiler: 1.3 s
    torch.backends.cudnn.benchmark = False
    _memory.fill_uninitialized_memory = False  # slow, and no kernel of ours reads such memory
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_deterministic_debug_mode(before[0])
        torch.backends.cudnn.benchmark = before[1]
        _memory.fill_uninitialized_memory = before[2]
