"""From labels as people write them (words, numbers, one-hot rows) to class names and indices."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubel.errors import DataError, unknown


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts "img2" before "img10"; the name itself breaks ties ("01" and "1").

    >>> sorted(["b10", "b9", "a"], key=natural_key)
    ['a', 'b9', 'b10']
    """
    key = []
    for place, piece in enumerate(re.split("([0-9]+)", name.casefold())):
        if place % 2:  # digits: fewer come first, whatever their number (int() has a limit)
            digits = piece.lstrip("0")
            key.append((0, len(digits), digits))
        elif piece:
            key.append((1, 0, piece))
    return [*key, (-1, 0, name)]


def from_words(words: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """(class names in natural order, int64 (N,) index of each word among them)."""
    classes = tuple(sorted(set(words), key=natural_key))
    return classes, _places(words, classes)


def from_arrays(
    labels: Mapping[str, NDArray[Any]], classes: Sequence[str] | None
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names, and int64 indices of all labels in one array.

    Args:
        labels: title for messages -> (N,) or (N, 1) of integers, whole floats or words; or
            (N, K) one-hot. All of one kind.
        classes: the class names, which integers index; None: the values that occur, as words.

    Raises:
        DataError: another shape or type, a negative or broken value, an unnamed class.
    """
    flat = {title: _flat(array, title) for title, array in labels.items()}
    if len({array.dtype.kind in "US" for array in flat.values()}) > 1:
        kinds = ", ".join(f"{title} is {array.dtype}" for title, array in flat.items())
        raise DataError(f"labels must be all words or all numbers: {kinds}")
    if all(array.dtype.kind in "US" for array in flat.values()):
        return _from_words_of(flat, classes)
    if classes is None:
        classes = _default_names(labels, flat)
        if classes is None:
            found, targets = np.unique(np.concatenate(list(flat.values())), return_inverse=True)
            return tuple(str(value) for value in found), targets.astype(np.int64)
    for title, values in flat.items():
        _check_range(values, len(classes), title)
    return tuple(classes), np.concatenate(list(flat.values()))


def check_classes(classes: Sequence[str], where: str) -> None:
    """Classification needs two classes at least, each with a name of its own."""
    if len(classes) < 2:
        given = f"only {classes[0]!r}" if classes else "none"
        raise DataError(f"{where}: at least two classes are needed, given {given}")
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if list(classes).count(name) > 1)
        raise DataError(f"{where}: the class name {twice!r} stands twice")


def _flat(labels: NDArray[Any], title: str) -> NDArray[Any]:
    """(N,) of int64 or of str."""
    if labels.dtype.kind not in "biufUS":
        raise DataError(f"{title}: labels must be numbers or words, given {labels.dtype}")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim not in (1, 2):
        raise DataError(f"{title}: labels must be (N,) or one-hot (N, K), given {labels.shape}")
    if labels.dtype.kind == "S":
        return np.char.decode(labels, "utf-8", "replace")
    if labels.dtype.kind == "U":
        return labels
    return _whole(labels, title) if labels.ndim == 1 else _from_one_hot(labels, title)


def _from_one_hot(labels: NDArray[Any], title: str) -> NDArray[np.int64]:
    good = ((labels != 0).sum(1) == 1) & ((labels == 1).sum(1) == 1)
    if not good.all():
        row = int(np.argmin(good))
        raise DataError(f"{title}: row {row} is not one-hot (a single 1, all else 0)")
    places: NDArray[np.int64] = np.argmax(labels, axis=1).astype(np.int64)
    return places


def _whole(labels: NDArray[Any], title: str) -> NDArray[np.int64]:
    with np.errstate(invalid="ignore"):  # NaN is caught just below
        values = labels.astype(np.int64)
    bad = np.flatnonzero((values != labels) | (values < 0))
    if len(bad):
        given = labels[bad[0]]
        raise DataError(f"{title}: label {bad[0]} is {given}; allowed: whole numbers from 0")
    return values


def _default_names(
    labels: Mapping[str, NDArray[Any]], flat: Mapping[str, NDArray[Any]]
) -> tuple[str, ...] | None:
    """One-hot labels tell how many classes there are; plain integers do not."""
    widths = {a.shape[1] for t, a in labels.items() if a.ndim == 2 and a.shape[1] > 1}
    if not widths:
        return None
    count = max(*widths, *(int(values.max(initial=0)) + 1 for values in flat.values()))
    return tuple(str(number) for number in range(count))


def _check_range(values: NDArray[np.int64], count: int, title: str) -> None:
    bad = np.flatnonzero(values >= count)
    if len(bad):
        given = values[bad[0]]
        raise DataError(f"{title}: label {bad[0]} is {given}; {count} classes are 0..{count - 1}")


def _from_words_of(
    flat: Mapping[str, NDArray[Any]], classes: Sequence[str] | None
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    words = [word for array in flat.values() for word in array.tolist()]
    if classes is None:
        return from_words(words)
    strange = set(words) - set(classes)
    if strange:
        title = next(iter(flat))
        raise DataError(f"{title}: {unknown('class', min(strange), classes)}")
    return tuple(classes), _places(words, classes)


def _places(words: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    index = {name: number for number, name in enumerate(classes)}
    return np.array([index[word] for word in words], dtype=np.int64)
