"""`FileSource`: labelled images that stay files until they are asked for.

A source of 100,000 files holds its names in one byte string, not in 100,000 objects: it takes a
few megabytes, pickles in milliseconds, and worker processes share it without copying.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from hubel.data.cores import cores
from hubel.data.decode import decode
from hubel.data.record import Sample, Source, content_hash

CHUNK = 512  # files per task of the hashing pool


class Names(Sequence[str]):
    """Many strings in one `bytes`: eight bytes of overhead each instead of fifty."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._text = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place]  # counts from the end, and checks
        return os.fsdecode(self._text[self._ends[number] : self._ends[number + 1]])


class FileSource(Source):
    """Labelled image files, decoded on demand.

    Attributes:
        root: the folder that ids are relative to.
        skipped: why files below the root were passed over, with how many (".txt": 3).
        largest: the longest side that anyone will need, in pixels; None: the file's own. Huge
            JPEGs then decode several times faster, see `decode`.
    """

    def __init__(
        self,
        root: Path,
        ids: Iterable[str],
        targets: NDArray[np.int64],
        classes: Sequence[str],
        *,
        name: str,
        origin: str,
        parts: NDArray[np.str_] | None = None,
        skipped: Mapping[str, int] | None = None,
    ) -> None:
        self.root = root
        self.ids = Names(ids)
        self.targets = np.asarray(targets, dtype=np.int64)
        self.classes = tuple(classes)
        self.name = name
        self.origin = origin
        self.parts = np.full(len(self.targets), "", dtype="U5") if parts is None else parts
        self.skipped = dict(skipped or {})
        self.largest: int | None = None
        self._hashes: NDArray[np.uint64] | None = None

    def __getitem__(self, row: int) -> Sample:
        name = self.ids[row]
        image = decode(self.root / name, name, largest=self.largest)
        return Sample(image, int(self.targets[row]), name)

    def path(self, row: int) -> Path:
        """The file of image `row`."""
        return self.root / self.ids[row]

    def hashes(self) -> NDArray[np.uint64]:
        """64-bit hash of each file's bytes, (N,). A file that cannot be read hashes as its name."""
        if self._hashes is None:
            starts = range(0, len(self), CHUNK)
            with ThreadPoolExecutor(max_workers=min(16, 2 * cores())) as pool:
                chunks = list(pool.map(self._hash_chunk, starts))
            self._hashes = np.array([value for chunk in chunks for value in chunk], np.uint64)
        return self._hashes

    def _hash_chunk(self, start: int) -> list[int]:
        return [self._hash(row) for row in range(start, min(start + CHUNK, len(self)))]

    def _hash(self, row: int) -> int:
        try:
            return content_hash(self.path(row).read_bytes())
        except OSError:
            return content_hash(os.fsencode(self.ids[row]))
