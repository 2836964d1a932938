"""One image with its mask, what the net made of it, and where it doubts: side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from hubel.data.masks.record import IGNORE
from hubel.tasks.caption import INK, PAPER, TEXT, shortened
from hubel.tasks.segmentation.overlay import Colours, legend, overlay, uncertainty

SIDE = 320  # pixels of a panel's longer side
NARROWEST = 200  # pixels that a panel takes at least, so that its caption fits
GAP, CAPTION = 8, 26  # pixels between panels; height of a line of words
# From sure to unsure, dark to bright, by steps alike to the eye.
DOUBT = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)])

Panel = tuple[str, Image.Image]


def panels(
    image: NDArray[np.uint8],
    truth: NDArray[np.uint8] | None,
    probabilities: ArrayLike,
    classes: Sequence[str],
    colours: Colours,
) -> Image.Image:
    """The image, its truth where known, the prediction, the uncertainty, and the legend: RGB.

    Everything is brought to panels of one size: photos and doubts smoothly, masks to the nearest
    pixel, so that lines stay thin and small images can be seen.

    Args:
        image: uint8 (C, H, W), C = 1 or 3.
        truth: (H, W), a class or IGNORE.
        probabilities: (K, H, W).
    """
    chances = np.asarray(probabilities, dtype=np.float32)
    said = chances.argmax(axis=0).astype(np.uint8)
    doubt = uncertainty(chances)
    size = _size(image.shape[1], image.shape[2])
    photo = _photo(image, size)
    shown: list[Panel] = [(f"{image.shape[2]}x{image.shape[1]}", Image.fromarray(photo))]
    pixels = photo.transpose(2, 0, 1)
    if truth is not None:
        shown.append((_given(truth), overlay(pixels, _mask(truth, size), colours)))
    shown.append((_verdict(truth, said), overlay(pixels, _mask(said, size), colours)))
    shown.append((f"uncertainty, mean {doubt.mean():.2f}", _heat(doubt, size)))
    row = _row(shown)
    return _stacked(row, _legend(truth, said, classes, colours, row.width))


def _legend(
    truth: NDArray[np.uint8] | None,
    said: NDArray[np.uint8],
    classes: Sequence[str],
    colours: Colours,
    width: int,
) -> Image.Image:
    """The predicted classes with their shares, and those that should have been."""
    shares = np.bincount(said.ravel(), minlength=len(classes)) / said.size
    seen = set(np.unique(said).tolist())
    if truth is not None:
        seen |= set(np.unique(truth).tolist()) - {IGNORE}
    kept = sorted(seen)
    rows = (
        [classes[k] for k in kept],
        [colours[k] for k in kept],
        [float(shares[k]) for k in kept],
    )
    return legend(*rows, width=width)


def _given(truth: NDArray[np.uint8]) -> str:
    without = float((truth == IGNORE).mean())
    return f"truth, {without:.1%} unlabelled" if without else "truth"


def _verdict(truth: NDArray[np.uint8] | None, said: NDArray[np.uint8]) -> str:
    if truth is None or truth.shape != said.shape:
        return "predicted"
    known = truth != IGNORE
    if not known.any():
        return "predicted; no truth here"
    return f"predicted, {(truth == said)[known].mean():.1%} right"


def _size(height: int, width: int) -> tuple[int, int]:
    """Width and height of a panel."""
    scale = SIDE / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _photo(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(C, H, W) as (h, w, 3) of `size`; pixels stay square blocks when they grow."""
    array = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)
    photo = Image.fromarray(np.ascontiguousarray(array))
    grows = size[0] > photo.width or size[1] > photo.height
    how = Image.Resampling.NEAREST if grows else Image.Resampling.BILINEAR
    return np.asarray(photo.resize(size, how))


def _mask(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def _heat(doubt: NDArray[np.float32], size: tuple[int, int]) -> Image.Image:
    """Doubts (H, W) of 0 to 1 in colour."""
    smooth = Image.fromarray(doubt).resize(size, Image.Resampling.BILINEAR)
    places = np.linspace(0, 1, len(DOUBT))
    channels = [np.interp(np.asarray(smooth), places, channel) for channel in DOUBT.T]
    return Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def _row(shown: Sequence[Panel]) -> Image.Image:
    """Panels of one size in a row, their captions above."""
    width, height = shown[0][1].size
    cell = max(width, NARROWEST)
    sheet = Image.new("RGB", (GAP + len(shown) * (cell + GAP), CAPTION + height + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(TEXT)
    for number, (words, picture) in enumerate(shown):
        left = GAP + number * (cell + GAP)
        pen.text((left, 4), shortened(words, font, cell), INK, font)
        sheet.paste(picture, (left, CAPTION))
    return sheet


def _stacked(upper: Image.Image, lower: Image.Image) -> Image.Image:
    sheet = Image.new("RGB", (upper.width, upper.height + lower.height + GAP), PAPER)
    sheet.paste(upper, (0, 0))
    sheet.paste(lower, (0, upper.height))
    return sheet
