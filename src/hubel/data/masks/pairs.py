"""Images and masks found in folders, matched by name, and the source that they make."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from hubel.data.decode import is_image_name
from hubel.data.labels import natural_key
from hubel.data.masks.classes import ClassList, find_classes
from hubel.data.masks.codec import Codec, read_raw
from hubel.data.masks.record import MaskFiles
from hubel.data.masks.scan import Seen, choose, scan
from hubel.errors import DataError

# What a mask's name may have more than its image's: "a.jpg" and "a_mask.png".
ENDINGS = ("_mask", "_masks", "_label", "_labels", "_gt", "_segmentation", "_l", "_p")
MOST_NAMED = 3  # files that a message names


@dataclass(frozen=True)
class Files:
    """Image files of one folder.

    Attributes:
        names: "folder/sub/name.png", relative to the root of the data.
        folder: the part of the names that says nothing about which image it is; "" for none.
    """

    names: Sequence[str]
    folder: str

    def by_stem(self, shorten: Callable[[str], str] = str) -> dict[str, list[str]]:
        """Names by path below the folder, without extension."""
        by_stem: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            plain = unicodedata.normalize("NFC", name)  # macOS has written letters otherwise
            path = PurePosixPath(plain).relative_to(unicodedata.normalize("NFC", self.folder))
            by_stem[(path.parent / shorten(path.stem)).as_posix()].append(name)
        return by_stem


@dataclass
class Pairs:
    """Image and mask files, matched.

    Attributes:
        root: the folder that names are relative to.
        images, masks, parts: one each per pair.
        notes: what the user must see.
    """

    root: Path
    images: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, images: Files, masks: Files, part: str) -> int:
        """Match images with masks whose names below their folders are equal but for extension and
        ending.

        Returns:
            How many masks have no image.

        Raises:
            DataError: an image without a mask or with two, or two images of one name.
        """
        of_image = images.by_stem()
        twice = next((names for names in of_image.values() if len(names) > 1), None)
        if twice:
            raise DataError(
                f"{self.root}: {twice[0]} and {twice[1]} differ in their extension alone; a mask "
                "could belong to either"
            )
        exact = masks.by_stem()
        claimed = {mask for stem in of_image for mask in exact.get(stem, ())}
        bare = masks.by_stem(without_ending)
        found: dict[str, str] = {}
        for stem, (image,) in of_image.items():
            spare = [mask for mask in bare.get(stem, ()) if mask not in claimed]
            candidates = exact.get(stem) or spare
            if len(candidates) > 1:
                raise DataError(
                    f"{self.root}: {image} has two masks, {candidates[0]} and {candidates[1]}"
                )
            if candidates:
                found[image] = candidates[0]
        self._require_masks([image for (image,) in of_image.values() if image not in found])
        for image in sorted(found, key=natural_key):
            self.images.append(image)
            self.masks.append(found[image])
            self.parts.append(part)
        return len(masks.names) - len(found)

    def _require_masks(self, lacking: Sequence[str]) -> None:
        if lacking:
            raise DataError(
                f"{self.root}: {counted(len(lacking), 'image has', 'images have')} no mask: "
                f"{listed(sorted(lacking, key=natural_key))}; a mask has its image's name (or "
                "that with _mask, _label, _gt or _L behind it)"
            )


def build(
    pairs: Pairs,
    *,
    classes: ClassList | None,
    ignore: int | None,
    name: str | None = None,
    usual: ClassList | None = None,
) -> MaskFiles:
    """The source of these pairs: class list read or found, some masks looked at.

    Args:
        pairs: at least one.
        classes: the class list; None: one that lies in the root, if any.
        ignore: one more value of mask pixels that is ignored.
        name: the source's; the root's if None.
        usual: the list to take where there is none and the masks fit it.

    Raises:
        DataError: as `find_classes` and `choose`.
        BrokenImage: no mask can be read.
    """
    origin = str(pairs.root)
    listed_classes = _found(pairs) if classes is None else classes
    seen = scan(
        lambda row: read_raw(pairs.root / pairs.masks[row], pairs.masks[row]), len(pairs.masks)
    )
    if listed_classes is None and usual is not None and _fits(seen, usual, ignore, origin):
        listed_classes = usual
    codec = choose(seen, listed_classes, ignore, origin)
    notes = pairs.notes + ([] if listed_classes else list(_sparse(seen, codec)))
    return MaskFiles(
        pairs.root,
        pairs.images,
        pairs.masks,
        pairs.parts,
        codec,
        name=name or pairs.root.resolve().name or "masks",
        origin=origin,
        notice="; ".join(notes) or None,
    )


def images_below(folder: Path, *, deep: bool = True) -> list[str]:
    """Images in and (if `deep`) below `folder`, as names relative to it. Hidden ones are passed
    over, links to folders are not followed."""
    names = []
    for above, below, files in os.walk(folder, onerror=_raise):
        below[:] = [name for name in below if deep and not name.startswith(".")]
        prefix = os.path.relpath(above, folder).replace(os.sep, "/") + "/"
        prefix = "" if prefix == "./" else prefix
        names += [prefix + n for n in files if is_image_name(n) and not n.startswith(".")]
    return names


def without_ending(stem: str) -> str:
    """A mask's name without `_mask` and the like.

    >>> without_ending("0001TP_006690_L")
    '0001TP_006690'
    """
    ending = next((e for e in ENDINGS if stem.casefold().endswith(e)), "")
    return stem[: len(stem) - len(ending)]


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def counted(number: int, one: str, many: str) -> str:
    """ "1 image has" or "1,200 images have"."""
    return f"{number:,} {one if number == 1 else many}"


def _raise(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be read ({error.strerror})")


def _found(pairs: Pairs) -> ClassList | None:
    """The class list in the root, or in a folder that holds a whole part ("train/_classes.csv")."""
    tops = {name.split("/")[0] for name in pairs.images + pairs.masks if "/" in name}
    for folder in (pairs.root, *(pairs.root / top for top in sorted(tops, reverse=True))):
        found = find_classes(folder)
        if found is not None:
            return found
    return None


def _fits(seen: Seen, usual: ClassList, ignore: int | None, where: str) -> bool:
    """Whether all that occurs in the masks is in the list."""
    codec = choose(seen, usual, ignore, where)
    colours = set(codec.keys.tolist())
    in_table = all(0 <= value < 256 and codec.table[value] >= 0 for value in seen.values)
    in_palette = seen.palette is None or all(colour in colours for _, colour in seen.meant)
    return in_table and in_palette and seen.colours <= colours


def _sparse(seen: Seen, codec: Codec) -> Iterator[str]:
    """A word where most classes that were made up do not occur."""
    values = (seen.values | (seen.grey() or set())) - {255}
    if values and 2 * len(values) < len(codec.classes):
        some = ", ".join(map(str, sorted(values)[:5])) + (", ..." if len(values) > 5 else "")
        yield (
            f"there is no class list, and the masks' values ({some}) were taken as indices of "
            f"{len(codec.classes)} classes"
        )
