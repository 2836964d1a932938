"""Arrays as small data URIs: the only form in which pictures enter the page.

PNG, but for the few photos above `LARGEST`: as JPEG they take a fifth of the bytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hubel.tasks.segmentation.overlay import difference
from hubel.tasks.segmentation.panels import DOUBT

LARGEST = 160  # pixels on the longer side
WIDE = 320  # of an image beside its masks
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
    if max(small.size) > LARGEST:
        return _picture(small, "JPEG")
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


def areas(labels: NDArray[np.uint8], colours: Sequence[tuple[int, int, int]]) -> Picture:
    """A mask uint8 (h, w) in its classes' colours, as the legend has them; 255 is hatched."""
    table = np.zeros((256, 4), np.uint8)
    table[: len(colours), :3] = colours
    table[: len(colours), 3] = 255
    picture = Image.fromarray(table[labels])
    picture.alpha_composite(difference(labels, labels))
    return _picture(picture)


def wrong(
    image: NDArray[np.uint8], truth: NDArray[np.uint8], predicted: NDArray[np.uint8]
) -> Picture:
    """The photo (C, h, w), faint and grey, with its wrong pixels in red: masks (h, w)."""
    photo = Image.fromarray(image.mean(axis=0).astype(np.uint8)).convert("RGB")
    faint = Image.blend(photo, Image.new("RGB", photo.size, (255, 255, 255)), 0.45)
    marks = difference(truth, predicted)
    faint.paste(marks, mask=marks)
    return _picture(faint, "JPEG")


def doubt(uncertainty: NDArray[np.uint8]) -> Picture:
    """Uncertainty uint8 (h, w) from dark (0, sure) to bright (255, no idea)."""
    few = Image.fromarray(uncertainty // 8 * 8)  # 32 steps: half the bytes of 256
    places = np.linspace(0, 255, len(DOUBT))
    ramp = [np.interp(np.arange(256), places, channel) for channel in DOUBT.T]
    few.putpalette(np.stack(ramp, axis=-1).round().astype(np.uint8).tobytes())
    return _picture(few)


def _shrunk(image: Image.Image, largest: int) -> Image.Image:
    scale = largest / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(scale * side)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _picture(image: Image.Image, form: str = "PNG") -> Picture:
    file = io.BytesIO()
    # Thin red lines stay red in a JPEG whose colours are as fine as its light.
    how: dict[str, Any] = (
        {"quality": 82, "subsampling": 0} if form == "JPEG" else {"optimize": True}
    )
    image.save(file, form, **how)
    text = base64.b64encode(file.getvalue()).decode("ascii")
    uri = f"data:image/{form.lower()};base64,{text}"
    return Picture(uri, image.width, image.height, crisp=max(image.size) <= CRISP)
