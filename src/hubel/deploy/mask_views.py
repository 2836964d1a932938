"""Test-time augmentation of segmentation: an image labelled from several views, their
probabilities averaged pixel by pixel.

Like `hubel.deploy.views`, each way is a module around the net that answers with log probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from hubel.deploy.views import TTA, mirror
from hubel.errors import OptionError, unknown
from hubel.models.tiles import logarithm, probabilities

MASK_TTA = {"none": (), "flip": (1.0,), "scales": (0.75, 1.0, 1.25)}  # scales, each mirrored too


def viewed_masks(model: nn.Module, tta: str) -> nn.Module:
    """The net that labels by views.

    Args:
        model: images (N, C, H, W) -> logits (N, K, H, W).
        tta: "none"; "flip": the image and its mirror; "scales": the image at 0.75, 1 and 1.25 of
            its size, and their mirrors.

    Raises `OptionError` for another word.
    """
    if tta in MASK_TTA:
        return MaskViews(model, MASK_TTA[tta]) if MASK_TTA[tta] else model
    if tta in TTA:
        raise OptionError(
            f"tta {tta!r} is for nets that name whole images; allowed for masks: "
            f"{', '.join(MASK_TTA)}"
        )
    raise OptionError(unknown("tta", tta, MASK_TTA))


class MaskViews(nn.Module):
    """The image at several scales, each with its mirror. (N, C, H, W) -> log probabilities
    (N, K, H, W), float32.

    Args:
        scales: of both sides; images are resized bilinearly, with antialiasing where they shrink,
            probabilities brought back bilinearly.
    """

    def __init__(self, model: nn.Module, scales: Sequence[float] = (1.0,)) -> None:
        super().__init__()
        self.model, self.scales = model, tuple(scales)
        self.train(model.training)

    def forward(self, images: Tensor) -> Tensor:
        size = (images.shape[2], images.shape[3])
        total: Tensor | None = None
        for scale in self.scales:
            seen = _resized(images, _scaled(size, scale))
            own = (seen.shape[2], seen.shape[3])
            found = probabilities(self.model(seen), own)
            found = _resized(found + mirror(probabilities(self.model(mirror(seen)), own)), size)
            total = found if total is None else total + found
        assert total is not None
        return logarithm(total / (2 * len(self.scales)))


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[2:]) == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=True)
