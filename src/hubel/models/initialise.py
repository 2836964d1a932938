"""He initialisation: weights drawn so that a signal keeps its strength through any depth of ReLUs.

He, Zhang, Ren, Sun 2015, "Delving deep into rectifiers": w ~ N(0, 2 / fan_in), where fan_in is the
number of inputs that one output sums. A ReLU lets half of the power through; the 2 makes up for
it. The last layer, which no ReLU follows, gets N(0, 1 / fan_in); so do transposed convolutions,
behind which maps are joined to others as they are. One output of theirs sums K K / (S S) places of
every input map.
"""

from __future__ import annotations

import math

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def initialise(model: nn.Module) -> nn.Module:
    """Draw new weights for `model`, in place, from torch's default generator; return it.

    A net with an `initialise` of its own draws its weights itself, all others by `he`. On the meta
    device there is nothing to draw.
    """
    if all(p.is_meta for p in model.parameters()):
        return model
    own = getattr(model, "initialise", None)
    if own is not None:
        own()
    else:
        he(model)
    return model


def he(model: nn.Module) -> None:
    """Draw new weights for all layers of `model`, in place.

    Convolutions and fully connected layers: He normal, the last one registered with gain 1;
    biases 0. Batch norms: scale 1, shift 0, statistics as before the first image.
    """
    weighted = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in weighted:
        fan_in = layer.weight[0].numel()
        power = 1 if layer is weighted[-1] else 2
        nn.init.normal_(layer.weight, std=math.sqrt(power / fan_in))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.reset_parameters()
        elif isinstance(module, nn.ConvTranspose2d):
            _he_transposed(module)


def _he_transposed(layer: nn.ConvTranspose2d) -> None:
    places = math.prod(layer.kernel_size) / math.prod(layer.stride)
    fan_in = max(1.0, places) * layer.in_channels / layer.groups
    nn.init.normal_(layer.weight, std=math.sqrt(1 / fan_in))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
