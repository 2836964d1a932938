"""Images and labels that are arrays already: any usual layout and scale to an `ArraySource`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubel.data import labels
from hubel.data.record import ArraySource
from hubel.errors import DataError

CHUNK = 1 << 23  # values that are checked and scaled at a time: no float copy of all ever exists
SLACK = 1e-3  # what resizing in float32 may overshoot; rounding to bytes takes it away

Pair = tuple[NDArray[Any], NDArray[Any]]


def source_from_arrays(
    parts: Mapping[str, Pair],
    *,
    titles: Mapping[str, tuple[str, str]],
    classes: Sequence[str] | None = None,
    name: str = "arrays",
    origin: str = "arrays in memory",
) -> ArraySource:
    """A source from arrays of images and labels.

    Args:
        parts: "train", "val", "test" or "" -> (images, labels). Images are (N, H, W),
            (N, H, W, C) or (N, C, H, W) with C = 1 or 3: integers 0..255, floats 0..1 or
            0..255, or bool. Labels as `labels.from_arrays` takes them.
        titles: part -> how messages name its images and its labels.
        classes: class names, which integer labels index.
        name, origin: the source's.

    Raises:
        DataError: wrong shapes, counts, values or types; says which and where.
    """
    images = {titles[p][0]: _channels_first(x, titles[p][0]) for p, (x, _) in parts.items()}
    targets = {titles[p][1]: y for p, (_, y) in parts.items()}
    _check_counts(images, targets)
    _check_equal_shapes(images)
    scale = _scale(images)
    names, numbers = labels.from_arrays(targets, classes)
    labels.check_classes(names, origin)
    counts = [len(array) for array in images.values()]
    return ArraySource(
        _joined([_to_bytes(array, scale) for array in images.values()]),
        numbers,
        names,
        name=name,
        origin=origin,
        parts=np.repeat(np.array(list(parts), dtype="U5"), counts),
    )


def _channels_first(images: NDArray[Any], title: str) -> NDArray[Any]:
    """A view (N, C, H, W)."""
    if images.dtype.kind not in "buif":
        raise DataError(f"{title}: pixels must be numbers, given {images.dtype}")
    shape = images.shape
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and shape[3] in (1, 3):
        images = np.moveaxis(images, 3, 1)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise DataError(
            f"{title}: images must be (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3, "
            f"given {shape}"
        )
    return images


def _check_counts(images: Mapping[str, NDArray[Any]], targets: Mapping[str, NDArray[Any]]) -> None:
    for (title, array), (label_title, given) in zip(images.items(), targets.items(), strict=True):
        count = len(given) if given.ndim else 0
        if len(array) != count:
            raise DataError(f"{title}: {len(array):,} images, but {label_title}: {count:,} labels")


def _check_equal_shapes(images: Mapping[str, NDArray[Any]]) -> None:
    shapes = {title: array.shape[1:] for title, array in images.items()}
    if len(set(shapes.values())) > 1:
        given = ", ".join(f"{title} {shape}" for title, shape in shapes.items())
        raise DataError(f"all images need one shape (channels, height, width), given {given}")


def _scale(images: Mapping[str, NDArray[Any]]) -> float:
    """What every image is multiplied by: 255 where no part holds integers or exceeds 1."""
    highest = 0.0
    for title, array in images.items():
        low, high = _span(array, title)
        if low < -SLACK or high > 255 + SLACK:
            raise DataError(
                f"{title}: pixels run from {low:.6g} to {high:.6g}; allowed: integers 0..255, "
                "floats 0..1 or 0..255 (give the images before any normalisation)"
            )
        highest = max(highest, high)
    integers = any(array.dtype.kind in "ui" for array in images.values())
    return 1.0 if integers or highest > 1 + SLACK else 255.0


def _span(images: NDArray[Any], title: str) -> tuple[float, float]:
    """Least and greatest value; the first NaN or infinity is an error that names its place."""
    if images.dtype == np.uint8:
        return 0.0, 255.0
    low, high = np.inf, -np.inf
    for rows in _chunks(images):
        chunk = images[rows]
        finite = np.isfinite(chunk)
        if not finite.all():
            row, channel, y, x = np.argwhere(~finite)[0]
            raise DataError(
                f"{title}: image {rows.start + row} has {chunk[row, channel, y, x]} at channel "
                f"{channel}, row {y}, column {x}; allowed: finite numbers"
            )
        low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
    return low, high


def _to_bytes(images: NDArray[Any], scale: float) -> NDArray[np.uint8]:
    if images.dtype == np.uint8:
        return images
    out = np.empty(images.shape, dtype=np.uint8)
    for rows in _chunks(images):
        out[rows] = np.round(images[rows] * np.float64(scale)).clip(0, 255)
    return out


def _chunks(images: NDArray[Any]) -> Iterator[slice]:
    step = max(1, CHUNK // images[0].size)
    return (slice(start, start + step) for start in range(0, len(images), step))


def _joined(arrays: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """One contiguous, writable array; a single one that is so already is not copied."""
    joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return np.require(joined, requirements=["C", "W"])
