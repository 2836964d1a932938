"""`Finding` and `Findings`: what a check of a data set says, ready to print, store or show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
MOST_NAMED = 1_000  # lines under one finding


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing.

    Attributes:
        level: "error": an image or a class that cannot be used as it is; "warning": scores or
            training may mislead; "note": good to know.
        code: which check found it: broken, no-training, absent, small, imbalance, labels, leak,
            near-leak, copies, near-copies, flat, sizes, channels; of masks also rare, unlabelled.
        text: one plain sentence, without its full stop.
        rows: the images meant, at most 1,000.
        names: one line per case, such as "train/00012 = test/00345"; at most 1,000.
    """

    level: Level
    code: str
    text: str
    rows: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def listing(
        cls, level: Level, code: str, text: str, rows: Iterable[int], names: Iterable[str]
    ) -> Finding:
        """A finding with its lists cut to 1,000."""
        return cls(level, code, text, tuple(rows)[:MOST_NAMED], tuple(names)[:MOST_NAMED])


@dataclass(frozen=True)
class Findings:
    """All findings of one check, the gravest first, and the tables behind them.

    Attributes:
        findings: empty where nothing was found.
        full: whether every image was decoded.
        images: how many there are.
        broken: how many of them are known to be unreadable.
        classes: names, in the order of `counts`.
        counts: part ("train", "val", "test", or "all" before a split) -> images per class.
        sizes: "height" and "width" -> [smallest, median, largest] in pixels; "grey" and "rgb" ->
            images; "read" -> how many images these numbers come from. Empty where none was read.
    """

    findings: list[Finding]
    full: bool
    images: int
    broken: int
    classes: list[str]
    counts: dict[str, list[int]]
    sizes: dict[str, Any]

    def of(self, level: Level) -> list[Finding]:
        """The findings of one level."""
        return [finding for finding in self.findings if finding.level == level]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Findings:
        findings = [
            Finding(**{**one, "rows": tuple(one["rows"]), "names": tuple(one["names"])})
            for one in record["findings"]
        ]
        return cls(**{**record, "findings": findings})


def say(number: int, one: str, many: str) -> str:
    """ "1 image is flat" or "1,200 images are flat", from the two ways to go on."""
    return f"{number:,} {one if number == 1 else many}"
