"""A classifier's body: its maps at every stride, for nets that answer for each pixel.

The layers are the classifier's own under their own names, so trained weights go in unchanged
(`take`). What follows the last map of places (pools over all places, fully connected layers; in
MobileNetV2 and EfficientNet the 1x1 convolution to 1280 maps before them) is left out.

Pools of 2x2 round up here, so that images of any size from one pixel work and a map of stride S
is (ceil(H / S), ceil(W / S)); where S divides the image it is the classifier's map.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from hubel.errors import ModelError, unknown
from hubel.models.efficientnet_lite import SameConv2d
from hubel.models.names import build
from hubel.models.resnet import Shortcut
from hubel.models.table import MODELS

# By file of the family: the children that make the body, and how many of the last one's to drop
PARTS: dict[str, tuple[tuple[str, ...], int]] = {
    "vgg": (("features",), 0),
    "resnet": (("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"), 0),
    "mobilenet": (("features",), 1),
    "efficientnet_lite": (("conv_stem", "bn1", "act1", "blocks"), 0),
    "compact": (("features",), 0),
}
CHAINS = ("features", "blocks")  # children that are gone through one by one
BODIES = tuple(name for name, entry in MODELS.items() if entry.make.partition(":")[0] in PARTS)
SIDE = 256  # pixels; every stride divides it


class Body(nn.Module):
    """float (N, C, H, W) -> [(N, widths[i], ceil(H / strides[i]), ...), ...], finest first.

    Each map is the last one before the next stride; in VGG, the answers before each pool, and those
    behind the last.

    Args:
        name: a classifier, one of `BODIES`.
        channels: of its images.
        output_stride: strides beyond this one are not taken: the convolutions behind them look as
            far apart instead ("holes", Chen et al. 2015), so that all later maps keep its size.
        **options: of the classifier (`width` of compact, `shortcut` of the ResNets).

    Attributes:
        strides, widths: of the maps, in their order.

    Raises `ModelError` for a net that is no body, or an `output_stride` it does not have.
    """

    def __init__(
        self, name: str, channels: int, *, output_stride: int | None = None, **options: Any
    ) -> None:
        super().__init__()
        if name not in BODIES:
            raise ModelError(unknown("body", name, BODIES))
        device = torch.empty(0).device
        with torch.device("meta"):
            self._adopt(name, build(name, classes=1, channels=channels, **options))
            every, _ = self._measure(channels)
            if output_stride is not None:
                if output_stride not in every:
                    words = ", ".join(map(str, every))
                    raise ModelError(f"{name} has the strides {words}, given {output_stride}")
                _hold(list(self.units()), output_stride)
            self.strides, self.widths = self._measure(channels)
        if device.type != "meta":
            _give_memory(self, device)

    def _adopt(self, name: str, net: nn.Module) -> None:
        parts, dropped = PARTS[MODELS[name].make.partition(":")[0]]
        for part in parts:
            child = getattr(net, part, None)  # small ResNets lack a pool and a stage
            if child is not None:
                is_last = part == parts[-1] and dropped
                setattr(self, part, child[:-dropped] if is_last else child)
        for module in self.modules():
            if isinstance(module, nn.MaxPool2d) and module.kernel_size == 2:
                module.ceil_mode = True

    def units(self) -> Iterator[nn.Module]:
        """The layers and blocks in the order of their work."""
        for name, child in self.named_children():
            if name in CHAINS:
                yield from child.children()
            else:
                yield child

    def _measure(self, channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Strides and widths of the maps; `taps` says behind which units they are taken."""
        x, seen = torch.zeros(2, channels, SIDE, SIDE), []
        for unit in self.units():
            x = unit(x)
            seen.append((SIDE // x.shape[2], x.shape[1]))
        ends = [i for i, (a, b) in enumerate(pairwise(seen)) if a[0] != b[0]]
        self.taps = (*ends, len(seen) - 1)
        strides, widths = zip(*(seen[tap] for tap in self.taps), strict=True)
        return tuple(strides), tuple(widths)

    def forward(self, images: Tensor) -> list[Tensor]:
        """float (N, C, H, W) -> maps, finest first."""
        maps, x = [], images
        for number, unit in enumerate(self.units()):
            x = unit(x)
            if number in self.taps:
                maps.append(x)
        return maps

    def take(self, state: Mapping[str, Tensor]) -> None:
        """Fill the body from the classifier's whole state dict; its head is passed over.

        Raises `ModelError` naming the first tensor that is missing or of another shape.
        """
        take(self, state)


def vgg_features(name: str, channels: int, output_stride: int | None = None) -> nn.Sequential:
    """A VGG's convolutions and pools, with the numbers of its own `features`."""
    features = Body(name, channels, output_stride=output_stride).features
    assert isinstance(features, nn.Sequential)
    return features


def centre(layers: nn.Module) -> None:
    """Pools of 3x3 in place of 2x2, as DeepLab has VGG's: on sides of n S + 1 the places of every
    map then lie at pixels 0, S, 2 S, ..., as those of strided convolutions do."""
    for layer in layers.modules():
        if isinstance(layer, nn.MaxPool2d) and layer.kernel_size == 2:
            layer.kernel_size, layer.padding, layer.ceil_mode = 3, 1, False


def take(net: nn.Module, state: Mapping[str, Tensor], prefixes: tuple[str, ...] = ("",)) -> None:
    """Fill those of the net's tensors whose keys begin with a prefix from `state` (key -> tensor
    of any shape).

    Raises `ModelError` naming the first tensor that is missing or of another shape; the net is
    then as it was.
    """
    own = {key: t for key, t in net.state_dict().items() if key.startswith(prefixes)}
    for key, tensor in own.items():
        if key not in state:
            raise ModelError(f"the weights lack {key}, which {type(net).__name__} needs")
        if state[key].shape != tensor.shape:
            needed, given = tuple(tensor.shape), tuple(state[key].shape)
            raise ModelError(f"{key} must have the shape {needed}, given {given}")
    net.load_state_dict({key: state[key] for key in own}, strict=False)


def _give_memory(model: nn.Module, device: torch.device) -> None:
    """From the meta device to a real one, as freshly made layers are."""
    model.to_empty(device=device)
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()


# Strides that are not taken ----------------------------------------------------------------------


def _hold(units: list[nn.Module], most: int) -> None:
    """Change the units so that the stride ends at `most`.

    A layer that would skip places works on all of them, at the distance (rate) of its inputs; the
    layers behind it look twice as far apart. At the places that the strided net keeps, its own
    numbers come out.
    """
    stride, rate = 1, 1
    for unit in units:
        strides = [_stride(module) for module in unit.modules()]
        held = max(strides) > 1 and stride >= most
        stride *= 1 if held else max(strides)
        behind = False
        for module, own in zip(unit.modules(), strides, strict=True):
            if own > 1 and held:
                _unstride(module, rate)
                behind = True
            elif isinstance(module, nn.Conv2d):
                _dilate(module, 2 * rate if behind else rate)
        rate *= 2 if held else 1


def _stride(module: nn.Module) -> int:
    given = getattr(module, "stride", 1)
    return int(given[0] if isinstance(given, tuple) else given)


def _unstride(module: nn.Module, rate: int) -> None:
    if isinstance(module, nn.Conv2d):
        module.stride = (1, 1)
        _dilate(module, rate)
    elif isinstance(module, Shortcut):
        module.stride = 1
    elif isinstance(module, nn.MaxPool2d):  # of 3x3, as DeepLab has it: 2x2 has no centre
        wide = rate if module.kernel_size == 3 else 1
        module.kernel_size, module.stride, module.ceil_mode = 3, 1, False
        module.padding = module.dilation = wide


def _dilate(conv: nn.Conv2d, rate: int) -> None:
    if rate == 1:
        return
    conv.dilation = (rate, rate)
    if not isinstance(conv, SameConv2d):
        conv.padding = tuple(rate * (k // 2) for k in conv.kernel_size)
