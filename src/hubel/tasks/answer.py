"""What a net returned, read alike by all tasks: its logits, in enough digits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hubel.errors import ModelError


def logits_of(outputs: Any, axes: int, wanted: str) -> Tensor:
    """The logits in what a model returned: a tensor of so many axes, (N, K, ...), or a dict's
    "logits".

    Raises `ModelError` for anything else, saying what was `wanted`.
    """
    found = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    if isinstance(found, Tensor) and found.ndim == axes:
        return found
    given = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else _named(outputs)
    raise ModelError(f'{wanted}, or a dict with them under "logits"; it returned {given}')


def wide(z: Tensor) -> Tensor:
    """In float32 at least, whatever precision the net ran in (any shape); float64 stays."""
    return z if z.dtype == torch.float64 else z.float()


def _named(outputs: Any) -> str:
    if isinstance(outputs, Mapping):
        return f"a dict with {', '.join(map(repr, outputs)) or 'nothing'}"
    return f"a {type(outputs).__name__}"
