"""Segmentation nets that begin by a trained classifier: which one, and how its weights go in."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from torch import Tensor, nn

from hubel.errors import ModelError
from hubel.models.body import Body, take
from hubel.models.fcn import transplant
from hubel.models.names import family
from hubel.models.table import MODELS

VGG = "classifier.0.weight"  # of VGG: its first fully connected layer, which can become fc6
FIXED = {"deconvnet": "vgg16_bn"}  # whose features a net has that takes no other body


def body_name(model: str, asked: str | None) -> str:
    """The classifier whose weights a net of the table begins by.

    Args:
        asked: the body that was asked for; None: the net's usual one.

    A classifier's is itself; so is that of a net which has no body, as its own weights go in whole.
    """
    if asked is not None or model not in MODELS:
        return asked or model
    usual = inspect.signature(family(model)).parameters.get("body")
    named = usual is not None and isinstance(usual.default, str)
    return str(usual.default) if named and usual is not None else FIXED.get(model, model)


def begin(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fill what a segmentation net shares with a classifier from the classifier's state dict.

    Its body or features; in an FCN on VGG-16 fc6 and fc7 as well. All else stays as it was drawn.

    Raises `ModelError` for a net that shares nothing with it, and for weights that do not fit.
    """
    body, fc6 = getattr(net, "body", None), getattr(net, "fc6", None)
    if isinstance(body, Body):
        body.take(state)
    elif isinstance(fc6, nn.Conv2d) and VGG in state and fc6.weight.numel() == state[VGG].numel():
        transplant(net, state)
    elif hasattr(net, "features"):
        take(net, state, ("features.",))
    else:
        raise ModelError(
            f"{type(net).__name__} does not begin by a classifier: ask for a body "
            "(--body efficientnet_lite0), or give weights of the whole net"
        )
