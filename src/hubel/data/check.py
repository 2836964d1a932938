"""What is wrong with a data set, in plain sentences: `quick_check` before every training, and
`full_check`, which decodes every image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hubel.data.findings import LEVELS, Finding, Findings, Level, say
from hubel.data.record import Source
from hubel.data.repeats import Division, exact_copies, near_copies
from hubel.data.split import Split
from hubel.data.survey import Progress, Survey, glance, survey
from hubel.errors import BrokenImage

__all__ = ["Finding", "Findings", "full_check", "quick_check"]

IMBALANCE = 10  # largest class over smallest
SMALL = 10  # training images of a class


def quick_check(
    source: Source,
    split: Split,
    images: torch.Tensor | NDArray[np.uint8] | None = None,
    broken: Mapping[int, BrokenImage] | None = None,
) -> Findings:
    """The check of a second or two that goes before every training.

    It reads file headers (10,000 at most), counts classes, and finds exact copies by hash. Where
    pixels are in memory it also finds flat images and, among up to 20,000, near copies.

    Args:
        source, split: what will be trained on.
        images: uint8 (N, C, H, W), all rows of the source at the model's size, any device.
        broken: rows of `images` that could not be decoded and hold nothing.
    """
    return _findings(source, split, glance(source, images, broken), full=False)


def full_check(
    source: Source, split: Split | None = None, progress: Progress | None = None
) -> Findings:
    """Decode every image, and compare each with each.

    Without a split the parts are those that the source gives. `progress` hears (done, all).
    """
    return _findings(source, split, survey(source, progress), full=True)


def _findings(source: Source, split: Split | None, seen: Survey, *, full: bool) -> Findings:
    division = Division.of(source, split)
    counts = _counts(source, division)
    broken = sorted(seen.broken)
    found = [
        *_broken(source, seen),
        *_absent(source.classes, counts),
        *_balance(source.classes, counts),
        *exact_copies(source, division, broken),
        *_flat(source, seen),
        *mixed_shapes(seen),
    ]
    if seen.thumbnails is not None:
        found += near_copies(source, division, seen.thumbnails, broken)
    return Findings(
        findings=sorted(found, key=lambda finding: LEVELS.index(finding.level)),
        full=full,
        images=len(source),
        broken=len(broken),
        classes=list(source.classes),
        counts=counts,
        sizes=size_table(seen),
    )


def _counts(source: Source, division: Division) -> dict[str, list[int]]:
    counts = {}
    for number, part in enumerate(division.names):
        targets = source.targets[division.number == number]
        if len(targets) or part in ("all", "train"):
            counts[part] = np.bincount(targets, minlength=len(source.classes)).tolist()
    return counts


def _broken(source: Source, seen: Survey) -> Iterator[Finding]:
    if seen.broken:
        rows = sorted(seen.broken)
        text = say(len(rows), "image cannot be read", "images cannot be read")
        names = [f"{source.ids[row]}: {seen.broken[row]}" for row in rows]
        yield Finding.listing("error", "broken", text, rows, names)


def _absent(classes: tuple[str, ...], counts: dict[str, list[int]]) -> Iterator[Finding]:
    """Classes without images: an error where the net would have to learn them."""
    for part, numbers in counts.items():
        names = [name for name, number in zip(classes, numbers, strict=True) if not number]
        level: Level = "error" if part in ("train", "all") else "warning"
        if len(names) == len(classes):
            yield Finding(level, "no-training", f"there are no images in {part}")
        elif names:
            text = say(len(names), "class has", "classes have") + f" no images in {part}"
            yield Finding.listing(level, "absent", text, (), names)


def _balance(classes: tuple[str, ...], counts: dict[str, list[int]]) -> Iterator[Finding]:
    """Small classes and imbalance, among the images that train."""
    numbers = counts.get("train") or counts["all"]
    present = sorted(
        (number, name) for name, number in zip(classes, numbers, strict=True) if number
    )
    few = [f"{name}: {number}" for number, name in present if number < SMALL]
    if few:
        text = say(len(few), "class has", "classes have") + f" fewer than {SMALL} training images"
        yield Finding.listing("warning", "small", text, (), few)
    if present and present[-1][0] > IMBALANCE * present[0][0]:
        (least, rare), (most, common) = present[0], present[-1]
        text = f"class {common!r} has {most / least:.3g} times as many training images as {rare!r}"
        yield Finding("warning", "imbalance", f"{text} ({most:,} and {least:,})")


def _flat(source: Source, seen: Survey) -> Iterator[Finding]:
    rows = np.flatnonzero(seen.flat).tolist()
    if rows:
        text = say(len(rows), "image is", "images are") + " one colour all over"
        yield Finding.listing("warning", "flat", text, rows, (source.ids[row] for row in rows))


def mixed_shapes(seen: Survey) -> Iterator[Finding]:
    """Mixed sizes and channels: training makes them equal, but it is good to know."""
    shapes = seen.shapes[seen.shapes[:, 0] > 0]
    sizes = np.unique(shapes[:, 1:], axis=0)
    if len(sizes) > 1:
        by_area = sizes[np.argsort(sizes.prod(1), kind="stable")]
        (low, narrow), (high, wide) = by_area[0], by_area[-1]
        text = f"images have {len(sizes):,} sizes, from {low} x {narrow} to {high} x {wide} pixels"
        yield Finding("note", "sizes", f"{text} (height x width)")
    grey, colour = (int((shapes[:, 0] == channels).sum()) for channels in (1, 3))
    if grey and colour:
        text = say(grey, "image is grey", "images are grey") + f" and {colour:,} RGB"
        yield Finding("note", "channels", text)


def size_table(seen: Survey) -> dict[str, Any]:
    """`Findings.sizes`."""
    shapes = seen.shapes[seen.shapes[:, 0] > 0]
    if not len(shapes):
        return {}
    low, middle, high = (np.quantile(shapes[:, 1:], q, axis=0).tolist() for q in (0, 0.5, 1))
    return {
        "height": [low[0], middle[0], high[0]],
        "width": [low[1], middle[1], high[1]],
        "grey": int((shapes[:, 0] == 1).sum()),
        "rgb": int((shapes[:, 0] == 3).sum()),
        "read": len(shapes),
    }
