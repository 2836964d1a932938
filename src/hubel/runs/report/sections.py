"""The page's sections: each filled from the run, or with the reason why it cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hubel.runs.report.folder import RunFiles
from hubel.runs.report.outlines import LABELS, OUTLINES, Outline

UNFINISHED = "This was not measured: the run ended before its evaluation."
UNRECORDED = "This was not recorded for this run."


@dataclass(frozen=True, slots=True)
class Section:
    """One section as the template takes it; `absent` says in a line why `body` is None."""

    id: str
    nav: str
    title: str
    reading: str
    body: Any
    absent: str


def sections(files: RunFiles) -> list[Section]:
    """Every section of the run's task, filled or with the reason why not."""
    return [_filled(outline, files) for outline in OUTLINES.get(files.task, LABELS)]


def _filled(outline: Outline, files: RunFiles) -> Section:
    body = outline.fill(files)
    absent = "" if body is not None else _why(outline, files)
    return Section(outline.id, outline.nav, outline.title, outline.reading, body, absent)


def _why(outline: Outline, files: RunFiles) -> str:
    given = files.evidence.absent.get(outline.piece)
    if given:
        return f"Left out: {given.rstrip('.')}."
    confusion = files.evidence.confusion
    if outline.id == "mistakes" and confusion is not None and not _off_diagonal(confusion):
        return "There is none: every image was named right."
    if outline.id == "reading":
        return "The run holds too few numbers to say anything yet."
    return UNRECORDED if files.results or not outline.piece else UNFINISHED


def _off_diagonal(confusion: Any) -> int:
    return int(confusion.sum() - confusion.trace())
