"""Masks as pictures: laid over the photo, their legend, their mistakes, their doubts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from hubel.data.masks.record import IGNORE
from hubel.tasks.caption import INK, PAPER, TEXT, WRONG, shortened

Colours = Sequence[tuple[int, int, int]]

LINE = 24  # pixels from one line of the legend to the next
GAP, SWATCH = 8, 14  # pixels: between things, a swatch's side
WIDEST = 200  # pixels that a name may take in the legend
GREY = (128, 128, 128)
CROWDED = 0.25  # share of the pixels under lines; CamVid's truth at 320x240 has 0.06
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green, blue (BT.601)
AROUND, MIDDLE = 31, 140  # pixels that a line's contrast is judged by; half way to the eye


def overlay(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    colours: Colours,
    alpha: float = 0.5,
    edges: bool = True,
) -> Image.Image:
    """The photo (C, H, W) tinted by the classes of its mask (H, W): RGB, of its size.

    Args:
        image: uint8, C = 1 or 3.
        mask: a class or IGNORE; pixels without a label keep their colour.
        colours: red, green, blue of every class.
        alpha: share of the tint, 0 to 1.
        edges: lines, a pixel wide, where classes meet.
    """
    photo = _rgb(image).astype(np.float32)
    table = np.zeros((IGNORE + 1, 3), np.float32)
    table[: len(colours)] = colours
    share = np.where(mask == IGNORE, 0, np.float32(alpha))[..., None]
    tinted = photo + share * (table[mask] - photo)
    if edges:
        _draw_edges(tinted, mask)
    return Image.fromarray(tinted.round().astype(np.uint8))


def difference(truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> Image.Image:
    """RGBA of (H, W): wrong pixels red, unlabelled ones hatched grey, right ones transparent."""
    found = np.zeros((*truth.shape, 4), np.uint8)
    found[(truth != predicted) & (truth != IGNORE)] = (*WRONG, 255)
    diagonal = np.add.outer(*(np.arange(side) for side in truth.shape))
    found[(truth == IGNORE) & (diagonal % 6 < 2)] = (*GREY, 255)
    return Image.fromarray(found)


def uncertainty(probabilities: ArrayLike) -> NDArray[np.float32]:
    """Entropy over log K of probabilities (K, H, W): float32 (H, W), 0 sure, 1 no idea at all.

    With one class, nothing is in doubt: 0.
    """
    p = np.asarray(probabilities, dtype=np.float32)
    if len(p) == 1:
        return np.zeros(p.shape[1:], np.float32)
    entropy = -(p * np.log(np.maximum(p, np.finfo(np.float32).tiny))).sum(axis=0)
    found: NDArray[np.float32] = np.clip(entropy / np.log(np.float32(len(p))), 0, 1)
    return found


def legend(
    classes: Sequence[str],
    colours: Colours,
    shares: Sequence[float] | None = None,
    width: int = 640,
) -> Image.Image:
    """A strip of swatches and names, as many lines as it takes in `width` pixels.

    Args:
        shares: of the pixels, per class: told beside the names, the largest first.
    """
    order = list(range(len(classes)))
    if shares is not None:
        order.sort(key=lambda k: -shares[k])
    font = ImageFont.load_default(TEXT)
    entries = []
    for k in order:
        name = shortened(classes[k], font, min(WIDEST, width - 90))
        entries.append((name if shares is None else f"{name} {_percent(shares[k])}", colours[k]))
    places, height = _flow([font.getlength(words) for words, _ in entries], width)
    strip = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(strip)
    for (x, y), (words, colour) in zip(places, entries, strict=True):
        top = y + (LINE - SWATCH) // 2
        pen.rectangle((x, top, x + SWATCH, top + SWATCH), fill=tuple(colour), outline=INK)
        pen.text((x + SWATCH + GAP, y + 2), words, INK, font)
    return strip


def _flow(lengths: Sequence[float], width: int) -> tuple[list[tuple[int, int]], int]:
    """Left upper corners of entries of these text lengths, line by line, and the height."""
    places, x, y = [], GAP, 0
    for length in lengths:
        room = SWATCH + GAP + round(length)
        if x > GAP and x + room > width:
            x, y = GAP, y + LINE
        places.append((x, y))
        x += room + 2 * GAP
    return places, y + LINE


def _percent(share: float) -> str:
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{share:.1%}" if 0 < share < 0.01 else f"{share:.0%}"


def _rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(C, H, W), C = 1 or 3 -> (H, W, 3)."""
    return np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)


def _draw_edges(pixels: NDArray[np.float32], mask: NDArray[np.uint8]) -> None:
    """Lines where a pixel's right or lower neighbour is labelled otherwise.

    Light where the surroundings are dark, dark where they are light: one colour of line is lost
    on some photo, and the contrast taken pixel by pixel breaks a line into dashes.
    """
    line = np.zeros(mask.shape, dtype=bool)
    line[:-1] |= mask[:-1] != mask[1:]
    line[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    if line.mean() > CROWDED:
        return
    around = _mean_around(pixels @ LUMINANCE, AROUND)
    pixels[line] = np.where(around[line] < MIDDLE, 255, 0)[:, None]


def _mean_around(values: NDArray[np.floating[Any]], side: int) -> NDArray[np.float64]:
    """The mean of the `side` x `side` pixels around each one, side odd; the border is repeated.

    By running sums. (SciPy's filter would do, but takes longer to import than to run.)
    """
    half = side // 2
    sums = np.pad(values.astype(np.float64), half, mode="edge")
    for axis in (0, 1):
        running = np.insert(sums.cumsum(axis), 0, 0.0, axis)
        count = running.shape[axis] - side
        sums = running.take(range(side, side + count), axis) - running.take(range(count), axis)
    return sums / side**2
