"""The weights of the first layer as pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn


@dataclass(frozen=True, slots=True)
class Filters:
    """What a net looks for first.

    Attributes:
        weights: float32 (O, C, Kh, Kw), one picture per output; a copy.
        name: the layer's path in the model.
    """

    weights: NDArray[np.float32]
    name: str


def first_filters(model: nn.Module, image: tuple[int, int, int] | None = None) -> Filters | None:
    """The filters of the first convolution, or of the first fully connected layer, as they are.

    First means registered first. A fully connected layer counts where it maps straight from the
    pixels of `image` (C, H, W): its rows then are as large as the image. None where the first
    layer is neither.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            return Filters(_array(layer), name)
        if isinstance(layer, nn.Linear):
            if image is None or layer.in_features != np.prod(image):
                return None
            return Filters(_array(layer).reshape(-1, *image), name)
    return None


def _array(layer: nn.Conv2d | nn.Linear) -> NDArray[np.float32]:
    weights: NDArray[np.float32] = layer.weight.detach().cpu().float().numpy().copy()
    return weights
