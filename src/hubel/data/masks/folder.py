"""Folders of images and masks: `images/` + `masks/`, with or without train, val and test, SegNet's
`train/` + `trainannot/`, or both kinds of file side by side (`a.jpg`, `a_mask.png`)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from hubel.data.folder import PART_WORDS
from hubel.data.masks.pairs import (
    Files,
    Pairs,
    counted,
    images_below,
    listed,
    without_ending,
)
from hubel.data.record import PARTS
from hubel.errors import DataError

IMAGES = ("images", "image", "imgs", "img", "photos", "jpegimages")
MASKS = ("masks", "mask", "labels", "label", "annotations", "annot", "gt", "segmentationclass")
ANNOTATED = "annot"  # SegNet's folder of masks: "train" + "trainannot"
SHAPE = (
    "images/ + masks/ (also below train/, val/, test/, or with these below them), "
    "train/ + trainannot/ and so on, or a.jpg beside a_mask.png"
)


def find_pairs(root: Path) -> Pairs | None:
    """The pairs below `root` in one of the layouts that the head of this file names, or None.

    Masks are matched by name. One without an image is passed over and counted in `notes`.

    Raises:
        DataError: an image without a mask, or with two; two folders that mean the same; no image.
    """
    found = _beside(root) or _parts_above(root) or _segnet(root) or _mixed(root)
    if not found:
        return None
    pairs = Pairs(root)
    spare = sum(pairs.add(images, masks, part) for images, masks, part in found)
    if not pairs.images:
        raise DataError(f"{root} holds no images; expected: {SHAPE}")
    if spare:
        pairs.notes.append(
            f"{counted(spare, 'mask without an image was', 'masks without an image were')} left out"
        )
    return pairs


def are_masks(root: Path) -> bool:
    """Whether the folders below `root` are named as images and their masks are."""
    try:
        return bool(_beside(root) or _parts_above(root) or _segnet(root))
    except (DataError, OSError):
        return False


Found = list[tuple[Files, Files, str]]  # images, masks, part


def _beside(root: Path) -> Found:
    """`images/` + `masks/`, perhaps with parts below each."""
    folders = _image_and_mask(root)
    if folders is None:
        return []
    image, mask = folders
    parts = _parts(image)
    if not parts or images_below(image, deep=False):
        return [(_files(root, image), _files(root, mask), "")]
    in_masks = _parts(mask)
    lacking = sorted(set(parts) - set(in_masks))
    if lacking:
        raise DataError(f"{mask} has no folder for {lacking[0]!r}, which {image} has")
    return [(_files(root, parts[p]), _files(root, in_masks[p]), p) for p in PARTS if p in parts]


def _parts_above(root: Path) -> Found:
    """`train/images/` + `train/masks/` and so on."""
    found: Found = []
    for part, folder in _parts(root).items():
        folders = _image_and_mask(folder)
        if folders is not None:
            found.append((_files(root, folders[0]), _files(root, folders[1]), part))
    return found


def _segnet(root: Path) -> Found:
    """`train/` + `trainannot/` and so on."""
    found: Found = []
    by_name = {folder.name.lower(): folder for folder in _folders(root)}
    for part, folder in _parts(root).items():
        mask = by_name.get(folder.name.lower() + ANNOTATED)
        if mask is not None:
            found.append((_files(root, folder), _files(root, mask), part))
    return found


def _mixed(root: Path) -> Found:
    """`a.jpg` beside `a_mask.png`, in the root or in the folders of parts."""
    parts = {} if images_below(root, deep=False) else _parts(root)
    found: Found = []
    for part, folder in (parts or {"": root}).items():
        stems = {name: PurePosixPath(name).stem for name in images_below(folder, deep=False)}
        # "team_l.jpg" is a mask only where there is a "team.jpg" as well.
        others = {stem for stem in stems.values() if without_ending(stem) == stem}
        masks = {n for n, s in stems.items() if s not in others and without_ending(s) in others}
        if masks:
            images = sorted(set(stems) - masks)
            found.append((_named(root, folder, images), _named(root, folder, sorted(masks)), part))
    return found


def _image_and_mask(folder: Path) -> tuple[Path, Path] | None:
    """The folder of images and that of masks, where both are there and hold images."""
    image, mask = _one_of(folder, IMAGES), _one_of(folder, MASKS)
    return (image, mask) if image is not None and mask is not None else None


def _one_of(folder: Path, words: Iterable[str]) -> Path | None:
    found = [f for f in _folders(folder) if f.name.lower() in words and images_below(f)]
    if len(found) > 1:
        raise DataError(
            f"{folder}: {listed([f'{f.name}/' for f in found])} could all be meant; keep one of "
            "them, or name the others otherwise"
        )
    return found[0] if found else None


def _parts(folder: Path) -> dict[str, Path]:
    """Part to its folder, in the order train, val, test."""
    parts: dict[str, Path] = {}
    for below in _folders(folder):
        part = PART_WORDS.get(below.name.lower())
        if part is None:
            continue
        if part in parts:
            raise DataError(f"{folder}: {parts[part].name}/ and {below.name}/ both mean {part!r}")
        parts[part] = below
    return {part: parts[part] for part in PARTS if part in parts}


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror})") from None


def _files(root: Path, folder: Path) -> Files:
    return _named(root, folder, images_below(folder))


def _named(root: Path, folder: Path, names: Iterable[str]) -> Files:
    base = folder.relative_to(root).as_posix()
    return Files([name if base == "." else f"{base}/{name}" for name in names], base)
