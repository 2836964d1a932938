"""DeconvNet: a classifier, and its mirror image that draws what it has seen.

Noh, Hong, Han 2015, "Learning deconvolution network for semantic segmentation", table 1: VGG-16's
convolutions; fc6 and fc7 as convolutions of 7x7 and 1x1; then the way back: a transposed
convolution of 7x7 (fc6-deconv), and for every pool an unpooling that puts each value where the
maximum was (the switches of this forward pass), followed by transposed convolutions. Batch norm
and ReLU behind every layer but the last. 251,772,245 weights for 21 classes before batch norm.

The paper feeds boxes of 224 x 224, whose last map of 7x7 fc6 sees whole. Here

- images whose sides are no multiples of 32 are mirrored below and at the right, and cut back;
- larger ones let fc6 slide over the last map, and fc6-deconv adds up what overlaps;
- smaller ones are mirrored to the window of fc6. A net that is built for less than 224 pixels gets
  a window to match (`size` 64: 2x2), so that small images need no border.

Features are torchvision's vgg16_bn by name. `width` and `fc` make nets that a CPU can train.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from hubel.errors import ModelError
from hubel.models.body import vgg_features
from hubel.models.check import whole
from hubel.models.margin import Pair, cut, filled, size_of
from hubel.models.upsampling import Upsample
from hubel.models.vgg import CONFIGURATIONS, STAGES

STRIDE = 32
WINDOW = 7  # of fc6, for 224 pixels


class DeconvNet(nn.Module):
    """float (N, C, H, W) of any size -> logits (N, classes, H, W).

    Args:
        width: share of VGG's maps, 0 < width <= 1.
        fc: maps of fc6 and fc7.
        window: (rows, columns) of fc6, in places of the last map.
    """

    begins = ("features",)  # by VGG's

    def __init__(self, *, classes: int, channels: int, width: float, fc: int, window: Pair) -> None:
        super().__init__()
        self.window = window
        maps = [max(1, round(stage * width)) for stage in STAGES]
        self.features = _features(channels, maps)
        self.fc6 = _normed(nn.Conv2d(maps[-1], fc, window))
        self.fc7 = _normed(nn.Conv2d(fc, fc, 1))
        self.fc6_deconv = _normed(nn.ConvTranspose2d(fc, maps[-1], window))
        self.unpool = nn.ModuleList(Upsample("max_unpool", 2) for _ in STAGES)
        before = [maps[0], *maps[:-1]]  # what each stage of the way back ends in
        steps = zip(maps, before, CONFIGURATIONS[16], strict=True)
        self.deconv = nn.ModuleList(_stage(*step) for step in reversed(list(steps)))
        self.score = nn.Conv2d(maps[0], classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """float (N, C, H, W) -> logits (N, classes, H, W)."""
        least = (STRIDE * self.window[0], STRIDE * self.window[1])
        x, switches = filled(images, least, STRIDE), []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                sizes = size_of(x)
                x, places = layer(x)
                switches.append((places, sizes))
            else:
                x = layer(x)
        x = self.fc6_deconv(self.fc7(self.fc6(x)))
        ways = zip(self.unpool, self.deconv, reversed(switches), strict=True)
        for unpool, deconv, (places, size) in ways:
            x = deconv(unpool(x, places, size))
        return cut(self.score(x), size_of(images))


def _features(channels: int, maps: list[int]) -> nn.Sequential:
    """vgg16_bn's, with so many maps a stage; its pools tell where the maxima were."""
    layers = vgg_features("vgg16_bn", channels)
    if maps != list(STAGES):
        layers = _thinned(layers, channels, dict(zip(STAGES, maps, strict=True)))
    for number, layer in enumerate(layers):
        if isinstance(layer, nn.MaxPool2d):
            layers[number] = nn.MaxPool2d(2, return_indices=True)
    return layers


def _thinned(layers: nn.Sequential, channels: int, maps: dict[int, int]) -> nn.Sequential:
    """The same layers with fewer maps: `maps` says how many for how many of VGG's."""
    thin: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            wide = maps[layer.out_channels]
            thin += [nn.Conv2d(channels, wide, 3, padding=1)]
            channels = wide
        elif isinstance(layer, nn.BatchNorm2d):
            thin.append(nn.BatchNorm2d(channels))
        else:
            thin.append(layer)
    return nn.Sequential(*thin)


def _normed(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    parts = {"conv": layer, "bn": nn.BatchNorm2d(layer.out_channels), "relu": nn.ReLU()}
    return nn.Sequential(OrderedDict(parts))


def _stage(maps_in: int, maps: int, count: int) -> nn.Sequential:
    """`count` transposed convolutions of 3x3; the last one changes the maps."""
    out = [maps_in] * (count - 1) + [maps]
    return nn.Sequential(*(_normed(nn.ConvTranspose2d(maps_in, m, 3, padding=1)) for m in out))


def deconvnet(
    *, classes: int, channels: int, size: Pair, width: float = 1.0, fc: int = 4096
) -> DeconvNet:
    """DeconvNet. Raises `ModelError` for a width outside of 0 < width <= 1."""
    if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width <= 1:
        raise ModelError(f"width must be a share of VGG's maps, above 0 to 1, given {width!r}")
    rows, columns = (min(WINDOW, -(-side // STRIDE)) for side in size)
    return DeconvNet(
        classes=classes,
        channels=channels,
        width=float(width),
        fc=whole("fc", fc),
        window=(rows, columns),
    )
