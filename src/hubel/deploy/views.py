"""Test-time augmentation: one image judged by several views of it, their probabilities averaged.

Each way is a module around the net that takes the larger image and answers with the logarithm of
the averaged probabilities, whose softmax are these probabilities again: so whatever predicts or
evaluates with a net does so with its views.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hubel.data.preprocess import Preprocess
from hubel.errors import OptionError, unknown
from hubel.models.convolutionalize import convolutionalize
from hubel.runs.weights import Card
from hubel.tasks.classify import logits

Size = tuple[int, int]
Box = tuple[int, int]

MARGIN = 256 / 224  # the image over the crop, per side (Krizhevsky et al. 2012)
TTA = ("none", "flip", "ten-crop", "dense")


def viewed(model: nn.Module, card: Card, tta: str) -> tuple[nn.Module, Card]:
    """The net that judges by views, and the card that says how large the images are to be.

    Args:
        model: images (N, C, H, W) at the card's size -> logits (N, K).
        card: the net's own.
        tta: "none"; "flip": the image and its mirror; "ten-crop": four corners and centre of the
            image at 256/224 of the size, and their mirrors (Krizhevsky et al. 2012); "dense": the
            net as a fully convolutional one over the whole of that larger image, its class scores
            averaged over the places, and the same with the mirror (Simonyan and Zisserman 2014,
            section 3.2).

    Raises:
        OptionError: another word.
        ModelError: a net that cannot be made convolutional ("dense").
    """
    if tta not in TTA:
        raise OptionError(unknown("tta", tta, TTA))
    size = (card.preprocess.height, card.preprocess.width)
    if tta == "none":
        return model, card
    larger = replace(card, preprocess=enlarged(card.preprocess))
    views: nn.Module
    if tta == "flip":
        views, larger = Flip(model), card
    elif tta == "ten-crop":
        views = TenCrop(model, size)
    else:
        views = Dense(model, size, card.preprocess.channels)
    return views.train(model.training), larger


def enlarged(preprocess: Preprocess) -> Preprocess:
    """The same road to 256/224 times the size, each side rounded: 224 -> 256, 28 -> 32. What a
    crop left out is taken in first, so that things stay as large as they were."""
    height, width = (round(side * MARGIN) for side in (preprocess.height, preprocess.width))
    kept = min(1.0, preprocess.kept * MARGIN)
    return replace(preprocess, height=height, width=width, kept=kept)


class Flip(nn.Module):
    """The image and its mirror. (N, C, H, W) -> log probabilities (N, K)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return averaged(self.model, [images, mirror(images)])


class TenCrop(nn.Module):
    """Four corners, centre and their mirrors. (N, C, H', W') -> log probabilities (N, K).

    Args:
        size: (H, W) of a crop, at most (H', W').
    """

    def __init__(self, model: nn.Module, size: Size) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, images: Tensor) -> Tensor:
        height, width = self.size
        crops = [
            images[:, :, top : top + height, left : left + width]
            for top, left in five_boxes((images.shape[2], images.shape[3]), self.size)
        ]
        return averaged(self.model, [view for crop in crops for view in (crop, mirror(crop))])


class Dense(nn.Module):
    """The net slid over the whole image, and over its mirror: class scores averaged over the
    places, then softmax, then the two averaged. (N, C, H', W') -> log probabilities (N, K).

    Args:
        size, channels: of the images that `model` was made for, (H, W) and C.

    Raises `ModelError` where the net cannot be made convolutional.
    """

    def __init__(self, model: nn.Module, size: Size, channels: int) -> None:
        super().__init__()
        self.model = convolutionalize(model, size=size, channels=channels)

    def forward(self, images: Tensor) -> Tensor:
        return averaged(self._scores, [images, mirror(images)])

    def _scores(self, images: Tensor) -> Tensor:
        found: Tensor = self.model(images)
        return found.mean(dim=(2, 3))


def five_boxes(outer: Size, inner: Size) -> tuple[Box, ...]:
    """(top, left) of the crops of size `inner` in an image of size `outer`: the four corners, then
    the centre, rounded down."""
    bottom, right = outer[0] - inner[0], outer[1] - inner[1]
    return (0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)


def mirror(images: Tensor) -> Tensor:
    """Left becomes right. (N, C, H, W) -> the same shape."""
    return images.flip(3)


def averaged(model: Callable[[Tensor], object], views: Sequence[Tensor]) -> Tensor:
    """The log of the mean over the views of the net's probabilities, float32 (N, K).

    Summed as logarithms, so that a class of vanishing probability keeps a finite loss.

    Args:
        views: each (N, C, H, W); they go through the net one after the other.
    """
    total: Tensor | None = None
    for view in views:
        found = F.log_softmax(logits(model(view)).float(), dim=1)
        total = found if total is None else torch.logaddexp(total, found)
    assert total is not None
    return total - math.log(len(views))
