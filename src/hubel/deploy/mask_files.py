"""The folder that predicted masks are written to: names, masks, overlays and the class list.

    masks/classes.txt          a line per class: name, red, green, blue
    masks/street.png           indexed PNG: a pixel's value is its class, the palette its colour
    masks/street.overlay.jpg   the photo tinted by it, at most 4096 pixels a side

Beside the images such a folder is data again ('hubel data check').
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hubel.data.masks.palette import voc_palette
from hubel.deploy.palette_png import PaletteWriter, is_ours
from hubel.errors import OptionError, RunError
from hubel.runs.files import replacing, write_text
from hubel.runs.weights import Card
from hubel.tasks.segmentation.overlay import overlay

CLASSES = "classes.txt"
LARGEST = 4096  # pixels of an overlay's longer side; larger images are scaled down to it
QUALITY = 90  # of its JPEG

Colours = Sequence[tuple[int, int, int]]


@dataclass(frozen=True)
class Place:
    """Where the answer for one image goes: `mask`, and `picture` where overlays are wanted."""

    mask: Path
    picture: Path | None
    colours: Colours

    @contextmanager
    def writing(self, size: tuple[int, int]) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
        """Takes the mask's bands (n, W), from top to bottom; the file is there when all are."""
        with replacing(self.mask) as draft, draft.open("wb") as file:
            writer = PaletteWriter(file, size, self.colours)
            yield writer.rows
            writer.close()

    def draw(self, image: NDArray[np.uint8], mask: Thumbnail) -> None:
        """The overlay of an image uint8 (C, H, W) and the thumbnail of its mask."""
        if self.picture is not None:
            with replacing(self.picture) as draft:
                drawn = overlay(shrunk(image, mask.factor), mask.pixels, self.colours)
                drawn.save(draft, "JPEG", quality=QUALITY)


class MaskFolder:
    """A folder for predicted masks.

    Attributes:
        classes, colours: the net's; colours are VOC's where it has none.
        overlays: whether pictures are drawn too.
    """

    def __init__(self, folder: str | Path, card: Card, overlays: bool = True) -> None:
        self.folder = Path(folder)
        self.classes = card.classes
        self.colours = card.colours or voc_palette(len(card.classes))
        self.overlays = overlays

    def places(self, files: Sequence[Path]) -> list[Place]:
        """Where the answers for these images go. Makes the folder and writes the class list.

        Raises:
            OptionError: an image, a mask that somebody drew, or another class list would be
                overwritten.
            RunError: the folder cannot be made or written.
        """
        found = [self._place(name) for name in names_for(files)]
        inputs = {file.resolve() for file in files}
        for place in found:
            for path in filter(None, (place.mask, place.picture)):
                if path.resolve() in inputs:
                    raise OptionError(
                        f"--out {self.folder} would overwrite {path}, one of the images: "
                        "give another folder"
                    )
            if place.mask.exists() and not is_ours(place.mask):
                raise OptionError(
                    f"{place.mask} is there and was not written by 'hubel predict': "
                    "give another folder with --out"
                )
        self._make()
        return found

    def _place(self, name: str) -> Place:
        picture = self.folder / f"{name}.overlay.jpg" if self.overlays else None
        return Place(self.folder / f"{name}.png", picture, self.colours)

    def _make(self) -> None:
        path, text = self.folder / CLASSES, class_list(self.classes, self.colours)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            there = path.read_text(encoding="utf-8") if path.exists() else text
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"cannot write masks to {self.folder}: {error}") from None
        if there != text:
            raise OptionError(
                f"{path} lists other classes than this net's, {', '.join(self.classes)}: "
                "give another folder with --out"
            )
        write_text(path, text)


class Thumbnail:
    """A mask (H, W) that comes in bands, kept at one pixel of `factor` x `factor`.

    Attributes:
        factor: whole, so that no side is longer than `LARGEST`.
        pixels: uint8 (ceil(H / factor), ceil(W / factor)): the middle ones.
    """

    def __init__(self, size: tuple[int, int], largest: int = LARGEST) -> None:
        self.factor = -(-max(size) // largest)
        rows, self._columns = (_middles(length, self.factor) for length in size)
        self.pixels = np.zeros((len(rows), len(self._columns)), np.uint8)
        self._rows, self._seen = rows, 0

    def add(self, band: NDArray[np.uint8]) -> None:
        """The next lines (n, W)."""
        first, last = np.searchsorted(self._rows, (self._seen, self._seen + len(band)))
        lines = band[self._rows[first:last] - self._seen]
        self.pixels[first:last] = lines[:, self._columns]
        self._seen += len(band)


def shrunk(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """(C, H, W) -> (C, ceil(H / factor), ceil(W / factor)): means of squares, smaller at the
    right and the bottom."""
    if factor == 1:
        return image
    _, height, width = image.shape
    columns = np.arange(0, width, factor)
    across = np.diff(np.append(columns, width))
    lines = []
    for top in range(0, height, factor):
        strip = image[:, top : top + factor]
        sums = np.add.reduceat(strip.sum(axis=1, dtype=np.uint32), columns, axis=1)
        lines.append(np.rint(sums / (strip.shape[1] * across)).astype(np.uint8))
    return np.stack(lines, axis=1)


def class_list(classes: Sequence[str], colours: Colours) -> str:
    """The text of a class list: `name r g b`; names with commas as CVAT has them,
    `name:r,g,b::`. Before a # that would begin a comment stands a backslash."""
    lines = []
    for word, colour in zip(classes, colours, strict=True):
        name = re.sub(r"(?<!\S)#", r"\\#", word)
        if "," in name and ":" not in name:
            lines.append(f"{name}:{','.join(map(str, colour))}::")
        else:
            lines.append(f"{name} {' '.join(map(str, colour))}")
    return "\n".join(lines) + "\n"


def names_for(files: Sequence[Path]) -> list[str]:
    """A name for each file, all different, whatever the case of letters: its own without the
    ending; where several share it, after the folders that tell them apart, or with its ending."""
    groups: dict[str, list[int]] = {}
    for row, file in enumerate(files):
        groups.setdefault(file.stem.casefold(), []).append(row)
    wanted = [file.stem for file in files]
    for rows in groups.values():
        if len(rows) > 1:
            for row, name in zip(rows, _told_apart([files[row] for row in rows]), strict=True):
                wanted[row] = name
    taken: set[str] = set()
    return [_free(name, taken) for name in wanted]


def _told_apart(files: Sequence[Path]) -> list[str]:
    """Names of files with one stem: so many of their folders that no two are alike, and the stem,
    joined by dashes; with the ending where two files stand in one folder."""
    folders = [Path(os.path.abspath(file)).parent.parts[1:] for file in files]  # noqa: PTH100 (links stay)
    there = Counter(folders)
    depth = 0
    while len({_last(own, depth) for own in there}) < len(there):
        depth += 1
    pairs = zip(folders, files, strict=True)
    return [
        "-".join([*_last(own, depth), file.stem if there[own] == 1 else file.name])
        for own, file in pairs
    ]


def _free(name: str, taken: set[str]) -> str:
    """The name, numbered where it is taken; now it is."""
    number, free = 1, name
    while free.casefold() in taken:
        number += 1
        free = f"{name}-{number}"
    taken.add(free.casefold())
    return free


def _last(folders: tuple[str, ...], depth: int) -> tuple[str, ...]:
    return folders[max(0, len(folders) - depth) :]


def _middles(length: int, factor: int) -> NDArray[np.int64]:
    """Of every `factor` pixels of a line the middle one."""
    starts = np.arange(0, length, factor)
    return np.minimum(starts + factor // 2, length - 1)
