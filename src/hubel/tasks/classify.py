"""Classification: one label per image. Targets, loss, decoding, metrics, drawing."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from hubel.errors import DataError
from hubel.tasks.answer import logits_of, wide
from hubel.tasks.caption import captioned
from hubel.tasks.tally import Tally

AUXILIARY = 0.3  # weight of an auxiliary head's loss

__all__ = ["ClassScore", "Classify", "Tally", "logits"]


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How one class fares; a score whose denominator is empty is 0.

    Attributes:
        precision: of the images called so, the share that are.
        recall: of the images that are so, the share called so.
        f1: harmonic mean of both.
        support: number of images that are so.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int


def logits(outputs: Any) -> Tensor:
    """The float (N, K) logits in what a model returned: a tensor, or a dict's "logits".

    Raises `ModelError` for anything else.
    """
    return logits_of(outputs, 2, "a classifier must return logits (N, classes)")


@dataclass(frozen=True)
class Classify:
    """Which of K classes is it?

    Attributes:
        classes: their names; a target is an index into them.
        smoothing: share of the target that is spread evenly over all classes (Szegedy et al.
            2016): (1 - s) y + s / K. In the loss only; scores are always against the truth.
    """

    classes: tuple[str, ...]
    smoothing: float = 0.0

    kind: ClassVar[str] = "classify"
    headline: ClassVar[str] = "accuracy"
    running: ClassVar[str] = "accuracy"

    def encode(self, targets: ArrayLike) -> Tensor:
        """Class indices, (N,), as int64. Raises `DataError` for one outside 0..K-1."""
        indices = torch.from_numpy(np.array(targets, dtype=np.int64))
        outside = (indices < 0) | (indices >= len(self.classes))
        if outside.any():
            row = int(outside.nonzero()[0])
            raise DataError(
                f"targets must be 0 to {len(self.classes) - 1}, one per class; "
                f"image {row} has {int(indices[row])}"
            )
        return indices

    def loss(self, outputs: Any, targets: Tensor) -> dict[str, Tensor]:
        """The terms that training adds up, each a mean over the images, in nats.

        cross_entropy: -sum_k y_k log softmax(z)_k. Of a model that returned a dict also: aux1,
        aux2, ...: 0.3 times the cross entropy of those logits, the auxiliary heads' (Szegedy et
        al. 2014); garbage: log(1 + exp(g - logsumexp(z))), which makes the sum LeCun et al. 1998,
        equation 9, for a logit g (N, 1) of "none of the classes".

        Args:
            outputs: what the model returned, logits (N, K) in any precision.
            targets: int64 (N,), or float (N, K) shares that sum to 1.
        """
        found = {"cross_entropy": self._entropy(logits(outputs), targets)}
        if isinstance(outputs, Mapping):
            for name in sorted(outputs):
                if name.startswith("aux"):
                    found[name] = AUXILIARY * self._entropy(logits(outputs[name]), targets)
            if "garbage" in outputs:
                rest = wide(logits(outputs)).logsumexp(1, keepdim=True)
                found["garbage"] = F.softplus(wide(outputs["garbage"]) - rest).mean()
        return found

    def total(self, outputs: Any, targets: Tensor) -> Tensor:
        """The sum of `loss`'s terms: what training goes down."""
        return functools.reduce(torch.add, self.loss(outputs, targets).values())

    def _entropy(self, z: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(wide(z), targets, label_smoothing=self.smoothing)

    def decode(self, outputs: Any) -> Tensor:
        """Probabilities float32 (N, K), each row sums to 1."""
        return logits(outputs).float().softmax(dim=1)

    def hits(self, outputs: Any, targets: Tensor) -> Tensor:
        """How many images have their (largest) target as likeliest class: int64 scalar, on the
        outputs' device, so that nothing waits for it."""
        true = targets if targets.ndim == 1 else targets.argmax(dim=1)
        return (logits(outputs).argmax(dim=1) == true).sum()

    def counted(self, targets: Tensor) -> int:
        """The images."""
        return len(targets)

    def mass(self, targets: Tensor) -> float:
        """The images."""
        return float(len(targets))

    def empty(self) -> Tally:
        """The tally of no images."""
        return Tally.empty(len(self.classes))

    def untold(self, flat: Tensor) -> Tally:
        """The way back from `Tally.to_tensor`."""
        return Tally.from_tensor(flat, len(self.classes))

    def tally(self, outputs: Any, targets: Tensor) -> Tally:
        """The sums that `scores` reads, for one batch. Tallies add: `a + b`."""
        return Tally.of(logits(outputs), targets)

    def scores(self, tally: Tally) -> dict[str, float]:
        """What the tally says, all between 0 and 1 but the loss. NaN where there are no images.

        accuracy; top5 (of more than five classes); loss: mean negative log-likelihood, without
        smoothing; balanced_accuracy: mean recall of the classes that occur; macro_f1: mean F1 of
        the classes that occur or are named; ece: expected calibration error, the mean distance
        between confidence and accuracy over 15 bins, weighted by their images.
        """
        count = tally.count or float("nan")
        support, named, right = _margins(tally)
        found = {"accuracy": float(right.sum() / count)}
        if len(self.classes) > 5:
            found["top5"] = tally.top5 / count
        _, confident, correct = tally.calibration.unbind(dim=1)
        return {
            **found,
            "loss": tally.nll / count,
            "balanced_accuracy": float((right / support)[support > 0].mean()),
            "macro_f1": float((2 * right / (support + named))[support + named > 0].mean()),
            "ece": float((confident - correct).abs().sum() / count),
        }

    def per_class(self, tally: Tally) -> tuple[ClassScore, ...]:
        """Precision, recall, F1 and support of every class, in the order of `classes`."""
        support, named, right = _margins(tally)
        columns = (
            (right / named).nan_to_num(0.0),
            (right / support).nan_to_num(0.0),
            (2 * right / (support + named)).nan_to_num(0.0),
            support,
        )
        rows = zip(self.classes, *(column.tolist() for column in columns), strict=True)
        return tuple(ClassScore(name, p, r, f1, int(n)) for name, p, r, f1, n in rows)

    def draw(
        self, image: NDArray[np.uint8], target: int | None, probabilities: ArrayLike
    ) -> Image.Image:
        """The image with what it is and what it was taken for: green where right, red where wrong.

        Args:
            image: uint8 (C, H, W), C = 1 or 3.
            target: the true class, None where it is not known.
            probabilities: (K,).
        """
        chances = np.asarray(probabilities)
        said = int(chances.argmax())
        words = f"{self.classes[said]} {chances[said]:.0%}"
        if target is None:
            return captioned(image, [words], right=None)
        lines = [words] if said == target else [words, f"is: {self.classes[target]}"]
        return captioned(image, lines, right=said == target)


def _margins(tally: Tally) -> tuple[Tensor, Tensor, Tensor]:
    """Images that are of each class, are called so, and both; float64 (K,)."""
    confusion = tally.confusion.double()
    return confusion.sum(dim=1), confusion.sum(dim=0), confusion.diagonal()
