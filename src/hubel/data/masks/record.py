"""What masks are made of: `MaskSource`, and its two plain forms, files and arrays."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hubel.data.cores import cores
from hubel.data.decode import decode, size_of
from hubel.data.files import CHUNK, Names
from hubel.data.masks.palette import Colour
from hubel.data.record import ArraySource, Sample, Source, content_hash
from hubel.errors import BrokenImage, DataError

if TYPE_CHECKING:
    from hubel.data.masks.codec import Codec

IGNORE = 255  # the label of pixels that nobody judges
MOST_CLASSES = 255  # a label is one byte, and IGNORE takes one of its values


class MaskSource(Source):
    """Images with a class for every pixel.

    Attributes:
        kind: "masks".
        colours: red, green, blue (0..255) of each class, for pictures.
        targets: zeros (N,): whole images have no class, there is nothing to stratify by.
        listed_in: whole path of the class list that was given when it was opened, if one was.
        ignored: the value that was to be ignored, if one was given.
    """

    kind = "masks"
    colours: tuple[Colour, ...]
    listed_in: str | None = None
    ignored: int | None = None

    @abstractmethod
    def __getitem__(self, row: int) -> Sample:
        """Image uint8 (C, H, W), target uint8 (H, W) of class indices or `IGNORE`.

        Raises:
            BrokenImage: either cannot be read, they differ in size, or a pixel has no class.
        """

    @abstractmethod
    def mask(self, row: int) -> NDArray[np.uint8]:
        """The target alone, (H, W), without decoding the image. Raises as `[row]` does, short of
        what only the image's pixels tell."""

    @abstractmethod
    def size(self, row: int) -> tuple[int, int, int]:
        """(channels, height, width) of the image, from its header. Raises `BrokenImage`."""

    @abstractmethod
    def image_hashes(self) -> NDArray[np.uint64]:
        """64-bit hash of each image without its mask, (N,); cached."""

    def pictures(self) -> NDArray[np.uint64]:
        """The lowest hash among the pairs of each image, (N,)."""
        images, of_row = np.unique(self.image_hashes(), return_inverse=True)
        lowest = np.full(len(images), np.iinfo(np.uint64).max)
        np.minimum.at(lowest, of_row, self.hashes())
        return lowest[of_row]


class ImageFiles(MaskSource):
    """Masks for image files, wherever the masks come from: what all such sources share.

    Attributes:
        root: the folder that ids are relative to.
    """

    def __init__(
        self,
        root: Path,
        images: Iterable[str],
        parts: Sequence[str],
        classes: Sequence[str],
        colours: Sequence[Colour],
        *,
        name: str,
        origin: str,
        notice: str | None = None,
    ) -> None:
        self.root = root
        self.ids = Names(images)
        self.parts = np.array(parts, dtype="U5")
        self.targets = np.zeros(len(self.parts), np.int64)
        self.classes = tuple(classes)
        self.colours = tuple(colours)
        self.name = name
        self.origin = origin
        self.notice = notice
        self._hashes: NDArray[np.uint64] | None = None  # (N, 2): of the image, of both

    def __getitem__(self, row: int) -> Sample:
        name = self.ids[row]
        image = decode(self.path(row), name)
        return Sample(image, self.labels(row, image.shape[1:]), name)

    def mask(self, row: int) -> NDArray[np.uint8]:
        return self.labels(row, self.size(row)[1:])

    def path(self, row: int) -> Path:
        """The file of image `row`."""
        return self.root / self.ids[row]

    def size(self, row: int) -> tuple[int, int, int]:
        return size_of(self.path(row), self.ids[row])

    @abstractmethod
    def labels(self, row: int, size: tuple[int, ...]) -> NDArray[np.uint8]:
        """The mask of an image of `size` (H, W): uint8 (H, W). Raises `BrokenImage`."""

    @abstractmethod
    def mask_bytes(self, row: int) -> bytes:
        """What the mask is made from, for its hash. May raise OSError."""

    def hashes(self) -> NDArray[np.uint64]:
        """64-bit hash of each pair's bytes, (N,). A file that cannot be read hashes as its name."""
        return self._pairs()[:, 1]

    def image_hashes(self) -> NDArray[np.uint64]:
        return self._pairs()[:, 0]

    def _pairs(self) -> NDArray[np.uint64]:
        if self._hashes is None:
            starts = range(0, len(self), CHUNK)
            with ThreadPoolExecutor(max_workers=min(16, 2 * cores())) as pool:
                chunks = list(pool.map(self._hash_chunk, starts))
            flat = [pair for chunk in chunks for pair in chunk]
            self._hashes = np.array(flat, np.uint64).reshape(-1, 2)
        return self._hashes

    def _hash_chunk(self, start: int) -> list[tuple[int, int]]:
        return [self._hash(row) for row in range(start, min(start + CHUNK, len(self)))]

    def _hash(self, row: int) -> tuple[int, int]:
        name = os.fsencode(self.ids[row])
        try:
            image = content_hash(self.path(row).read_bytes())
        except OSError:
            image = content_hash(name)
        try:
            mask = content_hash(self.mask_bytes(row))
        except OSError:
            mask = content_hash(b"mask of " + name)
        return image, joined(image, mask)


def joined(image: int, mask: int) -> int:
    """One 64-bit hash of two."""
    return content_hash(image.to_bytes(8, "little") + mask.to_bytes(8, "little"))


class MaskFiles(ImageFiles):
    """Image files and mask files, decoded on demand.

    Attributes:
        masks: each image's mask, relative to `root`.
        codec: what the masks' pixels mean.
    """

    def __init__(
        self,
        root: Path,
        images: Iterable[str],
        masks: Iterable[str],
        parts: Sequence[str],
        codec: Codec,
        *,
        name: str,
        origin: str,
        notice: str | None = None,
    ) -> None:
        super().__init__(
            root,
            images,
            parts,
            codec.classes,
            codec.colours,
            name=name,
            origin=origin,
            notice=notice,
        )
        self.masks = Names(masks)
        self.codec = codec

    def labels(self, row: int, size: tuple[int, ...]) -> NDArray[np.uint8]:
        name = self.masks[row]
        mask = self.codec.read(self.root / name, name)
        if mask.shape != size:
            height, width = size
            raise BrokenImage(
                name,
                f"the mask is {mask.shape[0]} x {mask.shape[1]}, its image {self.ids[row]} is "
                f"{height} x {width} (height x width, upright); they must be equal",
            )
        return mask

    def mask_bytes(self, row: int) -> bytes:
        return (self.root / self.masks[row]).read_bytes()


class MaskArrays(MaskSource):
    """Images and masks in memory.

    Attributes:
        images: uint8 (N, C, H, W), C = 1 or 3.
        masks: uint8 (N, H, W), class indices or `IGNORE`.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        masks: NDArray[np.uint8],
        classes: Sequence[str],
        colours: Sequence[Colour],
        *,
        name: str = "arrays",
        origin: str = "arrays in memory",
        parts: NDArray[np.str_] | None = None,
        notice: str | None = None,
    ) -> None:
        if (len(images), *images.shape[2:]) != masks.shape:
            raise DataError(
                f"images are (N, C, H, W) and masks (N, H, W) of the same N, H, W; given "
                f"{images.shape} and {masks.shape}"
            )
        held = ArraySource(
            images, np.zeros(len(images), np.int64), classes, name=name, origin=origin, parts=parts
        )
        self._held = held
        self.images, self.masks = images, masks
        self.classes, self.colours = held.classes, tuple(colours)
        self.name, self.origin, self.notice = name, origin, notice
        self.targets, self.parts, self.ids = held.targets, held.parts, held.ids
        self._hashes: NDArray[np.uint64] | None = None

    def __getitem__(self, row: int) -> Sample:
        return Sample(self.images[row], self.masks[row], self.ids[row])

    def mask(self, row: int) -> NDArray[np.uint8]:
        mask: NDArray[np.uint8] = self.masks[row]
        return mask

    def size(self, row: int) -> tuple[int, int, int]:
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def image_hashes(self) -> NDArray[np.uint64]:
        return self._held.hashes()

    def hashes(self) -> NDArray[np.uint64]:
        if self._hashes is None:
            masks = (content_hash(np.ascontiguousarray(mask).data.cast("B")) for mask in self.masks)
            both = zip(self.image_hashes().tolist(), masks, strict=True)
            self._hashes = np.array([joined(*pair) for pair in both], np.uint64)
        return self._hashes
