"""What is wrong with images and masks, in plain sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hubel.data.check import IMBALANCE, mixed_shapes, size_table
from hubel.data.duplicates import exact_duplicates
from hubel.data.findings import LEVELS, Finding, Findings, Level, say
from hubel.data.masks.record import IGNORE, MaskSource
from hubel.data.record import Sample, Source
from hubel.data.repeats import Division, exact_copies
from hubel.data.split import Split
from hubel.data.survey import Progress, Survey, in_threads
from hubel.errors import BrokenImage, DataError

MOST_MASKS = 200  # of the quick form, and of `class_shares`
RARE = 0.001  # of the labelled pixels


def check_masks(
    source: MaskSource,
    split: Split | None = None,
    broken: Mapping[int, BrokenImage] | None = None,
    *,
    full: bool = False,
    progress: Progress | None = None,
) -> Findings:
    """The check of images with masks. In `counts` an image counts for every class it contains.

    The quick form reads 200 masks, evenly spaced in each part, and the headers of their images; it
    finds exact copies by hash. What it says of classes, pixels and sizes is then said of those.

    Args:
        source: what will be trained on.
        split: how it is divided; None: as the files have it.
        broken: rows that are known to be unreadable.
        full: decode every image and mask.
        progress: hears (done, all).
    """
    division = Division.of(source, split)
    rows = np.arange(len(source)) if full else _some(division)
    seen = _look(source, rows, dict(broken or {}), full, progress)
    said = sorted(seen.survey.broken)
    found = [
        *_broken(source, seen),
        *_unlabelled(source, seen),
        *_absent(source, division, seen),
        *_balance(source, division, seen),
        *_two_masks(source, said),
        *exact_copies(_Images(source), division, said),
        *mixed_shapes(seen.survey),
    ]
    return Findings(
        findings=sorted(found, key=lambda finding: LEVELS.index(finding.level)),
        full=full,
        images=len(source),
        broken=len(said),
        classes=list(source.classes),
        counts=_counts(division, seen),
        sizes=size_table(seen.survey),
    )


def class_shares(
    source: MaskSource, rows: NDArray[np.int64] | Sequence[int], most: int = MOST_MASKS
) -> NDArray[np.float64]:
    """Share of each class in the labelled pixels: (K,), 1 in sum.

    Args:
        source: images with masks; broken pairs are passed over.
        rows: which of them, such as those that train.
        most: masks to read; of more, as many, evenly spaced, are taken.

    Raises:
        DataError: no pixel of these masks has a label.
    """
    rows = np.asarray(rows, np.int64)
    seen = _look(source, rows[_spaced(len(rows), most)], {}, False, None)
    pixels = seen.pixels[:, :-1].sum(0)
    if not pixels.sum():
        raise DataError(f"{source.name}: no pixel of {say(len(rows), 'mask', 'masks')} has a label")
    shares: NDArray[np.float64] = pixels / pixels.sum()
    return shares


@dataclass(eq=False)
class _Seen:
    """The facts, by row of the source.

    Attributes:
        survey: sizes of images, and what cannot be read.
        pixels: int64 (N, K + 1), pixels of each class, ignored ones last.
        read: bool (N,), whether the mask was read.
        names: row -> the broken file where it is not the image.
    """

    survey: Survey
    pixels: NDArray[np.int64]
    read: NDArray[np.bool_]
    names: dict[int, str]


def _look(
    source: MaskSource,
    rows: NDArray[np.int64],
    broken: dict[int, BrokenImage],
    full: bool,
    progress: Progress | None,
) -> _Seen:
    classes = len(source.classes)
    seen = _Seen(
        Survey.blank(len(source)),
        np.zeros((len(source), classes + 1), np.int64),
        np.zeros(len(source), np.bool_),
        {},
    )

    def work(place: int) -> tuple[tuple[int, ...], NDArray[np.int64]] | BrokenImage:
        row = int(rows[place])
        return broken[row] if row in broken else _facts(source, row, full)

    for place, found in in_threads(work, len(rows)):
        row = int(rows[place])
        if isinstance(found, BrokenImage):
            broken[row] = found
        else:
            seen.survey.shapes[row], seen.pixels[row] = found
            seen.read[row] = True
        if progress is not None:
            progress(place + 1, len(rows))
    for row, error in broken.items():
        seen.survey.broken[row] = error.reason
        seen.names[row] = error.where
    return seen


def _facts(
    source: MaskSource, row: int, full: bool
) -> tuple[tuple[int, ...], NDArray[np.int64]] | BrokenImage:
    try:
        if full:
            sample = source[row]
            shape, mask = sample.image.shape, sample.target
        else:
            shape, mask = source.size(row), source.mask(row)
    except BrokenImage as error:
        return error
    counts = np.bincount(mask.ravel(), minlength=IGNORE + 1)
    return shape, np.r_[counts[: len(source.classes)], counts[IGNORE]]


def _spaced(number: int, most: int) -> NDArray[np.int64]:
    """At most `most` positions below `number`, evenly spaced."""
    return np.linspace(0, max(number - 1, 0), min(number, most)).astype(np.int64)


def _some(division: Division) -> NDArray[np.int64]:
    """Rows for the quick form, each part's in proportion and at least ten of each."""
    total = len(division.number)
    chosen = []
    for number in range(len(division.names)):
        rows = np.flatnonzero(division.number == number)
        most = max(10, MOST_MASKS * len(rows) // max(total, 1))
        chosen.append(rows[_spaced(len(rows), most)])
    return np.concatenate(chosen)


def _counts(division: Division, seen: _Seen) -> dict[str, list[int]]:
    counts = {}
    for number, part in enumerate(division.names):
        mine = division.number == number
        if mine.any() or part in ("all", "train"):
            counts[part] = (seen.pixels[mine, :-1] > 0).sum(0).tolist()
    return counts


def _broken(source: MaskSource, seen: _Seen) -> Iterator[Finding]:
    rows = sorted(seen.survey.broken)
    if rows:
        text = say(len(rows), "pair cannot be used", "pairs cannot be used")
        lines = []
        for row in rows:
            file = "" if seen.names[row] == source.ids[row] else f" ({seen.names[row]})"
            lines.append(f"{source.ids[row]}{file}: {seen.survey.broken[row]}")
        yield Finding.listing("error", "broken", text, rows, lines)


def _unlabelled(source: MaskSource, seen: _Seen) -> Iterator[Finding]:
    rows = np.flatnonzero(seen.read & ~seen.pixels[:, :-1].any(1)).tolist()
    if rows:
        text = say(len(rows), "mask has", "masks have") + " no pixel with a label: all are ignored"
        yield Finding.listing("warning", "unlabelled", text, rows, (source.ids[r] for r in rows))


def _absent(source: MaskSource, division: Division, seen: _Seen) -> Iterator[Finding]:
    """Classes without pixels. Of a part that was not read whole it is only a note."""
    for number, part in enumerate(division.names):
        mine = division.number == number
        trained = part in ("train", "all")
        if not mine.any():
            if trained:
                yield Finding("error", "no-training", f"there are no images in {part}")
            elif part != "apart":
                yield Finding("warning", "no-training", f"there are no images in {part}")
            continue
        read = int((mine & seen.read).sum())
        none = np.flatnonzero(~seen.pixels[mine, :-1].any(0)).tolist()
        if not none or not read:
            continue
        whole = read == int(mine.sum())
        level: Level = "note" if not whole else "error" if trained else "warning"
        of_part = "" if part == "all" else f" of {part}"
        of = part if whole else f"the {read:,} masks{of_part} that were looked at"
        text = say(len(none), "class has", "classes have") + f" no pixels in {of}"
        yield Finding.listing(level, "absent", text, (), [source.classes[c] for c in none])


def _balance(source: MaskSource, division: Division, seen: _Seen) -> Iterator[Finding]:
    """Rare classes and imbalance, among the pixels that train."""
    pixels = seen.pixels[division.number == 0, :-1].sum(0)
    present = np.flatnonzero(pixels)
    if len(present) < 2:
        return
    shares = pixels / pixels.sum()
    order = present[np.argsort(shares[present], kind="stable")]
    lines = [f"{source.classes[c]}: {_percent(shares[c])}" for c in order.tolist()]
    rare = [line for c, line in zip(order, lines, strict=True) if shares[c] < RARE]
    if rare:
        text = say(len(rare), "class has", "classes have")
        text += f" less than {_percent(RARE)} of the training pixels"
        yield Finding.listing("warning", "rare", text, (), rare)
    least, most = order[0], order[-1]
    if pixels[most] > IMBALANCE * pixels[least]:
        text = (
            f"class {source.classes[most]!r} has {pixels[most] / pixels[least]:.3g} times as many "
            f"training pixels as {source.classes[least]!r}"
        )
        yield Finding.listing("note", "imbalance", text, (), lines[::-1])


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _two_masks(source: MaskSource, broken: Sequence[int]) -> Iterator[Finding]:
    """Equal images whose masks differ."""
    whole = np.setdiff1d(np.arange(len(source)), np.asarray(broken, np.int64))
    pairs, rows, lines = source.hashes(), [], []
    for group in exact_duplicates(source.image_hashes()[whole]):
        _, first = np.unique(pairs[whole[group]], return_index=True)
        if len(first) > 1:
            meant = whole[group][np.sort(first)].tolist()
            rows += meant
            lines.append(" = ".join(source.ids[row] for row in meant))
    if lines:
        text = say(len(lines), "image has", "images have") + " more than one mask"
        yield Finding.listing("warning", "labels", text, rows, lines)


class _Images(Source):
    """The images of a source without their masks: a picture in two parts is a leak, whatever was
    drawn on it."""

    def __init__(self, source: MaskSource) -> None:
        self.source = source
        self.name, self.origin, self.classes = source.name, source.origin, source.classes
        self.targets, self.parts, self.ids = source.targets, source.parts, source.ids

    def __getitem__(self, row: int) -> Sample:
        return self.source[row]

    def hashes(self) -> NDArray[np.uint64]:
        return self.source.image_hashes()
