"""DeepLab, first version: convolutions with holes keep the map of scores fine.

Chen, Papandreou, Kokkinos, Murphy, Yuille 2015, "Semantic image segmentation with deep
convolutional nets and fully connected CRFs". VGG-16 with pools of 3x3 whose last two do not
stride; conv5 looks twice as far apart instead (rate 2); fc6 as a convolution with holes, by `field`

    large  3x3, rate 12, 1024 maps   DeepLab-LargeFOV, 20,505,429 weights for 21 classes
    7x7    7x7, rate 4, 4096 maps    134,346,581
    4x4    4x4, rate 8, 4096 maps    65,140,565
    small  4x4, rate 4, 4096 maps    as many: the paper's first net, which sees less

The scores stand at every eighth pixel. In training they are the answer (where 8 does not divide a
side, read at the middles of equal blocks), and the loss reads the labels there; in use they are
enlarged eight times, bilinearly. The places of the last map lie at pixels 0, 8, 16, ... of what
the net is given; so an image gets a border of 4 (of zeros) at the top and the left, which puts
them into the middles of blocks of 8x8, and as much below and at the right as makes 8 n + 1 pixels,
as the authors' release has it. Pools of 2x2 in other bodies, whose places lie between pixels,
become 3x3 as well. The paper's CRF is not part of the net.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hubel.errors import ModelError, unknown
from hubel.models.body import Body, centre, vgg_features
from hubel.models.check import share, whole
from hubel.models.margin import Pair, cut, size_of

STRIDE = 8
# kernel, rate, maps
FIELDS = {"large": (3, 12, 1024), "7x7": (7, 4, 4096), "4x4": (4, 8, 4096), "small": (4, 4, 4096)}


class DeepLab(nn.Module):
    """float (N, C, H, W) of any size -> logits (N, classes, H, W).

    In training mode: {"logits": (N, classes, h, w)}, h = H / stride, rounded, and at least 1: the
    scores at the middles of h x w equal blocks, where the loss reads the labels. Where 8 divides
    the image these are the net's own places, (8 i + 4, 8 j + 4); else they lie between, as in use.

    Args:
        source: the features up to the last map, or a body.
        maps: of the last map; `stride`: pixels between its places.
        field: a key of `FIELDS`.
        fc: maps of fc6 and fc7; None: the field's.
        dropout: behind fc6 and fc7.
    """

    features: nn.Sequential
    body: Body

    def __init__(
        self,
        source: nn.Sequential | Body,
        maps: int,
        stride: int,
        *,
        classes: int,
        field: str,
        fc: int | None,
        dropout: float,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.part = "body" if isinstance(source, Body) else "features"
        setattr(self, self.part, source)
        kernel, rate, usual = FIELDS[field]
        wide = usual if fc is None else fc
        as_vgg = field == "7x7" and wide == usual
        self.begins = ("features", "fc6", "fc7") if as_vgg else ("features",)  # by VGG's
        border = rate * (kernel - 1) // 2
        self.fc6 = nn.Conv2d(maps, wide, kernel, padding=border, dilation=rate)
        self.relu6, self.drop6 = nn.ReLU(), nn.Dropout(dropout)
        self.fc7 = nn.Conv2d(wide, wide, 1)
        self.relu7, self.drop7 = nn.ReLU(), nn.Dropout(dropout)
        self.fc8 = nn.Conv2d(wide, classes, 1)

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        """float (N, C, H, W) -> logits (N, classes, H, W); in training at every `stride` pixels."""
        size, first = size_of(images), self.stride // 2
        bordered = _bordered(images, self.stride)
        x = self.features(bordered) if self.part == "features" else self.body(bordered)[-1]
        x = self.drop6(self.relu6(self.fc6(x)))
        scores = self.fc8(self.drop7(self.relu7(self.fc7(x))))
        if self.training:
            for axis, side in enumerate(size, start=2):
                scores = _at_middles(scores, axis, side, self.stride)
            return {"logits": scores}
        whole = [self.stride * (side - 1) + 1 for side in size_of(scores)]
        return cut(F.interpolate(scores, whole, mode="bilinear", align_corners=True), size, first)


def _bordered(images: Tensor, stride: int) -> Tensor:
    """S / 2 zeros at the top and the left; below and at the right up to sides of n S + 1, n > 0."""
    first = stride // 2
    blocks = [max(1, -(-(side + first - 1) // stride)) for side in size_of(images)]
    down, right = (
        stride * count + 1 - first - side
        for count, side in zip(blocks, size_of(images), strict=True)
    )
    return F.pad(images, (first, right, first, down))


def _at_middles(scores: Tensor, axis: int, side: int, stride: int) -> Tensor:
    """Scores along an axis, whose place i lies at pixel S i - S / 2 of `side`, in the middles of
    equal blocks of about S pixels: the pixels floor((k + 1/2) side / blocks)."""
    blocks = max(1, (side + stride // 2) // stride)
    middles = (2 * torch.arange(blocks, device=scores.device) + 1) * side // (2 * blocks)
    middles = middles + stride // 2
    before = middles // stride
    behind = (before + 1).clamp(max=scores.shape[axis] - 1)
    share = (middles % stride / stride).to(scores)
    share = share[:, None] if axis == 2 else share
    left, right = scores.index_select(axis, before), scores.index_select(axis, behind)
    return left + share * (right - left)


def deeplab_v1(
    *,
    classes: int,
    channels: int,
    size: Pair,
    body: str = "vgg16",
    field: str = "large",
    fc: int | None = None,
    dropout: float = 0.5,
) -> DeepLab:
    """DeepLab. On VGG-16 the release's net; any classifier's name as `body`, held at stride 8.

    Raises `ModelError` for an unknown field or body.
    """
    if field not in FIELDS:
        raise ModelError(unknown("field", field, FIELDS))
    given: dict[str, Any] = {
        "classes": classes,
        "field": field,
        "fc": None if fc is None else whole("fc", fc),
        "dropout": share("dropout", dropout),
    }
    if body == "vgg16":
        source = vgg_features("vgg16", channels, output_stride=STRIDE)
        centre(source)
        return DeepLab(source, 512, STRIDE, **given)
    with torch.device("meta"):
        most = max(stride for stride in Body(body, channels).strides if stride <= STRIDE)
    found = Body(body, channels, output_stride=most)
    centre(found)
    maps, stride = found.widths[-1], found.strides[-1]
    return DeepLab(found, maps, stride, **given)
