"""Choices measured once are kept, so that the same command makes the same choice again."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn

from hubel.data.fetch import cache_folder
from hubel.errors import RunError
from hubel.runs.environment import environment
from hubel.runs.files import read_json, write_json
from hubel.training.speed import Choice


def signature(model: nn.Module, shape: tuple[int, ...], device: torch.device, asked: str) -> str:
    """What a choice depends on: machine, torch, model, batch shape, and what was asked for."""
    machine = environment()["machine"]
    parts = [(n, tuple(p.shape), p.requires_grad) for n, p in model.named_parameters()]
    text = json.dumps([machine, torch.__version__, str(model), parts, shape, str(device), asked])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def recall(key: str) -> Choice | None:
    """The remembered choice, or None. A damaged memory is an empty one."""
    record = _read().get(key)
    return Choice(**record) if record else None


def remember(key: str, choice: Choice) -> None:
    """Keep a choice. A cache that cannot be written costs speed next time, nothing else."""
    try:
        path = cache_folder() / "choices.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, _read() | {key: choice.to_json()})
    except (RunError, OSError):
        return


def _read() -> dict[str, Any]:
    try:
        record = read_json(cache_folder() / "choices.json")
    except RunError:
        return {}
    return record if isinstance(record, dict) else {}
