"""What the layers answer to a few images: their feature maps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules import activation, pooling

from hubel.models.watch import is_leaf, untouched, watch

POOLS = (nn.MaxPool2d, nn.AvgPool2d, pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd)
ACTIVATIONS = tuple(
    getattr(activation, name) for name in activation.__all__ if name != "MultiheadAttention"
)


@dataclass(frozen=True, slots=True)
class FeatureMaps:
    """The answer of one layer.

    Attributes:
        layer: its path in the model; "relu#2" is the second use of a layer that is used again.
        kind: its class, as in "Conv2d".
        maps: float32 (N, maps, h, w), the layer's most active maps, in the layer's order.
        indices: int64 (maps,), which of the layer's maps they are.
    """

    layer: str
    kind: str
    maps: NDArray[np.float32]
    indices: NDArray[np.int64]


def feature_maps(
    model: nn.Module, images: Tensor, *, most_layers: int = 8, most_maps: int = 16
) -> list[FeatureMaps]:
    """The answers of convolutions, activations and pools, from the first layer to the last.

    Layers that answer with single pixels are left out. Where there are more than `most_layers`,
    convolutions give way to the activations behind them, and the rest is spread evenly over the
    depth, the first and the last among them. A map's activity is its mean magnitude.

    Args:
        images: float (N, C, H, W), normalised, on the model's device.
    """
    found: list[FeatureMaps] = []
    uses: Counter[str] = Counter()

    def leave(path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(module, (nn.Conv2d, *ACTIVATIONS, *POOLS)) or not is_leaf(module):
            return
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
            uses[path] += 1
            name = path if uses[path] == 1 else f"{path}#{uses[path]}"
            found.append(_most_active(name, module, output, most_maps))

    with torch.no_grad(), untouched(model, training=False), watch(model, leave=leave):
        model(images)
    return _spread(found, most_layers)


def _most_active(name: str, module: nn.Module, output: Tensor, most: int) -> FeatureMaps:
    output = output.float()
    activity = output.abs().mean(dim=(0, 2, 3)).nan_to_num(nan=0.0, posinf=0.0)
    indices = activity.topk(min(most, len(activity))).indices.sort().values
    maps = output[:, indices].cpu().numpy()  # a copy: an in-place layer may follow
    return FeatureMaps(name, type(module).__name__, maps, indices.cpu().numpy())


def _spread(found: list[FeatureMaps], most: int) -> list[FeatureMaps]:
    """At most `most` of them, evenly over the depth."""
    if len(found) > most:
        answers = [one for one in found if one.kind != nn.Conv2d.__name__]
        found = answers if len(answers) >= most else found
    places = np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)
    return [found[place] for place in places]
