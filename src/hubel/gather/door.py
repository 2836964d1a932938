"""`judge` and `gather`: a net against one part of the data, whatever its task."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, cast

from torch import Tensor, nn

from hubel.runs.report.evidence import Evidence
from hubel.session import Setting
from hubel.training.evaluate import evaluate
from hubel.training.speed import Choice


class Ways(Protocol):
    """One task's way to keep what a net said, and to make evidence of it."""

    def Judged(self) -> Any:
        """What is called with (rows, targets, probabilities) of every batch."""

    def gather(
        self, setting: Setting, model: nn.Module, part: str, tally: Any, said: Any
    ) -> Evidence:
        """What the report draws."""


WAYS = {"classify": "hubel.gather.labels", "segment": "hubel.gather.masks"}


def judge(
    setting: Setting, model: nn.Module, part: str, choice: Choice, most: int | None = None
) -> tuple[Any, Any] | None:
    """The tally of a part and what was said of each image; None where the part is empty, or
    nothing of it can be read."""
    feed = setting.judge(part, most)
    if feed is None:
        return None
    said, seen = _ways(setting).Judged(), 0

    def each(rows: Tensor, targets: Tensor, probabilities: Tensor) -> None:
        nonlocal seen
        seen += len(rows)
        said(rows, targets, probabilities)

    tally = evaluate(model, setting.task, feed, setting.crew, choice, each)
    return (tally, said) if seen else None


def gather(setting: Setting, model: nn.Module, part: str, tally: Any, said: Any) -> Evidence:
    """Everything the report draws, about `part`. The model is left as it was."""
    return _ways(setting).gather(setting, model, part, tally, said)


def _ways(setting: Setting) -> Ways:
    return cast(Ways, import_module(WAYS[setting.card.task]))
