"""`Codec`: what the pixels of mask files mean, and how a file becomes class indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hubel.data.decode import UPRIGHT, opened, orientation_of
from hubel.data.masks.palette import Colour, pack, runs
from hubel.data.masks.record import IGNORE
from hubel.errors import BrokenImage

By = Literal["value", "colour"]
NO_CLASS = -1
VALUES = 256


@dataclass(frozen=True, eq=False, slots=True)
class Raw:
    """The pixels of a mask as they are stored.

    Attributes:
        pixels: (H, W): values, or colours as 0xRRGGBB where `coloured`.
        coloured: whether the file holds red, green and blue.
        palette: uint32 (256,), the colour 0xRRGGBB of each value: the file's own palette, or grey.
        own: whether that palette is the file's own.
    """

    pixels: NDArray[np.integer]
    coloured: bool
    palette: NDArray[np.uint32]
    own: bool = False

    def used(self) -> NDArray[np.integer]:
        """The different pixels, sorted."""
        flat = self.pixels.ravel()
        return np.unique(flat[runs(flat)])


GREY = np.arange(VALUES, dtype=np.uint32) * 0x010101


def read_raw(path: Path, name: str) -> Raw:
    """The pixels of a mask file, upright. Transparency is passed over: colours count as stored.

    Raises:
        BrokenImage: as `decode` does; a JPEG, whose pixels are not what was drawn; floats that
            are no whole numbers.
    """
    with opened(path, name) as picture:
        lossy = picture.format in ("JPEG", "MPO")
        if not lossy:
            picture.load()
            raw = _raw(picture)
    if lossy:
        raise BrokenImage(
            name, "a JPEG: its compression changes labels near their borders; save masks as PNG"
        )
    return raw


def _raw(picture: Image.Image) -> Raw:
    orientation = orientation_of(picture)
    upright = picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture
    mode = picture.mode
    if mode in ("P", "PA"):
        return Raw(np.asarray(upright.getchannel(0)), False, _palette(picture), own=True)
    if mode == "1":  # true is white, as in the 8-bit files that tools shrink to one bit
        return Raw(np.asarray(upright).astype(np.uint8) * np.uint8(255), False, GREY)
    if mode in ("L", "LA", "La"):
        return Raw(np.asarray(upright.getchannel(0)), False, GREY)
    if mode == "F" or mode.startswith("I"):
        return Raw(_whole(np.asarray(upright)), False, GREY)
    if mode not in ("RGB", "RGBA", "RGBX"):
        upright = upright.convert("RGB")
    return Raw(pack(np.asarray(upright)[..., :3]), True, GREY)


def _palette(picture: Image.Image) -> NDArray[np.uint32]:
    flat = np.array(picture.getpalette("RGB") or [], np.uint8)[: 3 * VALUES]
    colours = pack(flat[: len(flat) // 3 * 3].reshape(-1, 3))
    return np.concatenate([colours, GREY[len(colours) :]])


def _whole(values: NDArray[np.generic]) -> NDArray[np.integer]:
    whole = np.clip(np.nan_to_num(values.astype(np.float64), nan=-1), -1, 1 << 20)
    if (whole != np.floor(whole)).any():
        raise ValueError("mask values must be whole numbers")
    return whole.astype(np.int32)


@dataclass(frozen=True, eq=False)
class Codec:
    """From stored pixels to class indices.

    Attributes:
        classes, colours: one per class.
        table: int16 (256,), the class of each value; 255 ignored, -1 no class.
        keys, codes: colours 0xRRGGBB, sorted, and the class of each (255 ignored).
        flat: whether files of values (grey or with a palette) are read by value or by colour.
        rgb: the same of coloured files; by value means that all three channels are equal to it.
        origin: who says so, for messages.
    """

    classes: tuple[str, ...]
    colours: tuple[Colour, ...]
    table: NDArray[np.int16]
    keys: NDArray[np.uint32]
    codes: NDArray[np.int16]
    flat: By
    rgb: By
    origin: str

    def read(self, path: Path, name: str) -> NDArray[np.uint8]:
        """A mask file as class indices or 255: uint8 (H, W). Raises `BrokenImage`."""
        return self.translate(read_raw(path, name), name)

    def translate(self, raw: Raw, name: str) -> NDArray[np.uint8]:
        """The same of pixels that are read already."""
        by = self.rgb if raw.coloured else self.flat
        if by == "value" and not raw.coloured and raw.pixels.dtype == np.uint8:
            labels: NDArray[np.int16] = self.table[raw.pixels]
        else:
            flat = raw.pixels.ravel()
            starts = runs(flat)
            found = self._of(flat[starts], raw, by)
            lengths = np.diff(np.r_[starts, flat.size])
            labels = np.repeat(found, lengths).reshape(raw.pixels.shape)
        if labels.size and labels.min() < 0:
            raise BrokenImage(name, self._why(raw, labels, by))
        return labels.astype(np.uint8, copy=False)

    def _of(self, some: NDArray[np.integer], raw: Raw, by: By) -> NDArray[np.int16]:
        """The class of each of some pixels; -1 where there is none."""
        if by == "value":
            values, known = some, (some >= 0) & (some < VALUES)
            if raw.coloured:
                values, known = some & 255, some == (some & 255) * 0x010101
            return np.where(known, self.table[np.where(known, values, 0)], np.int16(NO_CLASS))
        known = np.ones(len(some), np.bool_)
        if not raw.coloured:
            known = (some >= 0) & (some < VALUES)
            some = raw.palette[np.where(known, some, 0)]
        if not len(self.keys):
            return np.full(len(some), NO_CLASS, np.int16)
        place = np.minimum(np.searchsorted(self.keys, some), len(self.keys) - 1)
        known &= self.keys[place] == some
        return np.where(known, self.codes[place], np.int16(NO_CLASS))

    def _why(self, raw: Raw, labels: NDArray[np.int16], by: By) -> str:
        row, column = np.argwhere(labels < 0)[0].tolist()
        value = int(raw.pixels[row, column])
        given = f"colour #{value:06x}" if raw.coloured else f"value {value}"
        if by == "colour" and not raw.coloured and 0 <= value < VALUES:
            given += f" (colour #{int(raw.palette[value]):06x})"
        return (
            f"{given} at row {row}, column {column} is no class; allowed: "
            f"{self.allowed(by)} ({self.origin})"
        )

    def allowed(self, by: By) -> str:
        """What a pixel may be, in words."""
        if by == "colour":
            said = [f"#{key:06x}" for key in self.keys[:8].tolist()]
            more = f" and {len(self.keys) - 8} more" if len(self.keys) > 8 else ""
            return ", ".join(said) + more
        labels = np.flatnonzero((self.table >= 0) & (self.table != IGNORE)).tolist()
        ignored = np.flatnonzero(self.table == IGNORE).tolist()
        return ranges(labels) + (f", ignored: {ranges(ignored)}" if ignored else "")


def ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers, in short.

    >>> ranges([0, 1, 2, 5])
    '0..2, 5'
    """
    said: list[list[int]] = []
    for number in numbers:
        if said and number == said[-1][1] + 1:
            said[-1][1] = number
        else:
            said.append([number, number])
    return ", ".join(f"{a}..{b}" if a < b else str(a) for a, b in said)
