"""Arrays as small PNG data URIs: the only form in which pictures enter the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LARGEST = 160  # pixels on the longer side
MAP = 56  # pixels of a feature map: there are some two hundred of them
CRISP = 64  # up to here the pixels themselves are the point: shown enlarged and unsmoothed


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: `uri` for <img src>, its pixels, and whether to show them as squares."""

    uri: str
    width: int
    height: int
    crisp: bool


def photo(image: NDArray[np.uint8], largest: int = LARGEST) -> Picture:
    """A picture of uint8 (C, H, W), C = 1 or 3, scaled down where it is larger than `largest`."""
    grey = image.shape[0] == 1
    whole = Image.fromarray(np.ascontiguousarray(image[0] if grey else image.transpose(1, 2, 0)))
    small = _shrunk(whole, largest)
    if not grey and max(small.size) > CRISP:
        # 256 colours of its own: a third of the bytes, and at this size no eye sees it
        small = small.quantize(256, method=Image.Quantize.MEDIANCUT)
    return _picture(small)


def heat(values: NDArray[np.floating[Any]], top: float, largest: int = MAP) -> Picture:
    """A grey picture of float (h, w): 0 is black, `top` is white, below and above is cut."""
    scaled = np.clip(np.nan_to_num(values) / (top or 1.0), 0, 1)
    return _picture(_shrunk(Image.fromarray((255 * scaled).round().astype(np.uint8)), largest))


def signed(weights: NDArray[np.floating[Any]], top: float) -> Picture:
    """A picture of float (C, h, w) around zero: mid-grey is 0, white +top, black -top.

    Three channels become colour; any other number is averaged to grey.
    """
    scaled = np.clip(127.5 + 127.5 * np.nan_to_num(weights) / (top or 1.0), 0, 255)
    colour = len(weights) == 3
    pixels = scaled.transpose(1, 2, 0) if colour else scaled.mean(axis=0)
    return _picture(_shrunk(Image.fromarray(pixels.round().astype(np.uint8)), LARGEST))


def tinted(alpha: NDArray[np.floating[Any]], colours: NDArray[np.uint8]) -> Picture:
    """A picture of colours uint8 (h, w, 3), as dense as `alpha` 0..1 (h, w): empty is clear."""
    veil = (255 * np.clip(alpha, 0, 1)).round().astype(np.uint8)
    return _picture(Image.fromarray(np.dstack([colours, veil])))


def _shrunk(image: Image.Image, largest: int) -> Image.Image:
    scale = largest / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(scale * side)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _picture(image: Image.Image) -> Picture:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return Picture(uri, image.width, image.height, crisp=max(image.size) <= CRISP)
