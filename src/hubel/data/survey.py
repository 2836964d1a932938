"""One look at every image of a source: size, channels, thumbnail, and whether it can be read.

`glance` reads headers and looks at pixels that are in memory already; `survey` decodes every
image, in threads. What the facts mean is for `check.py` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from hubel.data.cores import cores
from hubel.data.decode import size_of
from hubel.data.duplicates import SIDE, thumbnail
from hubel.data.files import FileSource
from hubel.data.record import ArraySource, Source
from hubel.errors import BrokenImage

T = TypeVar("T")
Progress = Callable[[int, int], None]
MOST_HEADERS = 10_000  # about a second on two cores
MOST_THUMBNAILS = 20_000  # made at a glance: about half a second
CHUNK = 64  # images a thread takes at a time


@dataclass(eq=False)
class Survey:
    """The facts, by row of the source.

    Attributes:
        shapes: int64 (N, 3), C, H, W of the image as it is stored; 0 where it was not read.
        flat: bool (N,), one colour all over; False where no pixel was seen.
        thumbnails: uint8 (N, 32, 32), grey; None where the pixels were not looked at.
        broken: row -> why the image cannot be decoded.
    """

    shapes: NDArray[np.int64]
    flat: NDArray[np.bool_]
    thumbnails: NDArray[np.uint8] | None
    broken: dict[int, str]

    @classmethod
    def blank(cls, images: int) -> Survey:
        return cls(np.zeros((images, 3), np.int64), np.zeros(images, np.bool_), None, {})


def glance(
    source: Source,
    images: torch.Tensor | NDArray[np.uint8] | None = None,
    broken: Mapping[int, BrokenImage] | None = None,
) -> Survey:
    """What is to be had in a second or two.

    Sizes come from an array or from file headers, at most 10,000 of them, evenly spaced. Pixels
    are looked at where they are in memory: in `images`, or in the source itself. Thumbnails are
    made of at most 20,000.

    Args:
        source: any source.
        images: uint8 (N, C, H, W), all rows of the source at the model's size, any device.
        broken: rows of `images` that could not be decoded and hold nothing.
    """
    found = Survey.blank(len(source))
    if isinstance(source, ArraySource):
        found.shapes[:] = source.images.shape[1:]
        images = source.images if images is None else images
    elif isinstance(source, FileSource):
        _read_headers(source, found)
    found.broken |= {row: error.reason for row, error in (broken or {}).items()}
    if images is not None:
        _look(torch.as_tensor(images), found)
    return found


def survey(source: Source, progress: Progress | None = None) -> Survey:
    """Decode every image once, in one thread per core. `progress` hears (done, all)."""
    found = Survey.blank(len(source))
    found.thumbnails = np.zeros((len(source), SIDE, SIDE), np.uint8)
    for done, (row, seen) in enumerate(in_threads(lambda row: _see(source, row), len(source)), 1):
        if isinstance(seen, BrokenImage):
            found.broken[row] = seen.reason
        else:
            found.shapes[row], found.flat[row], found.thumbnails[row] = seen
        if progress is not None:
            progress(done, len(source))
    return found


def _read_headers(source: FileSource, found: Survey) -> None:
    rows = np.linspace(0, len(source) - 1, min(len(source), MOST_HEADERS)).astype(np.int64)

    def read(position: int) -> tuple[int, int, int] | BrokenImage:
        try:
            return size_of(source.path(int(rows[position])))
        except BrokenImage as error:
            return error

    for position, seen in in_threads(read, len(rows)):
        row = int(rows[position])
        if isinstance(seen, BrokenImage):
            found.broken[row] = seen.reason
        else:
            found.shapes[row] = seen


def _look(images: torch.Tensor, found: Survey) -> None:
    pixels = images.flatten(2)
    found.flat = (pixels.amin(2) == pixels.amax(2)).all(1).cpu().numpy()
    found.flat[list(found.broken)] = False  # their rows hold zeros
    if len(images) <= MOST_THUMBNAILS:
        found.thumbnails = np.stack([thumbnail(image) for image in images.cpu().numpy()])


Seen = tuple[tuple[int, ...], bool, NDArray[np.uint8]]


def _see(source: Source, row: int) -> Seen | BrokenImage:
    try:
        image = source[row].image
    except BrokenImage as error:
        return error
    # A file source may decode smaller than the file (its `largest`).
    shape = size_of(source.path(row)) if isinstance(source, FileSource) else image.shape
    return shape, bool((image == image[:, :1, :1]).all()), thumbnail(image)


def in_threads(work: Callable[[int], T], count: int) -> Iterator[tuple[int, T]]:
    """(position, work(position)) in order, a chunk of positions to a thread at a time."""

    def chunk(start: int) -> list[T]:
        return [work(position) for position in range(start, min(start + CHUNK, count))]

    pool = ThreadPoolExecutor(cores())
    try:
        results: Iterable[list[T]] = pool.map(chunk, range(0, count, CHUNK))
        yield from enumerate(result for part in results for result in part)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest
