"""`Predictor`: weights, preprocessing and class names as one callable, from files to answers."""

from __future__ import annotations

import glob
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hubel.data.decode import ALLOWED, decode, is_image_name
from hubel.data.preprocess import Preprocess
from hubel.errors import BrokenImage, DataError
from hubel.runs.weights import Card
from hubel.tasks.classify import Classify


@dataclass(frozen=True)
class Prediction:
    """What the net says of one image.

    Attributes:
        file: the image's path, or its number where arrays were given.
        label: the likeliest class; None where the image is broken.
        confidence: its probability, 0..1.
        top: (class, probability), likeliest first.
        error: why the image could not be read, else None.
    """

    file: str
    label: str | None
    confidence: float | None
    top: tuple[tuple[str, float], ...] = ()
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {"file": self.file, "label": self.label}
        if self.error is not None:
            return record | {"error": self.error}
        return record | {"confidence": self.confidence, "top": [list(pair) for pair in self.top]}


class FilePredictor(ABC):
    """Whatever names what is in images: files in, predictions out, in order."""

    def __init__(self, classes: tuple[str, ...], top: int = 5) -> None:
        self.classes = classes
        self.top = min(top, len(classes))

    @abstractmethod
    def chances(self, files: Sequence[Path]) -> list[NDArray[np.float32] | BrokenImage]:
        """Probabilities (K,) of every file, in the order of `classes`, or why it is broken."""

    def __call__(self, files: Iterable[str | Path], batch: int = 64) -> list[Prediction]:
        """One prediction per file, in order; a broken file gets one that says why."""
        return list(self.stream([Path(file) for file in files], batch))

    def stream(self, files: Sequence[Path], batch: int = 64) -> Iterator[Prediction]:
        """The same, batch by batch, for many files."""
        for start in range(0, len(files), batch):
            some = files[start : start + batch]
            for file, found in zip(some, self.chances(some), strict=True):
                if isinstance(found, BrokenImage):
                    yield Prediction(str(file), None, None, error=found.reason)
                else:
                    yield self._prediction(file, found)

    def _prediction(self, file: Path, probabilities: NDArray[np.float32]) -> Prediction:
        order = np.argsort(-probabilities, kind="stable")[: self.top]
        top = tuple((self.classes[k], float(probabilities[k])) for k in order)
        return Prediction(str(file), top[0][0], top[0][1], top)


class Predictor(FilePredictor):
    """A trained classifier, ready for files.

    >>> predictor = hubel.load_run("runs/sample-compact-1").predictor()  # doctest: +SKIP
    >>> predictor(["boot.png"])[0].label  # doctest: +SKIP
    'Ankle boot'
    """

    def __init__(self, model: nn.Module, card: Card, device: torch.device, top: int = 5) -> None:
        super().__init__(card.classes, top)
        self.model = model.to(device).eval()
        self.card = card
        self.device = device
        self.task = Classify(card.classes)

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (N, C, H, W) at the model's size -> float32 (N, classes), each row sums to 1."""
        with torch.inference_mode():
            x = self.card.preprocess.normalise(torch.from_numpy(images).to(self.device))
            found: NDArray[np.float32] = self.task.decode(self.model(x)).cpu().numpy()
        return found

    def chances(self, files: Sequence[Path]) -> list[NDArray[np.float32] | BrokenImage]:
        read = [read_image(file, self.card.preprocess) for file in files]
        whole = [image for image in read if not isinstance(image, BrokenImage)]
        rows = iter(self.probabilities(np.stack(whole)) if whole else ())
        return [image if isinstance(image, BrokenImage) else next(rows) for image in read]


def read_image(file: Path, preprocess: Preprocess) -> NDArray[np.uint8] | BrokenImage:
    """A file as uint8 (C, H, W) at the size that `preprocess` says, or why it is broken."""
    try:
        return preprocess.image(decode(file, str(file), largest=preprocess.enough))
    except BrokenImage as error:
        return error


def find_images(words: Iterable[str]) -> list[Path]:
    """Files, folders (all images below) and patterns ('*.png') to a list of files, in order.

    Raises `DataError` for a word that leads to no file.
    """
    found: list[Path] = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            below = [p for p in sorted(path.rglob("*")) if is_image_name(p.name)]
            matches = [p for p in below if p.is_file()]
        elif path.exists():
            matches = [path]
        else:
            matches = sorted(Path(p) for p in glob.glob(word, recursive=True))  # noqa: PTH207 (takes absolute patterns)
        if not matches:
            raise DataError(
                f"no image at {word!r}: give files, folders of images "
                f"({ALLOWED}) or patterns like '*.png'"
            )
        found += matches
    return list(dict.fromkeys(found))
