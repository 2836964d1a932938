"""Which of its scores stands for a run, whatever its task: one place for tables and pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADLINES = {"miou": "mean IoU", "accuracy": "accuracy"}  # a record's first; higher is better


def headline(scores: Mapping[str, Any]) -> str:
    """The key of the score to compare by; "accuracy" where a record holds none."""
    return next((key for key in HEADLINES if key in scores), "accuracy")


def headline_score(scores: Mapping[str, Any] | None) -> float | None:
    """That score; None where it was not measured."""
    return (scores or {}).get(headline(scores or {}))
