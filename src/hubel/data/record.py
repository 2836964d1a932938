"""What data is made of: `Sample`, `Batch`, and the `Source` that every reader returns."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

PARTS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image.

    Attributes:
        image: uint8 (C, H, W), C = 1 (grey) or 3 (RGB), values 0..255, any H and W.
        target: the task's own record; for classification the class index (int).
        id: a name people recognise: a path below the source's folder, or "test/00042".
    """

    image: NDArray[np.uint8]
    target: Any
    id: str


@dataclass(slots=True)
class Batch:
    """What the net is fed.

    Attributes:
        images: float32 (N, C, H, W), normalised to about zero mean and unit variance.
        targets: int64 (N,) class indices, or float32 (N, classes) where mixup blended them.
        rows: int64 (N,), each image's position in its source.
        number: which batch of its epoch this is, from 0.
    """

    images: torch.Tensor
    targets: torch.Tensor
    rows: torch.Tensor
    number: int = 0

    def __len__(self) -> int:
        return int(self.images.shape[0])


class Source(ABC):
    """Labelled images in a fixed order, wherever they come from.

    A source reads; it never resizes, shuffles, splits or augments. Where its files say which
    part an image belongs to (train, val, test), `parts` repeats it; elsewhere it holds "".

    Attributes:
        kind: what a target is: "labels" (a class index), "masks" (a class index per pixel).
        name: short, fit for a run's name ("fashion-mnist", "photos").
        origin: where the images came from, in words a person can act on (a path, a package).
        classes: class names; a target is an index into them.
        targets: int64 (N,).
        parts: (N,) of "train", "val", "test" or "" (not assigned).
        ids: N names, unique.
        where: the name or whole path that opens it again; None for images given as arrays.
        notice: one line that the user must see (a fallback was taken), else None.
    """

    kind: str = "labels"
    name: str
    origin: str
    classes: tuple[str, ...]
    targets: NDArray[np.int64]
    parts: NDArray[np.str_]
    ids: Sequence[str]
    where: str | None = None
    notice: str | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @abstractmethod
    def __getitem__(self, row: int) -> Sample:
        """The sample at `row`. Raises `BrokenImage` where its image cannot be decoded."""

    @abstractmethod
    def hashes(self) -> NDArray[np.uint64]:
        """64-bit content hash of each image, (N,). Equal content, equal hash; cached."""

    def pictures(self) -> NDArray[np.uint64]:
        """64-bit hash of each image whatever is said of it, (N,): by these copies stay together."""
        return self.hashes()

    def fingerprint(self) -> str:
        """Hash of the whole: content, targets and class names, whatever the order or file names."""
        rows = np.stack([self.hashes(), self.targets.astype(np.uint64)], axis=1)
        rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
        digest = hashlib.blake2b("\0".join(self.classes).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(rows).tobytes())
        return digest.hexdigest()

    def rows(self, part: str) -> NDArray[np.int64]:
        """Positions of the images that the files assign to `part`."""
        return np.flatnonzero(self.parts == part).astype(np.int64)


def content_hash(data: bytes | memoryview) -> int:
    """64-bit BLAKE2b of `data`, as an unsigned integer."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


class ArraySource(Source):
    """Images that live in memory as one uint8 array (N, C, H, W), C = 1 or 3."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        targets: NDArray[np.int64],
        classes: Sequence[str],
        *,
        name: str,
        origin: str,
        parts: NDArray[np.str_] | None = None,
        ids: Sequence[str] | None = None,
    ) -> None:
        self.images = images
        self.targets = np.asarray(targets, dtype=np.int64)
        self.classes = tuple(classes)
        self.name = name
        self.origin = origin
        self.parts = np.full(len(targets), "", dtype="U5") if parts is None else parts
        self.ids = _numbered(self.parts) if ids is None else ids
        self._hashes: NDArray[np.uint64] | None = None

    def __getitem__(self, row: int) -> Sample:
        return Sample(self.images[row], int(self.targets[row]), self.ids[row])

    def hashes(self) -> NDArray[np.uint64]:
        if self._hashes is None:
            flat = np.ascontiguousarray(self.images).reshape(len(self), -1)
            self._hashes = np.array([content_hash(row.data) for row in flat], dtype=np.uint64)
        return self._hashes


def _numbered(parts: NDArray[np.str_]) -> list[str]:
    """Ids for images without names: "test/00042", counted within each part."""
    counts: dict[str, int] = {}
    ids = []
    for part in parts.tolist():
        number = counts.get(part, 0)
        counts[part] = number + 1
        ids.append(f"{part}/{number:05d}" if part else f"{number:05d}")
    return ids
