"""`open_masks`: the one door to images with masks. It looks at what it is given and picks the
reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hubel.data.masks.arrays import from_arrays
from hubel.data.masks.classes import ClassList, read_classes
from hubel.data.masks.coco import find_coco, read_coco
from hubel.data.masks.folder import SHAPE, find_pairs
from hubel.data.masks.pairs import build
from hubel.data.masks.record import MaskSource
from hubel.data.masks.voc import find_voc, read_voc
from hubel.errors import DataError

ALLOWED = (
    f"a folder of images and masks ({SHAPE}), one of PASCAL VOC's form (JPEGImages/, "
    "SegmentationClass/), COCO's instances (.json, or the folder with annotations/), or two arrays"
)


def open_masks(
    where: str | Path | MaskSource | tuple[Any, Any],
    *,
    classes: str | Path | ClassList | None = None,
    ignore: int | None = None,
) -> MaskSource:
    """Images with masks from wherever they are.

    Args:
        where: a folder, a COCO file, a source (returned as it is), or two arrays (images, masks).
        classes: a class list, or the path of its file; None: the one that lies beside the data.
        ignore: one more value of mask pixels that is ignored; 255 is so anyway, unless masks hold
            only 0 and 255.

    Raises:
        DataError: no such path; nothing that a reader knows; what its reader finds.
    """
    if isinstance(where, MaskSource):
        return where
    given = classes if classes is None or isinstance(classes, ClassList) else _read(classes)
    source: MaskSource
    if isinstance(where, tuple):
        if len(where) != 2:
            raise DataError(f"expected two arrays (images, masks), given {len(where)}")
        source = from_arrays(*where, classes=given, ignore=ignore)
    else:
        path = Path(where).expanduser()
        source = _open_path(path, str(where), given, ignore)
        source.where = str(path.resolve())
    if isinstance(classes, str | Path):
        source.listed_in = str(Path(classes).expanduser().resolve())
    source.ignored = ignore
    return source


def _read(classes: str | Path) -> ClassList:
    return read_classes(Path(classes).expanduser())


def _open_path(path: Path, typed: str, classes: ClassList | None, ignore: int | None) -> MaskSource:
    try:
        if not typed or not path.exists():
            raise DataError(f"no such path: {typed!r}; expected {ALLOWED}")
        voc = find_voc(path) if path.is_dir() else None
        if voc is not None:
            return read_voc(voc, classes=classes, ignore=ignore)
        files = find_coco(path)
        pairs = find_pairs(path) if path.is_dir() and not (files and _certain(files)) else None
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise DataError(f"{typed[:80]!r} cannot be looked at ({error.strerror})") from None
    if pairs is not None:
        return build(pairs, classes=classes, ignore=ignore)
    if files is None:
        raise DataError(f"{path} holds no masks that can be read; expected {ALLOWED}")
    if classes is not None or ignore is not None:
        raise DataError(
            f"{path} names its own categories and says by iscrowd what is ignored; a class list or "
            "ignore is for mask files"
        )
    name = None if path.is_file() else path.resolve().name
    return read_coco(files, name)


def _certain(files: dict[str, Path]) -> bool:
    """Whether the names alone say COCO; another lone .json may lie beside mask files."""
    return any(
        file.name.endswith(".coco.json") or file.name.startswith("instances_")
        for file in files.values()
    )
