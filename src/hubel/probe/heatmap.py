"""Where in a photo a classifier sees what: its scores for every window of a larger image.

The net is turned into one that slides (`hubel.convolutionalize`), so a single pass answers for all
windows of the size it was trained with, a few pixels apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hubel.data.preprocess import Preprocess
from hubel.errors import ModelError, OptionError
from hubel.models.convolutionalize import convolutionalize
from hubel.models.sliding import Pair
from hubel.models.watch import untouched

MOST_PIXELS = 2**23  # a first layer of 32 maps then takes 1 GiB


class Peak(NamedTuple):
    """The window in which a class is likeliest: its probability, and its centre in pixels."""

    probability: float
    row: int
    column: int
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Heatmap:
    """What a net says of every window of one image.

    Attributes:
        probabilities: float32 (K, h, w), per window they sum to 1.
        window: (H, W) pixels that each of them saw.
        stride: pixels from one window to the next, (rows, columns).
    """

    probabilities: NDArray[np.float32]
    window: Pair
    stride: Pair

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Top, left, bottom, right of a window, in pixels; the last two are the first outside.

        The last windows may reach a few pixels over the image's edge: those the net leaves unread.
        """
        top, left = row * self.stride[0], column * self.stride[1]
        return top, left, top + self.window[0], left + self.window[1]

    def extent(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom in pixels of the cells that lie around the windows' centres."""
        _, h, w = self.probabilities.shape
        top, left = ((side - step) / 2 for side, step in zip(self.window, self.stride, strict=True))
        return left, top, left + w * self.stride[1], top + h * self.stride[0]

    def peak(self, number: int) -> Peak:
        """Where class `number` is likeliest; the first of equals in reading order."""
        scores = self.probabilities[number]
        row, column = np.unravel_index(int(scores.argmax()), scores.shape)
        top, left, bottom, right = self.box(int(row), int(column))
        x, y = (left + right) / 2, (top + bottom) / 2
        return Peak(float(scores[row, column]), int(row), int(column), x, y)

    def likeliest(self, top: int) -> list[int]:
        """The classes with the highest peaks; of those alike to 1 %, the wider spread first."""
        flat = self.probabilities.reshape(len(self.probabilities), -1)
        peaks, spread = flat.max(axis=1).round(2), flat.mean(axis=1)
        return [int(k) for k in np.lexsort((-spread, -peaks))[:top]]


def class_heatmap(model: nn.Module, image: Tensor, *, size: Pair | None = None) -> Heatmap:
    """Softmax probabilities of all classes for every window of a larger image.

    Args:
        model: what `hubel.convolutionalize` gave; or, with `size`, the classifier itself.
        image: float (C, H', W'), normalised, on the model's device; at least as large as a window.
        size: (H, W) of the images the classifier was trained with.

    Raises `ModelError` where the net cannot slide, or the image is smaller than its window.
    """
    if size is not None:
        model = convolutionalize(model, size, len(image))
    meta = getattr(model, "meta", {})
    if "window" not in meta:
        raise ModelError(
            "give what hubel.convolutionalize returned, or the size (H, W) of training"
        )
    window: Pair = meta["window"]
    if image.shape[-2] < window[0] or image.shape[-1] < window[1]:
        raise ModelError(
            f"the net sees windows of {window[0]}x{window[1]} pixels, "
            f"given an image of {image.shape[-2]}x{image.shape[-1]}"
        )
    with torch.no_grad(), untouched(model, training=False):
        scores = model(image[None]).float().softmax(dim=1)[0]
    return Heatmap(scores.cpu().numpy(), window, meta["stride"])


def fitted(
    pixels: NDArray[np.uint8],
    preprocess: Preprocess,
    *,
    scale: float | None = None,
    short: int | None = None,
) -> NDArray[np.uint8]:
    """A decoded photo as the net's windows meet it: uint8 (c, h, w) -> (C, H', W').

    It gets the net's channels, and becomes `scale` times as large, or `short` pixels on its short
    side; its proportions stay. A photo too small for one window is enlarged until one fits.

    Raises `OptionError` for a scale of 0 or less, for both words at once, and where more than
    8,388,608 pixels would come of it.
    """
    height, width = pixels.shape[1:]
    if scale is not None and short is not None:
        raise OptionError(f"give a scale or a size, not both: given {scale:g} and {short}")
    if scale is not None and not 0 < scale < math.inf:
        raise OptionError(f"a scale is a number above 0, given {scale:g}")
    factor = scale or (1.0 if short is None else short / min(height, width))
    factor = max(factor, preprocess.height / height, preprocess.width / width)
    high = max(preprocess.height, round(height * factor))
    wide = max(preprocess.width, round(width * factor))
    if high * wide > MOST_PIXELS:
        largest = (MOST_PIXELS / (height * width)) ** 0.5
        raise OptionError(
            f"at most {MOST_PIXELS:,} pixels are looked at, given {high}x{wide}: "
            f"take a scale of {int(largest * 100) / 100:g} or less"
        )
    return replace(preprocess, height=high, width=wide, fit="stretch").image(pixels)
