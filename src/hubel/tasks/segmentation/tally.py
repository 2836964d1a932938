"""`PixelTally`: what the scores of segmentation are made of, as sums that add up over images.

A tally of all images is the sum of the tallies of any cut into batches or processes; only
`hubel.tasks.segment` turns it into scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hubel.data.masks.record import IGNORE
from hubel.tasks.answer import wide
from hubel.tasks.segmentation.boundary import boundary_sums
from hubel.tasks.segmentation.membranes import pair_sums
from hubel.tasks.segmentation.read import labelled
from hubel.tasks.tally import BINS


@dataclass(frozen=True, eq=False)
class PixelTally:
    """Sums over labelled pixels, on the CPU. K is the number of classes.

    Attributes:
        confusion: int64 (K, K), pixels counted by [true, predicted].
        nll: summed negative log-likelihood, in nats.
        calibration: float64 (15, 3), equal bins of confidence over 0..1, the upper edge within:
            number of pixels, sum of their confidence, number right.
        boundary: float64 (K, 4), `boundary_sums` added over the images.
        pairs: float64 (3,), `pair_sums` added over the images; zeros where nothing is an object.
    """

    confusion: Tensor
    nll: float
    calibration: Tensor
    boundary: Tensor
    pairs: Tensor

    @classmethod
    def empty(cls, classes: int) -> PixelTally:
        """The tally of no pixels."""
        return cls.from_tensor(torch.zeros(sum(_sizes(classes)), dtype=torch.float64), classes)

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor, objects: int | None = None) -> PixelTally:
        """The tally of one batch.

        A pixel whose logits hold NaN makes `nll` NaN and counts with confidence 0 as predicted
        the first class whose logit is NaN.

        Args:
            logits: float (N, K, h, w) on any device; brought to the labels' size where smaller,
                bilinearly, corners not aligned.
            labels: int64 (N, H, W), 0..K-1 or IGNORE.
            objects: the class whose connected pieces are objects, None where none are.
        """
        said, confidence, nll = _answers(logits.detach(), labels)
        truth = labels.cpu().numpy().astype(np.uint8)
        classes, known = logits.shape[1], truth != IGNORE
        pairs = truth[known].astype(np.int64) * classes + said[known]
        boundary, together = np.zeros((classes, 4)), np.zeros(3)
        for true, called in zip(truth, said, strict=True):
            boundary += boundary_sums(true, called, classes)
            if objects is not None:
                together += pair_sums(true, called, objects)
        return cls(
            confusion=torch.from_numpy(np.bincount(pairs, minlength=classes**2)).view(classes, -1),
            nll=nll,
            calibration=torch.from_numpy(_calibration(confidence[known], (said == truth)[known])),
            boundary=torch.from_numpy(boundary),
            pairs=torch.from_numpy(together),
        )

    def __add__(self, other: PixelTally) -> PixelTally:
        return PixelTally(
            self.confusion + other.confusion,
            self.nll + other.nll,
            self.calibration + other.calibration,
            self.boundary + other.boundary,
            self.pairs + other.pairs,
        )

    @property
    def count(self) -> int:
        """Number of labelled pixels."""
        return int(self.confusion.sum())

    def to_tensor(self) -> Tensor:
        """All of it as one float64 vector (K K + 1 + 45 + 4 K + 3,), to be summed over processes.

        Counts stay exact up to 2^53.
        """
        nll = torch.tensor([self.nll], dtype=torch.float64)
        parts = (self.confusion.double(), nll, self.calibration, self.boundary, self.pairs)
        return torch.cat([part.flatten() for part in parts])

    @classmethod
    def from_tensor(cls, flat: Tensor, classes: int) -> PixelTally:
        """The way back from `to_tensor`."""
        parts = torch.split(flat.detach().cpu().clone(), _sizes(classes))
        confusion, nll, calibration, boundary, pairs = parts
        return cls(
            confusion.round().long().view(classes, classes),
            nll.item(),
            calibration.view(BINS, 3),
            boundary.view(classes, 4),
            pairs,
        )


def _sizes(classes: int) -> list[int]:
    return [classes * classes, 1, 3 * BINS, 4 * classes, 3]


def _answers(z: Tensor, labels: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.float32], float]:
    """Predicted class and its probability, both (N, H, W), and the summed -log p of the truth.

    The K maps are read where they lie; three maps and a number come back from the device.
    """
    z = wide(z)
    if z.shape[2:] != labels.shape[1:]:
        z = F.interpolate(z, size=labels.shape[1:], mode="bilinear", align_corners=False)
    labels = labels.to(z.device)
    known = labelled(labels)
    highest, said = z.max(dim=1)
    norm = z.logsumexp(dim=1)
    true = z.gather(1, labels.masked_fill(~known, 0)[:, None])[:, 0]
    nll = (norm - true).masked_fill(~known, 0).sum(dtype=torch.float64)
    confidence = (highest - norm).exp().nan_to_num(0.0)
    return said.to(torch.uint8).cpu().numpy(), confidence.cpu().numpy(), float(nll)


def _calibration(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """float64 (15, 3) of confidences (n,) and hits (n,)."""
    bins = np.clip(np.ceil(confidence.astype(np.float64) * BINS).astype(np.int64) - 1, 0, BINS - 1)
    columns = (None, confidence, right)
    return np.stack([np.bincount(bins, column, BINS).astype(np.float64) for column in columns], 1)
