"""Findings about images that stand in a data set more than once, exactly or nearly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hubel.data.duplicates import MOST_PAIRS, exact_duplicates, near_duplicates
from hubel.data.findings import Finding, say
from hubel.data.record import PARTS, Source
from hubel.data.split import ALL_PARTS, PART_NUMBER, Split

Pairs = NDArray[np.int64]  # (P, 2): rows that show the same picture, the earlier part first


@dataclass(frozen=True, eq=False)
class Division:
    """Which part each row belongs to.

    Attributes:
        number: (N,), each row's part as a position in `names`.
        names: "train", "val", "test" (and "apart" where some are); or "all" alone where nothing
            has been divided yet.
    """

    number: NDArray[np.int64]
    names: tuple[str, ...]

    @classmethod
    def of(cls, source: Source, split: Split | None) -> Division:
        """By the split; without one, as the source's files have it."""
        if split is not None:
            return cls(split.numbers(), ALL_PARTS if len(split.apart) else PARTS)
        if not (source.parts != "").any():
            return cls(np.zeros(len(source), np.int64), ("all",))
        return cls(np.array([PART_NUMBER[part] for part in source.parts.tolist()]), PARTS)


def exact_copies(source: Source, division: Division, broken: Sequence[int]) -> Iterator[Finding]:
    """Equal images: with more than one label, across parts, within a part. Not broken ones."""
    whole = np.setdiff1d(np.arange(len(source)), np.asarray(broken, np.int64))
    groups = [whole[group] for group in exact_duplicates(source.hashes()[whole])]
    yield from _two_labels(source, groups)
    for earlier, later, pairs in _by_parts(_exact_pairs(groups, division), division):
        lines = [f"{source.ids[a]} = {source.ids[b]}" for a, b in pairs.tolist()]
        if earlier == later:
            text = say(len(pairs), "image repeats", "images repeat") + " another one" + _in(later)
            yield Finding.listing("note", "copies", text, pairs.ravel().tolist(), lines)
        else:
            images = len(np.unique(pairs[:, 1]))
            text = say(images, f"{later} image also stands", f"{later} images also stand")
            text += _in(earlier)
            yield Finding.listing("warning", "leak", text, pairs.ravel().tolist(), lines)


def near_copies(
    source: Source, division: Division, thumbnails: NDArray[np.uint8], broken: Sequence[int]
) -> Iterator[Finding]:
    """Nearly equal images, across parts and within one. Exact copies are left out."""
    pairs, distances = _near_pairs(source, division, thumbnails, broken)
    least = "at least " if len(pairs) == MOST_PAIRS else ""
    said = {(a, b): f"{d:.3f}" for (a, b), d in zip(pairs.tolist(), distances, strict=True)}
    for earlier, later, some in _by_parts(pairs, division):
        lines = [
            f"{source.ids[a]} ~ {source.ids[b]} (distance {said[a, b]})" for a, b in some.tolist()
        ]
        if earlier == later:
            text = say(len(some), "pair of images is", "pairs of images are") + " nearly equal"
            text = least + text + _in(later)
            yield Finding.listing("note", "near-copies", text, some.ravel().tolist(), lines)
        else:
            images = len(np.unique(some[:, 1]))
            text = say(images, f"{later} image nearly equals", f"{later} images nearly equal")
            text = least + text + " one" + _in(earlier)
            yield Finding.listing("warning", "near-leak", text, some.ravel().tolist(), lines)


def _two_labels(source: Source, groups: list[NDArray[np.int64]]) -> Iterator[Finding]:
    rows, lines = [], []
    for group in groups:
        labels, first = np.unique(source.targets[group], return_index=True)
        if len(labels) > 1:
            meant = group[np.sort(first)].tolist()
            named = [f"{source.ids[row]} ({source.classes[source.targets[row]]})" for row in meant]
            rows += meant
            lines.append(" = ".join(named))
    if lines:
        text = say(len(lines), "image carries", "images carry") + " more than one label"
        yield Finding.listing("warning", "labels", text, rows, lines)


def _exact_pairs(groups: list[NDArray[np.int64]], division: Division) -> Pairs:
    """In each part the first copy with each further one, and with each copy of a later part."""
    pairs = []
    for group in groups:
        numbers = division.number[group]
        parts = [group[numbers == number].tolist() for number in np.unique(numbers)]
        for position, part in enumerate(parts):
            pairs += [(part[0], row) for row in part[1:]]
            pairs += [(part[0], row) for later in parts[position + 1 :] for row in later]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _near_pairs(
    source: Source, division: Division, thumbnails: NDArray[np.uint8], broken: Sequence[int]
) -> tuple[Pairs, NDArray[np.float32]]:
    """Each image stands for its exact copies in the same part: ten thousand equal ones are one."""
    hashes = source.hashes()
    order = np.lexsort((division.number, hashes))
    same = (np.diff(hashes[order]) == 0) & (np.diff(division.number[order]) == 0)
    kept = np.setdiff1d(order[np.r_[True, ~same]], np.asarray(broken, np.int64))
    pairs, distances = near_duplicates(thumbnails[kept])
    pairs = kept[pairs]
    different = hashes[pairs[:, 0]] != hashes[pairs[:, 1]]
    pairs, distances = pairs[different], distances[different]
    swapped = division.number[pairs[:, 0]] > division.number[pairs[:, 1]]
    pairs[swapped] = pairs[swapped, ::-1]
    return pairs, distances


def _by_parts(pairs: Pairs, division: Division) -> Iterator[tuple[str, str, Pairs]]:
    """(earlier part, later part, their pairs), for each two parts that share some."""
    numbers = division.number[pairs]
    for first, second in np.unique(numbers, axis=0).tolist():
        chosen = pairs[(numbers == (first, second)).all(1)]
        yield division.names[first], division.names[second], chosen


def _in(part: str) -> str:
    return "" if part == "all" else f" in {part}"
