"""`Finding`: one plain sentence about a run, and what several rules need to judge it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hubel.runs.report.folder import RunFiles
from hubel.runs.report.measures import Z95
from hubel.runs.report.words import points

Tone = Literal["good", "note", "warn"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know: its `tone`, a short `title`, and a sentence or two of `text`."""

    tone: Tone
    title: str
    text: str


Rule = Callable[[RunFiles], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Fit:
    """Training against validation.

    Attributes:
        train, val: one score of both, 0..1.
        shown: both in words, without the full stop.
        less: what `val` is, by so many points.
        bearable: a gap up to this is no news.
        enough: a training score above this leaves no room to speak of.
    """

    train: float
    val: float
    shown: str
    less: str
    bearable: float
    enough: float

    def verdict(self) -> Finding:
        """Memorising, room to learn, or hand in hand."""
        gap = self.train - self.val
        if gap > self.bearable:
            text = (
                f"{self.shown}, {points(gap)} {self.less}. More data, augmentation, weight decay "
                "or dropout would narrow the gap."
            )
            return Finding("warn", "It knows its training images too well (overfitting)", text)
        if self.train < self.enough and gap < self.bearable / 2:
            text = (
                f"{self.shown}. Nothing points to memorising, so a larger net, a longer "
                "training or gentler regularisation may still add to both."
            )
            return Finding("note", "It has room to learn more (no overfitting yet)", text)
        text = f"{self.shown}. What it learned carries over to images it never saw."
        return Finding("good", "Training and validation go hand in hand", text)


def noise(accuracy: float, total: int | None) -> float:
    """Half the 95 % interval of an accuracy measured on `total` images; 0 where unknown."""
    if not total or not np.isfinite(accuracy):
        return 0.0
    share = min(1.0, max(0.0, accuracy))
    return Z95 * float(np.sqrt(share * (1 - share) / total))
