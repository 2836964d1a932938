"""Flags into words of a plan: only what was given, each in its place."""

from __future__ import annotations

import re
from typing import Any

from hubel.errors import OptionError

# flag -> key in the plan's optimiser and schedule records
OPTIMISER = {
    "optimiser": "name",
    "lr": "lr",
    "momentum": "momentum",
    "momentum_form": "momentum_form",
    "beta2": "beta2",
    "eps": "eps",
    "mu": "mu",
    "weight_decay": "weight_decay",
    "decay": "decay",
    "decay_all": "decay_all",
}
SCHEDULE = {
    "schedule": "name",
    "warmup": "warmup",
    "milestones": "milestones",
    "factor": "factor",
    "wait": "wait",
    "final": "final",
    "rates": "rates",
}
MASKS = {
    "loss": "terms",
    "balance": "balance",
    "objects": "objects",
    "border": "border",
    "windows": "windows",
    "classes": "classes",
    "ignore": "ignore",
}
NOT_OF_THE_PLAN = {
    "source", "model", "out", "name", "steps", "seeds", "folds", "as_json", "quiet", "plan_words",
}  # fmt: skip


def plan_words(flags: dict[str, Any]) -> dict[str, Any]:
    """The given flags as keyword arguments of `api.train`. Raises `OptionError`."""
    given = {
        flag: value
        for flag, value in flags.items()
        if value is not None and flag not in NOT_OF_THE_PLAN
    }
    words: dict[str, Any] = {}
    optimiser = {key: given.pop(flag) for flag, key in OPTIMISER.items() if flag in given}
    schedule = {key: given.pop(flag) for flag, key in SCHEDULE.items() if flag in given}
    masks = {key: given.pop(flag) for flag, key in MASKS.items() if flag in given}
    if "terms" in masks:
        masks["terms"] = tuple(word.strip() for word in masks["terms"].split(","))
    for key in ("milestones", "rates"):
        if key in schedule:
            schedule[key] = _numbers(key, schedule[key])
    if "augment" in given:
        from hubel.data.augment import Augment

        given["augment"] = Augment.parse(given["augment"])
    if "options" in given:
        given["options"] = _options(given["options"])
    if "size" in given:
        given["size"] = size_of(given["size"])
    if "fold" in given:
        given["fold"] = _fold(given["fold"])
    if optimiser:
        words["optimiser"] = optimiser
    if schedule:
        words["schedule"] = schedule
    if masks:
        words["masks"] = masks
    return words | given


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise OptionError(f"--{flag} takes numbers like 0.5,0.75, given {text!r}") from None


def _options(text: str) -> dict[str, Any]:
    """{"width": 16, "norm": False} of "width=16,norm=false"."""
    found: dict[str, Any] = {}
    for word in text.split(","):
        name, equals, value = (piece.strip() for piece in word.partition("="))
        if not (name and equals and value) or name in found:
            raise OptionError(f"--options takes words like width=16,norm=false, given {text!r}")
        found[name] = _value(value)
    return found


def _value(text: str) -> bool | int | float | str:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _fold(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found:
        raise OptionError(f"--fold takes one fold of several, as 1/5, given {text!r}")
    return int(found[1]), int(found[2])


def size_of(text: str) -> tuple[int, int]:
    """(H, W) of "64" or "48x64". Raises `OptionError`."""
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not found or not int(found[1]) or found[2] == "0":
        raise OptionError(f"--size takes pixels like 64 or 48x64 (height x width), given {text!r}")
    return int(found[1]), int(found[2] or found[1])
