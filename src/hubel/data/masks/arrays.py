"""Images and masks that are arrays already."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubel.data.arrays import source_from_arrays
from hubel.data.masks.classes import ClassList
from hubel.data.masks.codec import GREY, Raw
from hubel.data.masks.palette import pack
from hubel.data.masks.record import MaskArrays
from hubel.data.masks.scan import Seen, choose
from hubel.errors import BrokenImage, DataError

WHERE = "masks"


def from_arrays(
    images: Any, masks: Any, *, classes: ClassList | None = None, ignore: int | None = None
) -> MaskArrays:
    """A source from arrays of images and masks.

    Args:
        images: (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3: integers 0..255, floats
            0..1 or 0..255, or bool.
        masks: (N, H, W), with an axis of 1 before or behind if need be, of whole numbers or bool;
            or uint8 (N, H, W, 3) of colours.
        classes: the class list; None: as in folders of masks, from all values that occur.
        ignore: one more value that is ignored.

    Raises:
        DataError: wrong shapes, counts, types or values; says which and where.
    """
    masks = _masks(np.asarray(masks))
    images = np.asarray(images)
    given = np.zeros(len(images) if images.ndim else 0, np.int64)
    pixels = source_from_arrays(
        {"": (images, given)}, titles={"": ("images", WHERE)}, classes=("0", "1")
    ).images
    size = (len(pixels), *pixels.shape[2:])
    if masks.shape[:3] != size:
        raise DataError(
            f"masks: {_said(masks.shape[:3])}, but images: {_said(size)} (number, height, width); "
            "they must be equal"
        )
    seen = Seen(masks=len(masks))
    for mask in masks:
        raw = _raw(mask)
        seen.add(raw, raw.used())
    codec = choose(seen, classes, ignore, WHERE)
    labels = np.empty(size, np.uint8)
    for row, mask in enumerate(masks):
        try:
            labels[row] = codec.translate(_raw(mask), f"masks[{row}]")
        except BrokenImage as error:
            raise DataError(str(error)) from None
    return MaskArrays(pixels, labels, codec.classes, codec.colours)


def _raw(mask: NDArray[Any]) -> Raw:
    return Raw(mask, False, GREY) if mask.ndim == 2 else Raw(pack(mask), True, GREY)


def _masks(masks: NDArray[Any]) -> NDArray[Any]:
    """(N, H, W) of integers, or uint8 (N, H, W, 3)."""
    if masks.dtype.kind not in "buif":
        raise DataError(f"masks: pixels must be numbers, given {masks.dtype}")
    shape = masks.shape
    if masks.ndim == 4 and 1 in (shape[1], shape[3]):
        masks = masks[:, 0] if shape[1] == 1 else masks[..., 0]
    coloured = masks.ndim == 4 and shape[3] == 3 and masks.dtype == np.uint8
    if (masks.ndim != 3 and not coloured) or 0 in shape:
        raise DataError(
            f"masks must be (N, H, W) of class indices or uint8 (N, H, W, 3) of colours, given "
            f"{masks.dtype} {shape}"
        )
    if masks.dtype.kind == "f":
        wrong = ~(masks == np.floor(masks))  # NaN is wrong too; infinity is caught below
        if wrong.any():
            row, y, x = np.argwhere(wrong)[0].tolist()
            given = masks[row, y, x]
            raise DataError(f"masks[{row}] has {given} at row {y}, column {x}: no whole number")
        masks = np.clip(masks, -1, 1 << 20)
    whole = {"f": np.int32, "b": np.uint8}.get(masks.dtype.kind, masks.dtype)
    return np.asarray(masks, whole)


def _said(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
