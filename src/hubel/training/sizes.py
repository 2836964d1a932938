"""Training at several image sizes: small ones first, or all of them mixed.

Progressive resizing (Howard 2018, for DAWNBench): the first epochs see small images, which cost a
quarter, the last third sees whole ones. Mixed sizes (Simonyan, Zisserman 2014, "scale jittering";
He et al. 2015, multi-size training): every batch comes at a size drawn for it. Either needs a net
that takes any size: one that pools globally before its fully connected layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hubel.data.order import derive_seed
from hubel.errors import ModelError
from hubel.models.watch import untouched
from hubel.tasks.classify import logits
from hubel.training.plan import Plan

SMALLEST = 0.5  # of the whole side
WHOLE_FROM = 2 / 3  # of the training, for progressive
GRID = 8  # pixels; sides are multiples, so that few sizes occur


def share_of(plan: Plan, epoch: int, step: int) -> float:
    """The share of the side that the images of a step have, SMALLEST..1."""
    if plan.resize == "progressive":
        whole_from = min(WHOLE_FROM * plan.epochs, plan.epochs - 1)  # the last epoch at the latest
        grown = min(1.0, epoch / whole_from) if whole_from else 1.0
    elif plan.resize == "mixed":
        chance = torch.Generator().manual_seed(derive_seed(plan.seed, "size", step))
        grown = torch.rand((), generator=chance).item()
    else:
        return 1.0
    return SMALLEST + (1 - SMALLEST) * grown


def resized(images: Tensor, share: float) -> Tensor:
    """float (N, C, H, W) -> (N, C, h, w), sides about `share` times as long, antialiased."""
    height, width = images.shape[2:]
    size = _grid(height, share), _grid(width, share)
    if size == (height, width):
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True)


def must_resize(model: nn.Module, shape: tuple[int, int, int]) -> None:
    """Raises `ModelError` where the model does not answer (C, H, W) images of half the side as it
    answers whole ones."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    whole = torch.zeros(2, *shape, device=device)
    small = resized(whole, SMALLEST)
    training = model.training
    try:
        with torch.inference_mode():
            expected, found = (tuple(logits(model.eval()(x)).shape) for x in (whole, small))
            with untouched(model, training=True):  # auxiliary heads work in training alone
                model(small)
        reason = "" if found == expected else f"it gives {found} in place of {expected}"
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
    finally:
        model.train(training)
    if reason:
        raise ModelError(
            f"resizing needs a net that takes any image size, with global pooling before its last "
            f"layer (resnet20, googlenet, mobilenet_v2); this one fails on images "
            f"{tuple(small.shape)}: {reason}"
        )


def _grid(side: int, share: float) -> int:
    if share == 1:
        return side
    return min(side, max(GRID, round(side * share / GRID) * GRID))
