"""Manifests: a CSV or TSV file with the columns path, label and, if wanted, split."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from hubel.data.files import FileSource
from hubel.data.folder import PART_WORDS
from hubel.data.labels import check_classes, from_words
from hubel.errors import DataError, unknown

HEADER = "path,label or path,label,split"


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    path: str
    label: str
    part: str


def read_manifest(path: Path, name: str | None = None) -> FileSource:
    """The images that a CSV or TSV file lists; further columns are ignored.

    Columns are separated by commas, semicolons or tabs. Paths are relative to the manifest's
    folder. A split is train, val (valid, validation), test, or empty for "not assigned".

    Raises:
        DataError: no such file, not UTF-8, no header; and, with its line number, a row without
            path or label, a missing image, an unknown split, an image listed twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_rows(file, path))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; allowed: CSV or TSV in UTF-8") from None
    if not rows:
        raise DataError(f"{path} lists no images")
    _check_paths(rows, path)
    classes, targets = from_words([row.label for row in rows])
    check_classes(classes, str(path))
    return FileSource(
        path.parent,
        [row.path for row in rows],
        targets,
        classes,
        name=name or path.stem,
        origin=str(path),
        parts=np.array([row.part for row in rows], dtype="U5"),
    )


def _rows(file: TextIO, path: Path) -> Iterator[_Row]:
    header = file.readline()
    delimiter = max("\t,;", key=header.count)
    names = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
    for column in ("path", "label"):
        if column not in names:
            given = header.strip() or "nothing"
            raise DataError(f"{path}: no column {column!r}; expected: {HEADER}; given: {given}")
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    try:
        for fields in reader:
            if fields:
                line = reader.line_num + 1  # the header is line 1
                yield _row(names, fields, line, f"{path}, line {line}")
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num + 1}: not CSV ({error})") from None


def _row(names: list[str], fields: list[str], line: int, where: str) -> _Row:
    if len(fields) > len(names):
        raise DataError(
            f"{where}: {len(fields)} fields, the header names {len(names)} "
            "(a field with a separator in it needs quotes)"
        )
    values = dict(zip(names, (field.strip() for field in fields), strict=False))
    for column in ("path", "label"):
        if not values.get(column):
            raise DataError(f"{where}: no {column}; every row needs a path and a label")
    word = values.get("split", "")
    if word and word.lower() not in PART_WORDS:
        raise DataError(f"{where}: {unknown('split', word, PART_WORDS)}")
    return _Row(line, values["path"], values["label"], PART_WORDS.get(word.lower(), ""))


def _check_paths(rows: Iterable[_Row], manifest: Path) -> None:
    """Each image exists and is listed once."""
    lines: dict[str, int] = {}
    missing = []
    for row in rows:
        first = lines.setdefault(row.path, row.line)
        if first != row.line:
            raise DataError(f"{manifest}: {row.path} stands on lines {first} and {row.line}")
        if not (manifest.parent / row.path).is_file():
            missing.append(row)
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise DataError(
            f"{manifest}, line {missing[0].line}: no such file: {missing[0].path}{more}; "
            f"paths are relative to {manifest.parent}/"
        )
