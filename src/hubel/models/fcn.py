"""FCN: a classifier made fully convolutional, its scores brought back to the size of the image.

Long, Shelhamer, Darrell 2015, "Fully convolutional networks for semantic segmentation".

On VGG-16 these are the nets of the authors' reference release: a border of 100 pixels at the first
convolution, pools that round up, fc6 and fc7 as convolutions of 7x7 and 1x1, score layers that
begin at zero. FCN-32s enlarges the scores of the last map 32 times at once. FCN-16s enlarges them
twice, adds scores of pool4, then 16 times; FCN-8s adds those of pool3 as well, then 8 times. All
enlargement is by transposed convolutions with full weights (every class to every class), set to
bilinear interpolation. The release keeps them so; the paper learned the inner ones and saw no
significant difference (`learn_upsampling`). What stands at the same pixel is added: the crops below
are those of the release. 136,152,917, 134,815,994 and 134,489,759 weights for 21 classes.

On any other body (`body="resnet18"`) the same head without fc6 and fc7: scores of the last map and
of the two before it. Padding is the body's own, and every class is enlarged by itself. Zeros below
and at the right make sides of 32 n + 1 pixels: the places of every map, whose convolutions stride,
then lie at pixels 0, S, 2 S, ..., and kernels of 2 S - 1 enlarge from there, with nothing to crop.
(Kernels of 2 S, for places in the middle of blocks, would put all scores 15 pixels beside what they
are of.) Pools of 2x2 become 3x3 for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from hubel.errors import ModelError
from hubel.models.body import Body, centre, take, vgg_features
from hubel.models.check import share, yes_no
from hubel.models.initialise import he
from hubel.models.margin import Pair, cut, size_of
from hubel.models.upsampling import make_bilinear

BORDER = 100  # pixels around the image: fc6 needs 7x7 places of the smallest image's last map
POOL3, POOL4 = 16, 23  # where they stand among the features
# Pixels cut at the top and the left: of the result, by stride, and of the scores of both pools
CROPS = {32: 19, 16: 27, 8: 31}
CROP_POOL4, CROP_POOL3 = 5, 9
SHALLOWER = {32: 0, 16: 1, 8: 2}  # maps that are used besides the last


class FCN(nn.Module):
    """The reference nets on VGG-16: float (N, C, H, W) of any size -> logits (N, classes, H, W).

    Parameter names are torchvision's in `features`, and the release's behind it.

    Args:
        stride: 32, 16 or 8: by how much the last step enlarges.
        dropout: behind fc6 and fc7.
        learn_upsampling: let the transposed convolutions learn.
    """

    score_pool3: nn.Module
    score_pool4: nn.Module
    upscore: nn.Module
    upscore2: nn.Module
    upscore_pool4: nn.Module
    upscore8: nn.Module
    upscore16: nn.Module

    def __init__(
        self, stride: int, *, classes: int, channels: int, dropout: float, learn_upsampling: bool
    ) -> None:
        super().__init__()
        self.stride = stride
        self.features = vgg_features("vgg16", channels)
        first = self.features[0]
        assert isinstance(first, nn.Conv2d)
        first.padding = (BORDER, BORDER)
        self.fc6, self.relu6 = nn.Conv2d(512, 4096, 7), nn.ReLU()
        self.drop6 = nn.Dropout(dropout)
        self.fc7, self.relu7 = nn.Conv2d(4096, 4096, 1), nn.ReLU()
        self.drop7 = nn.Dropout(dropout)
        if stride == 8:
            self.score_pool3 = nn.Conv2d(256, classes, 1)
        if stride <= 16:
            self.score_pool4 = nn.Conv2d(512, classes, 1)
        self.score_fr = nn.Conv2d(4096, classes, 1)
        for name, factor in _enlargements(stride).items():
            layer = nn.ConvTranspose2d(classes, classes, 2 * factor, factor, bias=False)
            setattr(self, name, layer.requires_grad_(learn_upsampling))
        self.head = {8: "score_pool3", 16: "score_pool4", 32: "score_fr"}[stride]

    def initialise(self) -> None:
        """Draw new weights: He's rule, score layers zero, upsampling bilinear."""
        _draw(self)

    def forward(self, images: Tensor) -> Tensor:
        """float (N, C, H, W) -> logits (N, classes, H, W)."""
        pool3 = self.features[: POOL3 + 1](images)
        pool4 = self.features[POOL3 + 1 : POOL4 + 1](pool3)
        x = self.features[POOL4 + 1 :](pool4)
        x = self.drop6(self.relu6(self.fc6(x)))
        x = self.score_fr(self.drop7(self.relu7(self.fc7(x))))
        if self.stride == 32:
            x = self.upscore(x)
        else:
            x = self.upscore2(x)
            x = x + cut(self.score_pool4(pool4), size_of(x), CROP_POOL4)
            x = self.upscore16(x) if self.stride == 16 else self._with_pool3(x, pool3)
        return cut(x, size_of(images), CROPS[self.stride])

    def _with_pool3(self, x: Tensor, pool3: Tensor) -> Tensor:
        x = self.upscore_pool4(x)
        x = x + cut(self.score_pool3(pool3), size_of(x), CROP_POOL3)
        return self.upscore8(x)  # type: ignore[no-any-return]


def _enlargements(stride: int) -> dict[str, int]:
    """The release's names and strides; kernels are twice as large."""
    return {
        32: {"upscore": 32},
        16: {"upscore2": 2, "upscore16": 16},
        8: {"upscore2": 2, "upscore_pool4": 2, "upscore8": 8},
    }[stride]


class BodyFCN(nn.Module):
    """On any body: float (N, C, H, W) of any size -> logits (N, classes, H, W).

    Args:
        skips: how many maps are scored besides the last; the coarsest come first.

    Raises `ModelError` for a body without so many maps.
    """

    def __init__(
        self, body: Body, skips: int, *, classes: int, dropout: float, learn_upsampling: bool
    ) -> None:
        super().__init__()
        if skips >= len(body.strides):
            raise ModelError(f"the body has {len(body.strides)} maps, this net needs {skips + 1}")
        self.body = body
        centre(body)
        used = len(body.strides) - 1 - skips
        self.strides = body.strides[used:]
        self.drop = nn.Dropout(dropout)
        self.scores = nn.ModuleList(nn.Conv2d(maps, classes, 1) for maps in body.widths[used:])
        factors = [b // a for a, b in zip((1, *self.strides), self.strides)]  # noqa: B905
        self.ups = nn.ModuleList(_class_by_class(classes, factor) for factor in factors)
        self.ups.requires_grad_(learn_upsampling)
        self.head = "scores.0"

    def initialise(self) -> None:
        """Draw new weights: He's rule, score layers zero, upsampling bilinear."""
        _draw(self)

    def forward(self, images: Tensor) -> Tensor:
        """float (N, C, H, W) -> logits (N, classes, H, W)."""
        maps = self.body(_ended(images, self.strides[-1]))[-len(self.strides) :]
        x = self.scores[-1](self.drop(maps[-1]))
        steps = zip(maps[:-1], list(self.scores)[:-1], list(self.ups)[1:], strict=True)
        for finer, score, up in reversed(list(steps)):
            x = up(x) + score(finer)
        return cut(self.ups[0](x), size_of(images))


def _ended(images: Tensor, stride: int) -> Tensor:
    """Zeros below and at the right, up to sides of n S + 1."""
    down, right = ((1 - side) % stride for side in size_of(images))
    return F.pad(images, (0, right, 0, down))


def _class_by_class(classes: int, factor: int) -> nn.Module:
    """Bilinear enlargement of every class by itself: n + 1 places -> n S + 1."""
    if factor == 1:
        return nn.Identity()
    kernel, border = 2 * factor - 1, factor - 1
    return nn.ConvTranspose2d(classes, classes, kernel, factor, border, groups=classes, bias=False)


def _draw(net: FCN | BodyFCN) -> None:
    if any(p.is_meta for p in net.parameters()):
        return
    he(net)
    for name, module in net.named_modules():
        if isinstance(module, nn.ConvTranspose2d):
            make_bilinear(module)
        elif name.startswith("score") and isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def transplant(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put VGG's weights (its whole state dict) into a net that has its features, fc6 and fc7.

    The classifier's first two layers, (4096, 25088) and (4096, 4096), become convolutions of 7x7
    and 1x1. Score layers are left as they are.

    Raises `ModelError` for a net without these layers, and for weights that do not fit.
    """
    turned = dict(state)
    for layer, place in (("fc6", "classifier.0"), ("fc7", "classifier.3")):
        conv = getattr(net, layer, None)
        if not isinstance(conv, nn.Conv2d) or not hasattr(net, "features"):
            raise ModelError(f"{type(net).__name__} lacks features, fc6 and fc7 of VGG's shapes")
        for part in ("weight", "bias"):
            given = state.get(f"{place}.{part}")
            wanted = getattr(conv, part)
            if given is None or given.numel() != wanted.numel():
                raise ModelError(
                    f"{layer}.{part} {tuple(wanted.shape)} is made of VGG's {place}.{part}, given "
                    f"{'nothing' if given is None else tuple(given.shape)}"
                )
            turned[f"{layer}.{part}"] = given.reshape(wanted.shape)
    take(net, turned, ("features.", "fc6.", "fc7."))


def _fcn(stride: int) -> Callable[..., nn.Module]:
    def make(
        *,
        classes: int,
        channels: int,
        size: Pair,
        body: str = "vgg16",
        dropout: float = 0.5,
        learn_upsampling: bool = False,
    ) -> nn.Module:
        given: dict[str, Any] = {
            "classes": classes,
            "dropout": share("dropout", dropout),
            "learn_upsampling": yes_no("learn_upsampling", learn_upsampling),
        }
        if body == "vgg16":
            return FCN(stride, channels=channels, **given)
        return BodyFCN(Body(body, channels), SHALLOWER[stride], **given)

    make.__doc__ = f"FCN-{stride}s. On VGG-16 the release's net; any classifier's name as `body`."
    return make


fcn32s, fcn16s, fcn8s = _fcn(32), _fcn(16), _fcn(8)
