"""`Regions`: the annotations of a COCO file, kept small, and painted into masks when asked for.

860,000 annotations as Python lists are gigabytes; in four arrays they are a tenth of that, pickle
in no time, and each image's lie together.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubel.data.masks import rle
from hubel.data.masks.polygon import fill
from hubel.data.masks.record import IGNORE
from hubel.errors import DataError

POLYGON, COUNTS, TEXT = 0, 1, 2
LEAST_NUMBERS = 6  # of a polygon: a triangle


class Regions:
    """Annotations by image. First `add` them all, then `close`, then `paint`."""

    def __init__(self) -> None:
        self._points = array("f")
        self._counts = array("q")
        self._text = bytearray()
        # One line per piece: image row, class, annotation id, its place in the file, form, from, to
        self._lines = array("q")
        self._added = 0

    def add(self, row: int, label: int, number: int, segmentation: Any, size: Any = None) -> bool:
        """One annotation.

        Args:
            row: its image.
            size: (height, width) of its image as the file has it, where it has it.
            label: its class, or `IGNORE`.
            number: its id, for messages.
            segmentation: a list of polygons (each x, y, x, y, ...), or a record of "counts" and
                "size".

        Returns:
            Whether it has any pixels to draw: False where the segmentation is empty.

        Raises:
            DataError: it is of another form. Nothing of it is then kept.
        """
        pieces = list(_pieces(segmentation, size))
        for form, data in pieces:
            start, end = self._keep(form, data)
            self._lines.extend((row, label, number, self._added, form, start, end))
        self._added += 1
        return bool(pieces)

    def _keep(self, form: int, data: Any) -> tuple[int, int]:
        """Where the numbers or characters of a piece now stand."""
        pools: dict[int, Any] = {POLYGON: self._points, COUNTS: self._counts, TEXT: self._text}
        pool = pools[form]
        start = len(pool)
        pool.extend(data)
        return start, len(pool)

    def close(self, images: int) -> Regions:
        """Sorts by image; no more can be added."""
        lines = np.array(self._lines, np.int64).reshape(-1, 7)
        self.lines = lines[np.argsort(lines[:, 0], kind="stable")]
        self.starts = np.searchsorted(self.lines[:, 0], np.arange(images + 1))
        self.points = np.array(self._points, np.float32)
        self.counts = np.array(self._counts, np.int64)
        self.text = bytes(self._text)
        del self._points, self._counts, self._text, self._lines
        return self

    def paint(self, row: int, height: int, width: int) -> NDArray[np.uint8]:
        """The mask of an image: uint8 (H, W), 0 where nothing is annotated.

        What is ignored is painted first, then the rest by the number of its pixels, the largest
        first, equal ones in file order: a cup on a table stays a cup.

        Raises:
            DataError: a region that is damaged or does not fit the image; says which.
        """
        painted = [(label, self._draw(lines, height, width)) for label, lines in self._of(row)]
        order = sorted(painted, key=lambda one: (one[0] != IGNORE, -int(one[1].sum())))
        mask = np.zeros((height, width), np.uint8)
        for label, region in order:
            mask[region] = label
        return mask

    def data(self, row: int) -> bytes:
        """All that the mask of an image is made from, for its hash."""
        said = [
            bytes(str(self.lines[self.starts[row] : self.starts[row + 1], 1].tolist()), "ascii")
        ]
        for _, lines in self._of(row):
            for _, _, _, _, form, start, end in lines:
                pools: dict[int, NDArray[Any]] = {POLYGON: self.points, COUNTS: self.counts}
                text = form == TEXT
                said.append(self.text[start:end] if text else pools[form][start:end].tobytes())
        return b"\0".join(said)

    def _of(self, row: int) -> Iterator[tuple[int, list[list[int]]]]:
        """(class, lines) of each annotation of an image."""
        lines = self.lines[self.starts[row] : self.starts[row + 1]].tolist()
        begin = 0
        for place in range(1, len(lines) + 1):
            if place == len(lines) or lines[place][3] != lines[begin][3]:
                yield lines[begin][1], lines[begin:place]
                begin = place

    def _draw(self, lines: list[list[int]], height: int, width: int) -> NDArray[np.bool_]:
        """The pieces of one annotation together: bool (H, W)."""
        region = np.zeros((height, width), np.bool_)
        for _, _, number, _, form, start, end in lines:
            try:
                region |= self._piece(form, start, end, height, width)
            except DataError as error:
                raise DataError(f"annotation {number}: {error}") from None
        return region

    def _piece(self, form: int, start: int, end: int, height: int, width: int) -> NDArray[np.bool_]:
        if form == POLYGON:
            points = self.points[start:end].reshape(-1, 2)
            if not np.isfinite(points).all():
                raise DataError("its polygon has a coordinate that is no finite number")
            return fill(points, height, width)
        counts = self.counts[start:end] if form == COUNTS else rle.from_text(self.text[start:end])
        return rle.decode(counts, height, width)


def _pieces(segmentation: Any, size: Any) -> Iterator[tuple[int, Any]]:
    """(form, numbers or bytes) of each polygon or of the one run-length code."""
    if isinstance(segmentation, dict):
        yield _runs(segmentation, size)
        return
    if not isinstance(segmentation, list):
        raise DataError(
            "its segmentation must be a list of polygons or a record with counts and size, given "
            f"{str(segmentation)[:40]!r}"
        )
    flat = bool(segmentation) and isinstance(segmentation[0], int | float)
    for polygon in [segmentation] if flat else segmentation:
        if not isinstance(polygon, list):
            raise DataError(f"a polygon is a list of numbers, given {str(polygon)[:40]!r}")
        if polygon:
            yield POLYGON, _polygon(polygon)


def _polygon(numbers: list[Any]) -> array[float]:
    if len(numbers) % 2 or len(numbers) < LEAST_NUMBERS:
        raise DataError(
            f"its polygon has {len(numbers)} numbers; allowed: x, y of at least 3 points, an even "
            "number of 6 or more"
        )
    try:
        return array("f", numbers)
    except (TypeError, OverflowError):
        raise DataError("its polygon holds something that is no number") from None


def _runs(record: dict[str, Any], size: Any) -> tuple[int, Any]:
    given = record.get("size")
    if size is not None and isinstance(given, list) and list(size) != given:
        raise DataError(
            f"its run-length code is for {' x '.join(map(str, given))} pixels, its image is listed "
            f"with {' x '.join(map(str, size))} (height x width)"
        )
    counts = record.get("counts")
    if isinstance(counts, str):
        return TEXT, counts.encode("utf-8", "replace")
    if not isinstance(counts, list):
        raise DataError("its run-length code has no counts (a list of numbers or a text)")
    try:
        return COUNTS, array("q", counts)
    except (TypeError, OverflowError):
        raise DataError("the counts of its run-length code are not all whole numbers") from None
