"""U-Net's weight map: the thin gaps between neighbouring objects count more."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hubel.data.masks.record import IGNORE
from hubel.errors import OptionError
from hubel.tasks.segmentation.membranes import pieces

NEGLIGIBLE = 2.0**-25  # beside a weight of 1 in float32


def border_weights(
    mask: NDArray[np.uint8],
    objects: int,
    *,
    w0: float = 10.0,
    sigma: float = 5.0,
    balance: bool = False,
) -> NDArray[np.float32]:
    """w = w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)) for every pixel (Ronneberger et al. 2015).

    d1, d2 are the distances in pixels to the nearest and the second nearest object, from pixel
    centre to pixel centre; objects are the connected pieces (by sides) of one class. Pixels of
    objects get w_c alone, pixels without a label 0.

    Args:
        mask: (H, W), a class or IGNORE.
        objects: the class whose pieces are the objects.
        w0, sigma: height, and width in pixels, of the border's term; the paper's are 10 and 5.
        balance: w_c makes all classes weigh alike, 1 in the mean; else w_c = 1 everywhere.

    Returns float32 (H, W). Raises `OptionError` unless w0 >= 0 and sigma > 0.
    """
    if not (w0 >= 0 and sigma > 0):
        raise OptionError(f"w0 must be 0 or more and sigma above 0, given {w0} and {sigma}")
    reach = sigma * math.sqrt(2 * math.log(max(w0 / NEGLIGIBLE, 1)))
    apart = _two_nearest(pieces(mask, objects), reach).sum(axis=0)
    border = w0 * np.exp(-(apart**2) / (2 * sigma**2))
    weights = _class_weights(mask) if balance else np.ones(mask.shape)
    weights += np.where(mask == objects, 0, border)
    return np.where(mask == IGNORE, 0, weights).astype(np.float32)


def _two_nearest(numbered: NDArray[np.int32], reach: float) -> NDArray[np.float64]:
    """Distances (2, H, W) to the nearest and second nearest piece; infinite beyond `reach`."""
    nearest = np.full((2, *numbered.shape), np.inf)
    for window, away in _distances(numbered, math.ceil(reach)):
        first, second = nearest[(slice(None), *window)]
        np.minimum(second, np.maximum(first, away), out=second)
        np.minimum(first, away, out=first)
    return nearest


def _distances(
    numbered: NDArray[np.int32], margin: int
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.float64]]]:
    """Piece by piece: a window around it, and the distance to it of the window's pixels.

    A piece lies whole in its window, so distances there are exact; outside they exceed `margin`.
    """
    for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), start=1):
        window = (
            slice(max(rows.start - margin, 0), rows.stop + margin),
            slice(max(columns.start - margin, 0), columns.stop + margin),
        )
        yield window, ndimage.distance_transform_edt(numbered[window] != number)


def _class_weights(mask: NDArray[np.uint8]) -> NDArray[np.float64]:
    """n / (classes n_c) for a pixel of class c: as much in sum for every class that occurs."""
    counts = np.bincount(mask.ravel(), minlength=IGNORE + 1).astype(np.float64)
    counts[IGNORE] = 0
    weights = counts.sum() / (max((counts > 0).sum(), 1) * np.maximum(counts, 1))
    found: NDArray[np.float64] = weights[mask]
    return found
