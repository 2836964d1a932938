"""COCO's instances as masks: one JSON file, or one for each of train, val and test.

Class 0 is "background", the categories follow in the order of their ids. Where objects overlap the
smaller one is seen; regions of a crowd (`iscrowd`) are ignored unless an object covers them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubel.data.masks.coco_json import (
    categories,
    image_folder,
    image_of,
    key_of,
    load,
    size_listed,
)
from hubel.data.masks.pairs import counted, listed
from hubel.data.masks.palette import voc_palette
from hubel.data.masks.record import IGNORE, ImageFiles
from hubel.data.masks.regions import Regions
from hubel.data.record import PARTS
from hubel.errors import BrokenImage, DataError


class CocoMasks(ImageFiles):
    """Images with masks that are painted from annotations when they are asked for.

    Attributes:
        regions: the annotations.
        listed: int64 (N, 2), height and width as the JSON file has them; 0 where it has none.
        damaged: row -> what is wrong with its annotations.
    """

    regions: Regions
    listed: NDArray[np.int64]
    damaged: dict[int, str]

    def labels(self, row: int, size: tuple[int, ...]) -> NDArray[np.uint8]:
        height, width = size
        name = self.ids[row]
        if row in self.damaged:
            raise BrokenImage(name, self.damaged[row])
        listed_height, listed_width = self.listed[row].tolist()
        if listed_height and (listed_height, listed_width) != (height, width):
            raise BrokenImage(
                name,
                f"the image is {height} x {width}, but {self.origin} lists it with "
                f"{listed_height} x {listed_width} (height x width, upright); they must be equal",
            )
        try:
            return self.regions.paint(row, height, width)
        except DataError as error:
            raise BrokenImage(name, str(error)) from None

    def mask_bytes(self, row: int) -> bytes:
        return self.regions.data(row)


def find_coco(path: Path) -> dict[str, Path] | None:
    """Part to JSON file: `path` itself, those of `annotations/instances_*.json`, Roboflow's
    `train/_annotations.coco.json`, or the only .json in the folder; None where there is none."""
    if path.is_file():
        return {"": path} if path.suffix.lower() == ".json" else None
    found = {}
    for part in PARTS:
        names = (
            [f"annotations/instances_{part}*.json"]
            + [f"{word}/*.coco.json" for word in _words(part)]
            + [f"annotations/{word}.json" for word in _words(part)]
            + [f"{word}.json" for word in _words(part)]
        )
        files = [file for name in names for file in sorted(path.glob(name))]
        if files:
            found[part] = files[0]
    alone = [*path.glob("*.json"), *path.glob("annotations/*.json")]
    return found or ({"": alone[0]} if len(alone) == 1 else None)


def _words(part: str) -> tuple[str, ...]:
    return ("val", "valid") if part == "val" else (part,)


def read_coco(files: Mapping[str, Path], name: str | None = None) -> CocoMasks:
    """The images of one JSON file per part.

    Annotations without any polygon, and such of images that are not listed, are passed over and
    counted in `notice`. What else is wrong with an annotation makes its image a broken pair.

    Raises:
        DataError: no JSON, or none of COCO's instances; images that are not there; two files with
            different categories; more than 254 of them.
    """
    reading = _Reading()
    for part, path in files.items():
        reading.read(path.absolute(), part)
    if not reading.images:
        raise DataError(f"{reading.origin} lists no images")
    if not reading.drawn and not reading.damaged:
        raise DataError(f"{reading.origin}: no annotation has a segmentation (boxes alone?)")
    source = CocoMasks(
        reading.root,
        reading.images,
        reading.parts,
        reading.classes,
        voc_palette(len(reading.classes)),
        name=name or reading.name,
        origin=reading.origin,
        notice="; ".join(reading.notes()) or None,
    )
    source.regions = reading.regions.close(len(reading.images))
    source.listed = np.array(reading.sizes, np.int64).reshape(-1, 2)
    source.damaged = reading.damaged
    return source


@dataclass
class _Reading:
    """One reading of one or more files."""

    root: Path = Path()
    origin: str = ""
    name: str = ""
    classes: tuple[str, ...] = ()
    images: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    damaged: dict[int, str] = field(default_factory=dict)
    regions: Regions = field(default_factory=Regions)
    passed: Counter[str] = field(default_factory=Counter)
    drawn: int = 0

    def read(self, path: Path, part: str) -> None:
        tables = load(path)
        classes, label_of = categories(tables["categories"], path)
        folder = image_folder(tables["images"], path)
        if not self.origin:
            self.origin, self.name, self.classes = str(path), path.stem, classes
            self.root = folder
        elif classes != self.classes:
            raise DataError(f"{path} has other categories than {self.origin}")
        if self.root != folder:
            self._move(folder)
        row_of = self._list(tables["images"], path, folder, part)
        for place, annotation in enumerate(tables["annotations"]):
            if not isinstance(annotation, dict):
                raise DataError(f"{path}: annotation {place} is no record, given {annotation!r}")
            self._add(annotation, place, row_of, label_of)

    def _move(self, folder: Path) -> None:
        """The root becomes the folder that holds both; names grow by what is between."""
        top = self.root
        while not folder.is_relative_to(top):
            top = top.parent
        between = self.root.relative_to(top)
        self.images = [(PurePosixPath(between) / name).as_posix() for name in self.images]
        self.root, self.name = top, top.resolve().name
        self.origin = str(top)

    def _list(self, images: list[Any], path: Path, folder: Path, part: str) -> dict[Any, int]:
        """Takes in the images; image id -> row."""
        prefix = folder.relative_to(self.root)
        row_of: dict[Any, int] = {}
        lacking = []
        seen = set(self.images)
        for place, image in enumerate(images):
            name, number = image_of(image, f"{path}: image {place}")
            if number in row_of:
                raise DataError(f"{path}: two images have the id {number!r}")
            whole = (PurePosixPath(prefix) / name).as_posix()
            if whole in seen:
                raise DataError(f"{path}: {name} is listed twice")
            if not (folder / name).is_file():
                lacking.append(name)
            seen.add(whole)
            row_of[number] = len(self.images)
            self.images.append(whole)
            self.parts.append(part)
            self.sizes.append(size_listed(image, f"{path}: {name}"))
        if lacking:
            raise DataError(
                f"{path}: {counted(len(lacking), 'image is', 'images are')} not in {folder}: "
                f"{listed(lacking)}"
            )
        return row_of

    def _add(
        self,
        annotation: dict[str, Any],
        place: int,
        row_of: dict[Any, int],
        label_of: dict[Any, int],
    ) -> None:
        row = row_of.get(key_of(annotation.get("image_id")))
        if row is None:
            self.passed["of an image that is not listed"] += 1
            return
        number = annotation.get("id", place)
        label = label_of.get(key_of(annotation.get("category_id")))
        if label is None:
            given = annotation.get("category_id")
            self._damage(row, f"annotation {number} has category {given!r}, which is not listed")
            return
        if annotation.get("iscrowd"):
            label = IGNORE
        size = self.sizes[row] if self.sizes[row][0] else None
        try:
            segmentation = annotation.get("segmentation") or []
            where = number if isinstance(number, int) and abs(number) < 1 << 62 else place
            if self.regions.add(row, label, where, segmentation, size):
                self.drawn += 1
            else:
                self.passed["without a polygon"] += 1
        except DataError as error:
            self._damage(row, f"annotation {number}: {error}")

    def _damage(self, row: int, reason: str) -> None:
        self.damaged.setdefault(row, reason)

    def notes(self) -> Iterator[str]:
        for why, count in self.passed.items():
            many = counted(count, "annotation", "annotations")
            yield f"{many} {why} {'was' if count == 1 else 'were'} passed over"
