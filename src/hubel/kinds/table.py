"""The one table of tasks: a row a task. A new task is one file here and one row."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from hubel.errors import OptionError, unknown
from hubel.kinds.kind import Kind
from hubel.models.table import MODELS

USUAL = {"classify": "compact", "segment": "unet_padded"}  # the net where none is named
KINDS = {"classify": "hubel.kinds.classify", "segment": "hubel.kinds.segment"}


def kind_of(task: str) -> Kind:
    """The ways of a task, by its name. Raises `OptionError`."""
    if task not in KINDS:
        raise OptionError(unknown("task", task, KINDS))
    return cast(Kind, import_module(KINDS[task]))  # SciPy and its like wait until they are needed


def usual_model(task: str | None) -> str:
    """The net for a task where none is named. Raises `OptionError` for an unknown task."""
    kind_of(task or "classify")
    return USUAL[task or "classify"]


def task_of(model: str, asked: str | None) -> str:
    """The task that a named model is for: the one asked for, or else its own.

    Raises `OptionError` where both are known and differ.
    """
    own = MODELS[model].task if model in MODELS else None
    if asked is not None and own is not None and asked != own:
        others = ", ".join(name for name, entry in MODELS.items() if entry.task == asked)
        raise OptionError(f"{model} is a net to {own} with; to {asked} there are: {others}")
    return asked or own or "classify"
