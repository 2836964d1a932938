"""Colours for classes: PASCAL VOC's palette, which many tools write into their mask files."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]  # red, green, blue, 0..255

VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def voc_palette(count: int = 256) -> tuple[Colour, ...]:
    """The first `count` colours of PASCAL VOC's palette, at most 256; 0 is black.

    Bit 3j + c of the index becomes bit 7 - j of channel c (red 0, green 1, blue 2), so that
    neighbouring indices get colours far apart. Source: the VOC development kit, VOClabelcolormap.
    """
    index = np.arange(count)
    colours = np.zeros((count, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
    return tuple((red, green, blue) for red, green, blue in colours.tolist())


def pack(colours: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """(..., 3) of red, green, blue to (...) of 0xRRGGBB."""
    wide = colours.astype(np.uint32)
    return ((wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]).astype(np.uint32)


def packed(colour: Colour) -> int:
    """0xRRGGBB."""
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def unpacked(number: int) -> Colour:
    """The colour 0xRRGGBB."""
    return number >> 16, number >> 8 & 255, number & 255


def runs(flat: NDArray[np.generic]) -> NDArray[np.int64]:
    """Where in `flat` (n,) a new value begins. Masks are large even areas: a few thousand runs
    stand for 200,000 pixels, and what is looked up per run is fifty times faster."""
    return np.flatnonzero(np.r_[flat.size > 0, flat[1:] != flat[:-1]])
