"""`write_report`: a run folder in, one self-contained page out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hubel.runs.files import write_text
from hubel.runs.report import words
from hubel.runs.report.folder import RunFiles, read_run
from hubel.runs.report.origin import head
from hubel.runs.report.sections import sections

HERE = Path(__file__).parent


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run folder, from nothing but that folder; return its path.

    The page needs no other file and no network. What the folder does not hold is left out, with
    a line that says why. Raises `RunError` where the folder is no run or cannot be written.
    """
    folder = Path(run_folder)
    path = folder / "report.html"
    write_text(path, render(read_run(folder)))
    return path


def render(files: RunFiles) -> str:
    """The page as HTML."""
    return fill_in("template.html.j2", head=head(files), sections=sections(files))


def fill_in(name: str, **values: Any) -> str:
    """A template of this folder as HTML, with the house's style and its ways to write numbers."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,  # class names, paths and commands may hold anything
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=words.count,
        decimal=words.decimal,
        duration=words.duration,
        milliseconds=words.milliseconds,
        percent=words.percent,
        points=words.points,
        short=words.short,
    )
    style = Markup((HERE / "style.css").read_text(encoding="utf-8"))
    page = environment.get_template(name).render(style=style, **values)
    return page.strip() + "\n"  # the macros leave their line ends before the doctype
