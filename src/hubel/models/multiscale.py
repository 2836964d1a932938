"""One net, three scales: features of a pixel from its near and its far surroundings.

Farabet, Couprie, Najman, LeCun 2013, "Learning hierarchical features for scene labeling". The image
in YUV, as a Laplacian pyramid of three scales, each with zero mean and unit variance around every
pixel (15x15); the same net on every scale: 7x7 convolutions of 16, 64 and 256 maps, tanh and a 2x2
pool behind the first two; all brought to the size of the finest and joined: 768 features a place,
which a classifier with one hidden layer of 1024 turns into scores. The paper's vote over
superpixels or a tree of segments comes behind the net and is not part of it.

Where this differs: convolutions see all maps before them (the paper links each to some, chosen at
random); they are padded; the features train with the classifier, not before it. Scores stand at
every fourth pixel and are brought to all of them bilinearly. Images whose sides are no multiples
of 16 are mirrored below and at the right, and cut back.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hubel.models.check import whole
from hubel.models.margin import Pair, cut, filled, framed, size_of
from hubel.models.smoothing import BINOMIAL, smoothed
from hubel.models.upsampling import bilinear

SCALES = 3
MAPS = (16, 64, 256)
STRIDE = 4  # of the shared net
NEAR = 7  # pixels to each side: 15x15
QUIET = 1e-3  # variance below which a surrounding counts as flat
# Rows Y, U, V of red, green, blue
YUV = ((0.299, 0.587, 0.114), (-0.14713, -0.28886, 0.436), (0.615, -0.51499, -0.10001))


class Multiscale(nn.Module):
    """float (N, C, H, W) of any size -> logits (N, classes, H, W).

    Images of three channels are taken as red, green, blue; others are not turned to YUV.

    Args:
        hidden: units of the classifier; 0: none, scores are linear in the features.
    """

    def __init__(self, *, classes: int, channels: int, hidden: int) -> None:
        super().__init__()
        one, two, three = MAPS
        self.shared = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(channels, one, 7, padding=3),
                tanh1=nn.Tanh(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(one, two, 7, padding=3),
                tanh2=nn.Tanh(),
                pool2=nn.MaxPool2d(2),
                conv3=nn.Conv2d(two, three, 7, padding=3),
            )
        )
        features = SCALES * three
        self.hidden = nn.Sequential(nn.Conv2d(features, hidden, 1), nn.Tanh()) if hidden else None
        self.score = nn.Conv2d(hidden or features, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """float (N, C, H, W) -> logits (N, classes, H, W)."""
        bands = self.bands(filled(images, (1, 1), STRIDE * 2 ** (SCALES - 1)))
        maps = [bilinear(self.shared(band), 2**scale) for scale, band in enumerate(bands)]
        x = torch.cat(maps, dim=1)
        x = x if self.hidden is None else self.hidden(x)
        return cut(bilinear(self.score(x), STRIDE), size_of(images))

    def bands(self, images: Tensor) -> list[Tensor]:
        """What the shared net sees: (N, C, H, W) -> normalised (N, C, H / 2^s, W / 2^s), s = 0..2.

        H and W are multiples of 4.
        """
        return [evened(band) for band in laplacian(yuv(images), SCALES)]


def yuv(images: Tensor) -> Tensor:
    """Red, green, blue (N, 3, H, W) -> Y, U, V; images of other channels stay as they are."""
    if images.shape[1] != 3:
        return images
    return F.conv2d(images, torch.tensor(YUV).to(images)[:, :, None, None])


def laplacian(images: Tensor, scales: int) -> list[Tensor]:
    """(N, C, H, W) -> what each scale has beyond the next, (N, C, H / 2^s, W / 2^s); the last scale
    whole. With every band enlarged and added, the image again (Burt, Adelson 1983, who keep every
    second pixel; the mean of 2x2 lies in the middle of its block, where enlarging puts it)."""
    bands = []
    for _ in range(scales - 1):
        coarse = F.avg_pool2d(smoothed(images, BINOMIAL), 2)
        bands.append(images - bilinear(coarse, 2))
        images = coarse
    return [*bands, images]


def evened(images: Tensor) -> Tensor:
    """(N, C, H, W) -> each map less its mean around every pixel, over its deviation there."""
    side = 2 * NEAR + 1
    centred = images - F.avg_pool2d(framed(images, NEAR), side, 1)
    power = F.avg_pool2d(framed(centred.square(), NEAR), side, 1)
    return centred / (power + QUIET).sqrt()


def multiscale(*, classes: int, channels: int, size: Pair, hidden: int = 1024) -> Multiscale:
    """The multiscale net."""
    return Multiscale(classes=classes, channels=channels, hidden=whole("hidden", hidden, 0))
