"""An image with a line or two of words under it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIDE = 224  # pixels of the picture's longer side
BORDER, LINE, TEXT = 6, 24, 16  # pixels: frame, line height, letters
PAPER, INK = (255, 255, 255), (40, 40, 40)
RIGHT, WRONG = (26, 127, 55), (190, 30, 45)  # dark enough for white paper, apart for most eyes


def captioned(image: NDArray[np.uint8], lines: Sequence[str], *, right: bool | None) -> Image.Image:
    """An RGB picture: `image` in a frame, `lines` below, the first in the frame's colour.

    Args:
        image: uint8 (C, H, W), C = 1 or 3.
        right: green for True, red for False, grey for None. The first line begins with a tick or
            a cross as well, for those who see no red or green.
    """
    photo = _enlarged(image)
    colour = INK if right is None else RIGHT if right else WRONG
    width = SIDE + 2 * BORDER
    height = photo.height + 2 * BORDER + LINE * len(lines) + BORDER
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    left = (width - photo.width) // 2
    frame = (left - BORDER, 0, left + photo.width + BORDER - 1, photo.height + 2 * BORDER - 1)
    pen.rectangle(frame, fill=colour)
    sheet.paste(photo, (left, BORDER))
    font = ImageFont.load_default(TEXT)
    top = photo.height + 2 * BORDER + BORDER // 2
    for number, line in enumerate(lines):
        ink = colour if number == 0 else INK
        indent = BORDER + (_mark(pen, top, right, colour) if number == 0 else 0)
        pen.text((indent, top), shortened(line, font, width - indent - BORDER), ink, font)
        top += LINE
    return sheet


def _enlarged(image: NDArray[np.uint8]) -> Image.Image:
    """RGB, longer side `SIDE`; pixels stay square blocks when they grow."""
    array = image.transpose(1, 2, 0) if image.shape[0] == 3 else image[0]
    photo = Image.fromarray(np.ascontiguousarray(array)).convert("RGB")
    scale = SIDE / max(photo.size)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    grows = scale > 1
    return photo.resize(size, Image.Resampling.NEAREST if grows else Image.Resampling.BILINEAR)


def _mark(pen: ImageDraw.ImageDraw, top: int, right: bool | None, colour: tuple[int, ...]) -> int:
    """A drawn tick or cross (fonts may lack them); returns the room it takes."""
    if right is None:
        return 0
    x, y, s = BORDER, top + 5, 10
    strokes = (
        [[(x, y + s // 2), (x + s // 3, y + s), (x + s, y)]]
        if right
        else [[(x, y), (x + s, y + s)], [(x, y + s), (x + s, y)]]
    )
    for stroke in strokes:
        pen.line(stroke, fill=colour, width=2)
    return s + BORDER


def shortened(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> str:
    """The line, its end given up for "..." where it is wider than `room` pixels."""
    if font.getlength(line) <= room:
        return line
    while line and font.getlength(line + "...") > room:
        line = line[:-1]
    return line + "..."
