"""Segmentation: one label per pixel. Targets, loss, decoding, metrics, drawing."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from hubel.data.masks.record import IGNORE
from hubel.errors import DataError, OptionError, unknown
from hubel.tasks.answer import wide
from hubel.tasks.segmentation import losses
from hubel.tasks.segmentation.boundary import boundary_f
from hubel.tasks.segmentation.losses import Pixels
from hubel.tasks.segmentation.membranes import rand
from hubel.tasks.segmentation.panels import panels
from hubel.tasks.segmentation.read import fits, labelled, logits, named, resample, split
from hubel.tasks.segmentation.tally import PixelTally

AUXILIARY = 1.0  # weight of an auxiliary output's loss: Pinheiro and Collobert 2014 add them up
TERMS = ("cross-entropy", "dice", "focal")

__all__ = ["AUXILIARY", "TERMS", "PixelScore", "PixelTally", "Segment", "logits"]


@dataclass(frozen=True, slots=True)
class PixelScore:
    """How one class fares over the labelled pixels; a score with nothing to divide by is NaN.

    Attributes:
        iou: pixels that are so and are called so, of those that are or are called so.
        accuracy: of the pixels that are so, the share called so (recall).
        precision: of the pixels called so, the share that are.
        boundary_f: how well its boundaries are met; see `Segment.scores`.
        share: of all labelled pixels, those that are so.
    """

    name: str
    iou: float
    accuracy: float
    precision: float
    boundary_f: float
    share: float


@dataclass(frozen=True)
class Segment:
    """Which of K classes is each pixel?

    Targets are labels int64 (N, H, W), 0..K-1 or IGNORE, or float (N, 2, H, W): a label and a
    weight for every pixel. Outputs are logits (N, K, H, W), or a dict with them under "logits".
    A net in training may give logits of a smaller size (h, w): the loss reads the labels at the
    middle of each of their h x w equal pieces (`segmentation.read.nearest`).

    Attributes:
        classes: their names; a label is an index into them. At most 255.
        colours: red, green, blue of every class, 0 to 255.
        terms: what the loss adds up, of "cross-entropy", "dice" and "focal".
        weights: of the classes in cross-entropy and focal loss; None: all 1.
        smoothing: share of the cross-entropy's target that is spread evenly over all classes.
        gamma: the focal loss's exponent: 0, or 1 and above.
        objects: the class whose connected pieces are objects (the cells between membranes), for
            the scores that see them; None where there are none.

    Raises `OptionError` for values that do not fit together.
    """

    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    terms: tuple[str, ...] = ("cross-entropy",)
    weights: tuple[float, ...] | None = None
    smoothing: float = 0.0
    gamma: float = 2.0
    objects: str | None = None

    kind: ClassVar[str] = "segment"
    headline: ClassVar[str] = "miou"
    running: ClassVar[str] = "pixel_accuracy"

    def __post_init__(self) -> None:
        _check_classes(self)
        _check_loss(self)

    def encode(self, targets: ArrayLike) -> Tensor:
        """Masks (N, H, W) as int64. Raises `DataError` for a label that is no class."""
        labels = torch.from_numpy(np.array(targets, dtype=np.int64))
        outside = ((labels < 0) | (labels >= len(self.classes))) & labelled(labels)
        if outside.any():
            image, row, column = outside.nonzero()[0].tolist()
            raise DataError(
                f"labels must be 0 to {len(self.classes) - 1}, one per class, or {IGNORE} for "
                f"none; image {image} has {int(labels[image, row, column])} in row {row}, "
                f"column {column}"
            )
        return labels

    def loss(self, outputs: Any, targets: Tensor) -> dict[str, Tensor]:
        """The terms that training adds up, each a mean over the labelled pixels.

        cross_entropy, dice, focal: those of `terms`, as `segmentation.losses` defines them;
        aux1, aux2, ...: of a model that returned such logits beside the others, the sum of the
        same terms of them, with weight 1. Pixels without a label add nothing, to the gradient
        either; without any labelled pixel every term is 0. Half precision is summed in float32.
        """
        found = self._terms(logits(outputs), targets)
        if isinstance(outputs, Mapping):
            for name in sorted(outputs):
                if name.startswith("aux"):
                    found[name] = AUXILIARY * _sum(self._terms(logits(outputs[name]), targets))
        return found

    def total(self, outputs: Any, targets: Tensor) -> Tensor:
        """The sum of `loss`'s terms: what training goes down."""
        return _sum(self.loss(outputs, targets))

    def pixels(self, targets: Tensor, size: tuple[int, int]) -> Pixels:
        """The truth at the places of logits (N, K, *size), on the targets' device."""
        return Pixels.of(targets, torch.empty(1, 1, *size, device=targets.device), self.weights)

    def _terms(self, z: Tensor, targets: Tensor) -> dict[str, Tensor]:
        fits(z, targets if targets.ndim == 3 else targets[:, 0], len(self.classes))
        z = wide(z)
        pixels = Pixels.of(targets, z, self.weights)
        log_p = z.log_softmax(dim=1)
        ways = {
            "cross-entropy": lambda: losses.cross_entropy(
                log_p, pixels, self.weights, self.smoothing
            ),
            "dice": lambda: losses.dice(log_p, pixels),
            "focal": lambda: losses.focal(log_p, pixels, self.gamma),
        }
        return {term.replace("-", "_"): ways[term]() for term in self.terms}

    def decode(self, outputs: Any) -> Tensor:
        """Probabilities float32 (N, K, H, W), which sum to 1 over K."""
        return logits(outputs).float().softmax(dim=1)

    def hits(self, outputs: Any, targets: Tensor) -> Tensor:
        """How many labelled pixels are called right: int64 scalar, on the outputs' device, so
        that nothing waits for it. Smaller logits speak for all pixels that lie nearest."""
        z, (labels, _) = logits(outputs), split(targets)
        fits(z, labels, len(self.classes))
        said = resample(named(z), (labels.shape[1], labels.shape[2]))
        return (said == labels).sum()  # IGNORE is never said

    def counted(self, targets: Tensor) -> Tensor:
        """How many labelled pixels there are: int64 scalar on the targets' device."""
        return labelled(split(targets)[0]).sum()

    def mass(self, targets: Tensor) -> Tensor:
        """What the loss is a mean over, as a scalar on the targets' device: labelled pixels, each
        by its class's weight; for dice alone, images with a label. (For dice beside others, and
        for nets whose training map is small, it is so nearly.)"""
        labels = split(targets)[0]
        known = labelled(labels)
        if self.terms == ("dice",):
            return known.flatten(1).any(dim=1).sum()
        if self.weights is None:
            return known.sum()
        weights = torch.tensor(self.weights, device=labels.device)
        return weights[labels[known]].sum()

    def empty(self) -> PixelTally:
        """The tally of no pixels."""
        return PixelTally.empty(len(self.classes))

    def untold(self, flat: Tensor) -> PixelTally:
        """The way back from a tally's `to_tensor`."""
        return PixelTally.from_tensor(flat, len(self.classes))

    def tally(self, outputs: Any, targets: Tensor) -> PixelTally:
        """The sums that `scores` reads, for one batch. Tallies add: `a + b`."""
        z, (labels, _) = logits(outputs), split(targets)
        fits(z, labels, len(self.classes))
        return PixelTally.of(z, labels, self._object)

    @property
    def _object(self) -> int | None:
        return None if self.objects is None else self.classes.index(self.objects)

    def scores(self, tally: PixelTally) -> dict[str, float]:
        """What the tally says, all between 0 and 1 but the loss. NaN where nothing is labelled.

        With n_ij pixels of class i called j (Long et al. 2015, who divide by all classes):
        miou: mean of n_ii / (sum_j n_ij + sum_j n_ji - n_ii) over the classes that occur or are
        called; pixel_accuracy: sum_i n_ii / sum n; mean_accuracy: mean of n_ii / sum_j n_ij over
        the classes that occur; fw_iou: mean of the IoU weighted by sum_j n_ij; boundary_f: of
        each class, the F of precision and recall of boundary pixels within 0.75 % of the image's
        diagonal (Csurka et al. 2013), each a mean over the images that have such pixels; the mean
        over the classes with a boundary; loss: mean negative log-likelihood, without weights;
        ece: expected calibration error over 15 bins, weighted by their pixels. With `objects`:
        rand_f, rand_split, rand_merge (`segmentation.membranes.rand`) and pixel_error, the share
        of pixels taken for an object that are none, or the other way round.
        """
        count = tally.count or math.nan
        columns = _columns(tally)
        _, confident, correct = tally.calibration.unbind(dim=1)
        shares = columns["share"]
        found = {
            "miou": _mean(columns["iou"]),
            "pixel_accuracy": int(tally.confusion.trace()) / count,
            "mean_accuracy": _mean(columns["accuracy"]),
            "fw_iou": float(np.sum(np.where(shares > 0, shares * columns["iou"], shares))),
            "boundary_f": _mean(columns["boundary_f"]),
            "loss": tally.nll / count,
            "ece": float((confident - correct).abs().sum()) / count,
        }
        if self._object is not None:
            found |= rand(tally.pairs.numpy())
            right = tally.confusion[self._object, self._object]
            either = tally.confusion[self._object].sum() + tally.confusion[:, self._object].sum()
            found["pixel_error"] = int(either - 2 * right) / count
        return found

    def per_class(self, tally: PixelTally) -> tuple[PixelScore, ...]:
        """IoU, accuracy, precision, boundary F and share of every class, in their order."""
        rows = zip(self.classes, *(c.tolist() for c in _columns(tally).values()), strict=True)
        return tuple(PixelScore(*row) for row in rows)

    def draw(
        self, image: NDArray[np.uint8], target: ArrayLike | None, probabilities: ArrayLike
    ) -> Image.Image:
        """The image, its truth where known, the prediction and the uncertainty side by side.

        Args:
            image: uint8 (C, H, W), C = 1 or 3.
            target: (H, W), a class or IGNORE; None where it is not known.
            probabilities: (K, H, W).
        """
        truth = None if target is None else np.asarray(target).astype(np.uint8)
        return panels(image, truth, probabilities, self.classes, self.colours)


def _sum(terms: Mapping[str, Tensor]) -> Tensor:
    return functools.reduce(torch.add, terms.values())


def _mean(scores: NDArray[np.float64]) -> float:
    """Over the classes that have one; NaN where none has."""
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if len(known) else math.nan


def _columns(tally: PixelTally) -> dict[str, NDArray[np.float64]]:
    """The scores of every class, (K,) each, in the order of `PixelScore`; NaN for 0 / 0."""
    confusion = tally.confusion.double().numpy()
    true, called, right = confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal()
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "iou": right / (true + called - right),
            "accuracy": right / true,
            "precision": right / called,
            "boundary_f": boundary_f(tally.boundary.numpy()),
            "share": true / true.sum(),
        }


def _check_classes(task: Segment) -> None:
    if not 0 < len(task.classes) <= IGNORE:
        raise OptionError(f"1 to {IGNORE} classes can be told apart, given {len(task.classes)}")
    if len(task.colours) != len(task.classes):
        raise OptionError(
            f"every class needs a colour: {len(task.classes)} classes, "
            f"given {len(task.colours)} colours"
        )
    if task.objects is not None and task.objects not in task.classes:
        raise OptionError(unknown("class of objects", task.objects, task.classes))


def _check_loss(task: Segment) -> None:
    for term in task.terms:
        if term not in TERMS:
            raise OptionError(unknown("loss", term, TERMS))
    if not task.terms or len(set(task.terms)) < len(task.terms):
        raise OptionError(f"the loss adds one to three different terms, given {task.terms}")
    weights = task.weights
    if weights is not None and (len(weights) != len(task.classes) or not min(weights) >= 0):
        raise OptionError(
            f"class weights must be {len(task.classes)} numbers of 0 or more, given {weights}"
        )
    if not 0 <= task.smoothing < 1:
        raise OptionError(f"smoothing must be 0 or more and below 1, given {task.smoothing}")
    if not (task.gamma == 0 or task.gamma >= 1):
        raise OptionError(f"gamma must be 0, or 1 and above, given {task.gamma}")
