"""Superpixels, and a vote within each: a net's soft labels made to follow the image's edges."""

from __future__ import annotations

from importlib import import_module

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hubel.errors import DataError


def superpixels(
    image: NDArray[np.uint8], *, scale: float = 100.0, sigma: float = 0.8, least: int = 20
) -> NDArray[np.int64]:
    """Felzenszwalb and Huttenlocher 2004: pieces of like colour, int64 (H, W), numbered from 0.

    Args:
        image: uint8 (C, H, W).
        scale: the higher, the larger the pieces.
        sigma: pixels by which the image is smoothed first.
        least: pixels that a piece has at least.
    """
    pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
    library = import_module("skimage.segmentation")  # half a second, for those who ask for it
    found: NDArray[np.int64] = library.felzenszwalb(
        pixels, scale=scale, sigma=sigma, min_size=least, channel_axis=-1
    )
    return found


def vote(probabilities: ArrayLike, segments: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The class that is likeliest in the mean over a pixel's superpixel (Farabet et al. 2013).

    Args:
        probabilities: (K, H, W).
        segments: (H, W), numbers from 0.

    Returns labels uint8 (H, W). Raises `DataError` where the sizes differ.
    """
    chances = np.asarray(probabilities)
    if chances.shape[1:] != segments.shape:
        raise DataError(
            f"probabilities and superpixels must have one size; they have {chances.shape[1:]} "
            f"and {segments.shape}"
        )
    owners = segments.ravel()  # sums say who wins, as means would: a piece divides all by one size
    sums = np.stack([np.bincount(owners, weights=chance.ravel()) for chance in chances])
    winners: NDArray[np.uint8] = sums.argmax(axis=0).astype(np.uint8)[segments]
    return winners
