"""Class lists: names, colours, and which pixels nobody judges, from the files people keep them in.

| file | a line or row |
|---|---|
| `classes.txt`, other text | in index order: `name`, `name r g b`, `name,r,g,b`, `r g b name` |
| `labelmap.txt` (CVAT) | `name:r,g,b::` |
| `classes.csv` | columns name, and of index, r, g, b what there is |
| `.json` | COCO's `categories`, or a list of names |

`#` begins a comment, a backslash before it makes it part of a name. A class called ignore, void or
unlabel(l)ed, or with `ignore` as its last word, is not learned: pixels of its index or its colour
are ignored.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hubel.data.labels import check_classes
from hubel.data.masks.palette import VOC_CLASSES, Colour, voc_palette
from hubel.data.masks.record import IGNORE, MOST_CLASSES
from hubel.errors import DataError

# Where lists stand beside the data, the first that is there wins: ours, CVAT, Kaggle's CamVid,
# Roboflow, labelme, fast.ai, CamVid's own.
FILES = (
    "classes.txt",
    "classes.csv",
    "labelmap.txt",
    "class_dict.csv",
    "_classes.csv",
    "class_names.txt",
    "codes.txt",
    "label_colors.txt",
)
LINE = "name, name r g b, name,r,g,b or name:r,g,b::"
IGNORED = frozenset(["ignore", "ignored", "void", "unlabeled", "unlabelled"])
COLUMNS = {
    "name": ("name", "class", "label"),
    "index": ("index", "id", "value", "pixel value"),
    "r": ("r", "red"),
    "g": ("g", "green"),
    "b": ("b", "blue"),
}
CVAT_LINE = re.compile(r"([^:]+):((?:\s*\d+\s*,){2}\s*\d+\s*)?:[^:]*:[^:]*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a class list.

    Attributes:
        name: the class.
        value: its pixels' value in masks that hold values.
        colour: its pixels' colour in coloured masks; None where the list has none.
        ignored: it is not learned, and its pixels are not judged.
    """

    name: str
    value: int
    colour: Colour | None = None
    ignored: bool = False


@dataclass(frozen=True)
class ClassList:
    """A class list, checked.

    Attributes:
        entries: in the file's order.
        origin: which file it is, for messages.
    """

    entries: tuple[Entry, ...]
    origin: str

    def __post_init__(self) -> None:
        check_classes([entry.name for entry in self.kept], self.origin)
        if len(self.kept) > MOST_CLASSES:
            raise DataError(
                f"{self.origin}: {len(self.kept)} classes; allowed: at most {MOST_CLASSES}"
            )
        values: dict[int, str] = {}
        for entry in self.entries:
            if not 0 <= entry.value <= IGNORE:
                raise DataError(
                    f"{self.origin}: class {entry.name!r} has index {entry.value}; allowed: 0..255"
                )
            other = values.setdefault(entry.value, entry.name)
            if other != entry.name:
                raise DataError(
                    f"{self.origin}: {other!r} and {entry.name!r} both have index {entry.value}"
                )

    @property
    def kept(self) -> tuple[Entry, ...]:
        """The classes that are learned, in order."""
        return tuple(entry for entry in self.entries if not entry.ignored)

    @property
    def coloured(self) -> bool:
        """Whether every class has a colour of its own."""
        return all(entry.colour is not None for entry in self.kept)

    def ignoring(self, value: int | None) -> ClassList:
        """The list without the class of this value, whose pixels are ignored; None changes
        nothing."""
        if value is None:
            return self
        marked = [replace(e, ignored=True) if e.value == value else e for e in self.entries]
        if all(entry.value != value for entry in self.entries):
            marked.append(Entry("ignore", value, None, ignored=True))
        return ClassList(tuple(marked), self.origin)


VOC = ClassList(
    (
        *(
            Entry(n, v, c)
            for v, (n, c) in enumerate(zip(VOC_CLASSES, voc_palette(21), strict=True))
        ),
        Entry("void", IGNORE, voc_palette()[IGNORE], ignored=True),
    ),
    "PASCAL VOC's classes",
)


def find_classes(folder: Path) -> ClassList | None:
    """The class list that lies in `folder` under one of the usual names, or None."""
    for name in FILES:
        if (folder / name).is_file():
            return read_classes(folder / name)
    return None


def read_classes(path: Path) -> ClassList:
    """The class list in a text, CSV or JSON file; see the head of this file.

    Raises:
        DataError: no such file, not UTF-8; a line, row or record that is none of the forms; a
            channel above 255; a name or an index that stands twice; fewer than 2 or more than 255
            classes.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; expected a class list: {LINE}") from None
    if path.suffix.lower() == ".json":
        return ClassList(tuple(_from_json(text, path)), str(path))
    if path.suffix.lower() == ".csv":
        return ClassList(tuple(_from_csv(text, path)), str(path))
    return ClassList(tuple(_from_lines(text, path)), str(path))


def is_ignored(name: str) -> bool:
    """Whether a class of this name is one that nobody judges."""
    words = name.casefold().strip("_ ").split()
    return bool(words) and (" ".join(words) in IGNORED or words[-1] == "ignore")


def _from_lines(text: str, path: Path) -> Iterator[Entry]:
    value = 0
    for number, line in enumerate(text.splitlines(), 1):
        bare = re.sub(r"(^|\s)#.*", "", line).strip()
        if not bare:
            continue
        name, colour = _line(bare.replace("\\#", "#"), f"{path}, line {number}")
        if name == "__ignore__" and not value:  # labelme counts it as -1, which is byte 255
            yield Entry(name, IGNORE, colour, ignored=True)
            continue
        yield _entry(name, value, colour)
        value += 1


def _entry(name: str, value: int, colour: Colour | None) -> Entry:
    return Entry(name, value, colour, is_ignored(name))


def _line(line: str, where: str) -> tuple[str, Colour | None]:
    """Name and colour."""
    cvat = CVAT_LINE.fullmatch(line)
    if cvat:
        return cvat[1].strip(), _colour(cvat[2].split(","), where) if cvat[2] else None
    separator = "," if "," in line else "\t" if "\t" in line.strip() else None
    words = [word.strip() for word in line.split(separator) if word.strip()]
    marked = words[-1:] == ["ignore"] and len(words) > 1
    words = words[:-1] if marked else words
    ending = " ignore" if marked else ""
    if len(words) > 3 and all(map(_is_number, words[-3:])):
        return " ".join(words[:-3]) + ending, _colour(words[-3:], where)
    if len(words) > 3 and all(map(_is_number, words[:3])):
        return " ".join(words[3:]) + ending, _colour(words[:3], where)
    spread = " ".join(words).split()  # "64 128 64<tab>Animal": two separators in one line
    if separator == "\t" and len(spread) > 3:
        return _line(" ".join(spread) + ending, where)
    if separator == "," and len(words) > 1:
        raise DataError(f"{where}: expected {LINE}, given {line!r}")
    return " ".join(words) + ending, None


def _is_number(word: str) -> bool:
    return word.isdecimal() and word.isascii()


def _colour(words: Iterable[Any], where: str) -> Colour:
    given = [str(word).strip() for word in words]
    if len(given) != 3 or not all(_is_number(w) and len(w) < 9 and int(w) < 256 for w in given):
        raise DataError(f"{where}: a colour is three numbers 0..255, given {' '.join(given)}")
    red, green, blue = map(int, given)
    return red, green, blue


def _from_csv(text: str, path: Path) -> Iterator[Entry]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise DataError(f"{path} is empty; expected a header with the column name, then classes")
    delimiter = max("\t,;", key=lines[0].count)
    header, *rows = csv.reader(lines, delimiter=delimiter)
    titles = [title.strip().casefold() for title in header]
    at = {c: titles.index(w) for c, words in COLUMNS.items() for w in words if w in titles}
    if "name" not in at:
        raise DataError(
            f"{path}: no column 'name'; expected: name, and of index, r, g, b what there is; "
            f"given: {lines[0]}"
        )
    for number, fields in enumerate(rows):
        cell = {c: fields[i].strip() for c, i in at.items() if i < len(fields)}
        yield _row(cell, number, f"{path}, row {number + 1}")


def _row(cell: dict[str, str], number: int, where: str) -> Entry:
    if not cell.get("name"):
        raise DataError(f"{where}: no name; every row needs one")
    index = cell.get("index") or str(number)
    if not _is_number(index):
        raise DataError(f"{where}: index {index!r} is not a whole number from 0")
    channels = [cell.get(channel, "") for channel in "rgb"]
    colour = _colour(channels, where) if any(channels) else None
    return _entry(cell["name"], int(index[:9]), colour)


def _from_json(text: str, path: Path) -> Iterator[Entry]:
    try:
        record = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error})") from None
    listed = record.get("categories") if isinstance(record, dict) else record
    if not isinstance(listed, list):
        raise DataError(f'{path}: expected COCO\'s "categories" or a list of names')
    for number, item in enumerate(listed):
        where = f"{path}, category {number}"
        if isinstance(item, str):
            yield _entry(item, number, None)
        elif isinstance(item, dict) and isinstance(item.get("name"), str):
            colour = _colour(item["color"], where) if item.get("color") else None
            yield _entry(item["name"], _whole(item.get("id", number), where), colour)
        else:
            raise DataError(f"{where}: expected a name or a record with id and name, given {item}")


def _whole(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f"{where}: id {value!r} is not a whole number")
    return value
