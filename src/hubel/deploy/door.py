"""One door to nets in use, whatever their task: `predictor_for`, `answers`, `equipped`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from hubel.deploy.mask_predictor import MaskPrediction, MaskPredictor, labelling
from hubel.deploy.predictor import FilePredictor, Prediction, Predictor
from hubel.deploy.views import viewed
from hubel.errors import OptionError
from hubel.runs.weights import Card


def predictor_for(
    model: nn.Module,
    card: Card,
    device: torch.device,
    top: int = 5,
    tta: str = "none",
    refine: str = "none",
) -> Predictor | MaskPredictor:
    """Files in, predictions out.

    Args:
        top: likeliest classes that a classifier names.
        tta, refine: as `equipped` has them.

    Raises `OptionError` for words that are not for the net's task.
    """
    if card.task == "segment":
        return MaskPredictor(model, card, device, tta=tta, refine=refine)
    labels_alone(card.classes, refine=refine)
    return Predictor(*viewed(model, card, tta), device, top)


def answers(
    predictor: FilePredictor | MaskPredictor, files: Iterable[str | Path], out: str | Path | None
) -> list[Prediction] | list[MaskPrediction]:
    """One prediction per file, in order.

    Args:
        out: of masks: a folder that they are written to.

    Raises `OptionError` where `out` is given for a net that has no masks.
    """
    if isinstance(predictor, MaskPredictor):
        return predictor(files, out)
    labels_alone(predictor.classes, out=out)
    return predictor(files)


def equipped(model: nn.Module, card: Card, tta: str, refine: str) -> tuple[nn.Module, Card]:
    """The net as it is judged, and the card that says what it is to be fed.

    Args:
        tta: views to average; `hubel.deploy.views.viewed` for classifiers,
            `hubel.deploy.mask_views.viewed_masks` for masks.
        refine: of masks: `hubel.deploy.refine.refined`.

    Raises `OptionError` as `predictor_for` does.
    """
    if card.task == "segment":
        return labelling(model, card, tta, refine), card
    labels_alone(card.classes, refine=refine)
    return viewed(model, card, tta)


def labels_alone(classes: Sequence[str], **words: object) -> None:
    """Raises `OptionError` for words about masks that were given for a net without them."""
    for name, given in words.items():
        if given not in (None, "none"):
            known = ", ".join(classes[:3]) + (", ..." if len(classes) > 3 else "")
            raise OptionError(
                f"--{name} is for nets that label pixels (--task segment), given {given!r}; "
                f"this one names whole images ({known})"
            )
