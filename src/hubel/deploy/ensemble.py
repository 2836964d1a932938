"""Several trained nets as one: each image is judged by all, and their probabilities averaged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hubel.data.preprocess import Preprocess
from hubel.deploy.predictor import FilePredictor, Predictor, read_image
from hubel.errors import BrokenImage, DataError


class EnsemblePredictor(FilePredictor):
    """The average of several predictors' probabilities: files in, predictions out.

    Attributes:
        members: one predictor per net; their classes may stand in any order.
        classes: the first member's.
    """

    def __init__(self, members: Sequence[Predictor], top: int = 5) -> None:
        """Raises `DataError` where the members do not know the same classes."""
        super().__init__(members[0].card.classes, top)
        self.members = tuple(members)
        self.places = class_places([member.card.classes for member in members])

    def chances(self, files: Sequence[Path]) -> list[NDArray[np.float32] | BrokenImage]:
        """Probabilities (K,) of every file, in the order of `classes`, or why it is broken.

        A file is read once for every way the members prepare it, not once for every member.
        """
        read: dict[Preprocess, list[NDArray[np.uint8] | BrokenImage]] = {}
        total = np.zeros((len(files), len(self.classes)))
        for member, place in zip(self.members, self.places, strict=True):
            way = _pixels_alone(member.card.preprocess)
            if way not in read:
                read[way] = [read_image(file, way) for file in files]
            seen = enumerate(read[way])
            whole = {k: image for k, image in seen if not isinstance(image, BrokenImage)}
            if whole:
                images = np.stack(list(whole.values()))
                total[list(whole)] += member.probabilities(images)[:, place]
        mean = (total / len(self.members)).astype(np.float32)
        first = next(iter(read.values()))
        pairs = zip(first, mean, strict=True)
        return [image if isinstance(image, BrokenImage) else row for image, row in pairs]


def class_places(classes: Sequence[Iterable[str]]) -> list[NDArray[np.int64]]:
    """For each list of class names, where it holds those of the first: (K,) indices.

    `probabilities[:, place]` then stands in the first list's order.

    Raises:
        DataError: a list that does not hold the same names.
    """
    names = [tuple(some) for some in classes]
    for others in names[1:]:
        strange = sorted(set(names[0]) ^ set(others))
        if strange:
            raise DataError(
                f"these runs do not tell apart the same classes: {strange[0]!r} is known to one "
                f"and not to another; expected: {', '.join(names[0])}"
            )
    return [np.array([some.index(name) for name in names[0]]) for some in names]


def _pixels_alone(preprocess: Preprocess) -> Preprocess:
    """What decides the pixels: mean and deviation do so only where they colour a padding."""
    if preprocess.fit == "pad":
        return preprocess
    half = (0.5,) * preprocess.channels
    return replace(preprocess, mean=half, std=half)
