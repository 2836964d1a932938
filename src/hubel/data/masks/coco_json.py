"""The tables of a COCO file, and each mistake in them by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hubel.data.masks.classes import is_ignored
from hubel.data.masks.pairs import listed
from hubel.data.masks.record import IGNORE, MOST_CLASSES
from hubel.errors import DataError

BACKGROUND = "background"
TABLES = ("images", "annotations", "categories")
LOOKED_AT = 20  # images that are looked for to find out where they lie


def load(path: Path) -> dict[str, list[Any]]:
    """The record in a JSON file, with COCO's three tables. Raises `DataError`."""
    try:
        record: dict[str, list[Any]] = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error})") from None
    for table in TABLES:
        if not isinstance(record, dict) or not isinstance(record.get(table), list):
            raise DataError(
                f"{path} has no list {table!r}; expected COCO's instances: a record of "
                f"{', '.join(TABLES)}"
            )
    return record


def categories(table: list[Any], path: Path) -> tuple[tuple[str, ...], dict[Any, int]]:
    """Class names, "background" first, and category id -> class. Raises `DataError`."""
    for place, one in enumerate(table):
        if not isinstance(one, dict) or not isinstance(one.get("name"), str) or "id" not in one:
            raise DataError(f"{path}: category {place} needs an id and a name, given {one!r}")
    try:
        ordered = sorted(table, key=lambda one: one["id"])
    except TypeError:
        raise DataError(f"{path}: the ids of categories must be numbers") from None
    classes, label_of = [BACKGROUND], {}
    for one in ordered:
        number, name = one["id"], one["name"]
        if number in label_of:
            raise DataError(f"{path}: two categories have the id {number!r}")
        if name.casefold() == BACKGROUND:
            label_of[number] = 0
        elif is_ignored(name):
            label_of[number] = IGNORE
        elif name in classes:
            raise DataError(f"{path}: two categories are called {name!r}")
        else:
            label_of[number] = len(classes)
            classes.append(name)
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise DataError(
            f"{path} has {len(classes) - 1} categories; allowed: 1 to {MOST_CLASSES - 1}"
        )
    return tuple(classes), label_of


def image_folder(images: list[Any], path: Path) -> Path:
    """Where the images lie: beside the file, or where the usual layouts have them."""
    above, word = path.parent.parent, path.stem.removeprefix("instances_")
    places = [
        *(path.parent, path.parent / "images", path.parent / word, path.parent / "images" / word),
        *(above / word, above / "images" / word, above / "images", above),
    ]
    names = [image_of(image, f"{path}: image {n}")[0] for n, image in enumerate(images[:LOOKED_AT])]
    for place in places:
        if any((place / name).is_file() for name in names):
            return place
    if not names:
        return path.parent
    looked = ", ".join(dict.fromkeys(str(place) for place in places))
    raise DataError(f"{path}: its images ({listed(names)}) are in none of: {looked}")


def image_of(image: Any, where: str) -> tuple[str, Any]:
    """(file name, id)."""
    name = image.get("file_name") if isinstance(image, dict) else None
    number = key_of(image.get("id")) if isinstance(image, dict) else None
    if not isinstance(name, str) or not name or number is None:
        raise DataError(f"{where} needs an id and a file_name, given {str(image)[:80]}")
    return name, number


def key_of(value: Any) -> Any:
    """An id, where it is one."""
    return value if isinstance(value, int | str) else None


def size_listed(image: dict[str, Any], where: str) -> tuple[int, int]:
    """(height, width) as listed; zeros where they are not."""
    height, width = image.get("height"), image.get("width")
    if not height or not width:
        return 0, 0
    if not isinstance(height, int) or not isinstance(width, int) or min(height, width) < 1:
        raise DataError(f"{where} is listed with {height!r} x {width!r} pixels (height x width)")
    return height, width
