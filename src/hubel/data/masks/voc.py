"""PASCAL VOC's layout: `JPEGImages/`, `SegmentationClass/` and `ImageSets/Segmentation/*.txt`.

CVAT, labelme and others export it too, with a class list of their own beside it.
"""

from __future__ import annotations

from pathlib import Path

from hubel.data.masks.classes import VOC, ClassList
from hubel.data.masks.pairs import Files, Pairs, build, counted, images_below, listed
from hubel.data.masks.record import MaskFiles
from hubel.data.record import PARTS
from hubel.errors import DataError

IMAGES, MASKS, LISTS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"


def find_voc(path: Path) -> Path | None:
    """The folder with `JPEGImages` and `SegmentationClass` that is `path` or lies in it, as
    `VOCdevkit/VOC2012` does; None where there is none, or more than one."""
    inside = [*path.glob("VOC*"), *path.glob("VOCdevkit/VOC*")]
    roots = [r for r in (path, *inside) if (r / IMAGES).is_dir() and (r / MASKS).is_dir()]
    return roots[0] if len(roots) == 1 else None


def read_voc(
    root: Path, *, classes: ClassList | None = None, ignore: int | None = None
) -> MaskFiles:
    """The images that the lists name, with VOC's 21 classes where there is no class list.

    train.txt, val.txt and test.txt are the parts; trainval.txt counts where one of the first two is
    missing; any other list, or none at all, gives images without a part. Value 255, the border
    around objects, is ignored. Images of test.txt without a mask (VOC keeps those to itself) are
    left out and counted in `notice`.

    Raises:
        DataError: an image of a list is not there or has no mask, or stands in two parts; what the
            class list or the masks' values make impossible.
    """
    images = Files([f"{IMAGES}/{name}" for name in images_below(root / IMAGES)], IMAGES)
    masks = Files([f"{MASKS}/{name}" for name in images_below(root / MASKS)], MASKS)
    lists = _lists(root / LISTS)
    pairs = Pairs(root)
    if not lists:
        lists = {"": sorted(set(images.by_stem()) & set(masks.by_stem()))}
    _require_one_part(lists, root)
    for part, ids in lists.items():
        _add(pairs, part, ids, images, masks)
    if not pairs.images:
        raise DataError(f"{root}: no image in {IMAGES}/ has a mask in {MASKS}/")
    return build(pairs, classes=classes, ignore=ignore, usual=VOC)


def _add(pairs: Pairs, part: str, ids: list[str], images: Files, masks: Files) -> None:
    of_image, of_mask = images.by_stem(), masks.by_stem()
    for files, folder in ((of_image, IMAGES), (of_mask, MASKS)):
        lacking = [name for name in ids if name not in files]
        if lacking and part == "test" and files is of_mask:
            said = counted(len(lacking), "test image", "test images")
            pairs.notes.append(f"{said} without a mask left out")
            ids = [name for name in ids if name in files]
        elif lacking:
            what = "list " + (f"of {part} images" if part else "of images")
            raise DataError(
                f"{pairs.root}: {counted(len(lacking), 'name', 'names')} of the {what} "
                f"{'is' if len(lacking) == 1 else 'are'} not in {folder}/: {listed(lacking)}"
            )
    chosen = Files([n for i in ids for n in of_image[i]], IMAGES)
    pairs.add(chosen, Files([n for i in ids for n in of_mask[i]], MASKS), part)


def _lists(folder: Path) -> dict[str, list[str]]:
    """Part to the names of its images."""
    if not folder.is_dir():
        return {}
    found = {path.stem: _names(path) for path in sorted(folder.glob("*.txt"))}
    both = found.pop("trainval", [])
    parts = {part: found[part] for part in PARTS if part in found}
    if both and "train" not in parts:
        val = set(parts.get("val", ()))
        parts = {"train": [name for name in both if name not in val], **parts}
    rest = {name for names in found.values() for name in names}
    return parts or ({"": sorted(rest)} if rest else {})


def _names(path: Path) -> list[str]:
    """The first word of each line: VOC's lists of one class have a number behind it."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{path} cannot be read as a list of image names") from None
    return list(dict.fromkeys(line.split()[0] for line in lines if line.strip()))


def _require_one_part(lists: dict[str, list[str]], root: Path) -> None:
    part_of: dict[str, str] = {}
    for part, names in lists.items():
        for name in names:
            other = part_of.setdefault(name, part)
            if other != part:
                raise DataError(f"{root / LISTS}: {name} stands in {other}.txt and in {part}.txt")
