"""`Tally`: what the metrics of classification are made of, as sums that add up over batches.

A tally of all images is the sum of the tallies of any cut into batches or processes; only
`hubel.tasks.classify` turns it into scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15  # of confidence, as Guo et al. 2017 have it, "On calibration of modern neural networks"


@dataclass(frozen=True, eq=False)
class Tally:
    """Sums over images, on the CPU. K is the number of classes.

    Attributes:
        confusion: int64 (K, K), images counted by [true, predicted].
        top5: images whose true class is among the five likeliest.
        nll: summed negative log-likelihood, in nats.
        calibration: float64 (15, 3), equal bins of confidence over 0..1, the upper edge within:
            number of images, sum of their confidence, number right.
    """

    confusion: Tensor
    top5: int
    nll: float
    calibration: Tensor

    @classmethod
    def empty(cls, classes: int) -> Tally:
        """The tally of no images."""
        confusion = torch.zeros(classes, classes, dtype=torch.int64)
        return cls(confusion, 0, 0.0, torch.zeros(BINS, 3, dtype=torch.float64))

    @classmethod
    def of(cls, logits: Tensor, targets: Tensor) -> Tally:
        """The tally of one batch.

        An image whose logits hold NaN makes `nll` NaN and counts with confidence 0 as predicted
        the first class whose logit is NaN.

        Args:
            logits: float (N, K) on any device.
            targets: int64 (N,) class indices, or float (N, K) shares, counted as the largest.
        """
        logits, targets = logits.detach().cpu().double(), targets.cpu()
        classes = logits.shape[1]
        log_p = logits.log_softmax(dim=1)
        true = targets if targets.ndim == 1 else targets.argmax(dim=1)
        said = logits.argmax(dim=1)
        pairs = (true * classes + said).bincount(minlength=classes * classes)
        near = logits.topk(min(5, classes), dim=1).indices
        confidence = log_p.gather(1, said[:, None])[:, 0].exp().nan_to_num(0.0)
        return cls(
            confusion=pairs.view(classes, classes),
            top5=int((near == true[:, None]).sum()),
            nll=float(_nll(log_p, targets)),
            calibration=_calibration(confidence, said == true),
        )

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.confusion + other.confusion,
            self.top5 + other.top5,
            self.nll + other.nll,
            self.calibration + other.calibration,
        )

    @property
    def count(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    def to_tensor(self) -> Tensor:
        """All of it as one float64 vector (K K + 2 + 45,), to be summed over processes.

        Counts stay exact up to 2^53.
        """
        numbers = torch.tensor([self.top5, self.nll], dtype=torch.float64)
        return torch.cat([self.confusion.double().flatten(), numbers, self.calibration.flatten()])

    @classmethod
    def from_tensor(cls, flat: Tensor, classes: int) -> Tally:
        """The way back from `to_tensor`."""
        confusion, numbers, calibration = torch.split(flat.cpu(), [classes * classes, 2, 3 * BINS])
        return cls(
            confusion.round().long().view(classes, classes),
            round(numbers[0].item()),
            numbers[1].item(),
            calibration.view(BINS, 3).clone(),
        )


def _nll(log_p: Tensor, targets: Tensor) -> Tensor:
    """Summed over images: -log p of the true class, or of the shares where targets are soft."""
    if targets.ndim == 1:
        return -log_p.gather(1, targets[:, None]).sum()
    return -(targets.double() * log_p).sum()


def _calibration(confidence: Tensor, right: Tensor) -> Tensor:
    """float64 (15, 3) of confidences float64 (N,) and hits bool (N,)."""
    bins = ((confidence * BINS).ceil().long() - 1).clamp(0, BINS - 1)
    columns = torch.stack([torch.ones_like(confidence), confidence, right.double()], dim=1)
    return torch.zeros(BINS, 3, dtype=torch.float64).index_add_(0, bins, columns)
