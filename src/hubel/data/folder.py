"""Image folders: `photos/CLASS/image.jpg`, or `photos/{train,val,test}/CLASS/image.jpg`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from hubel.data.decode import is_image_name
from hubel.data.files import FileSource
from hubel.data.labels import check_classes, natural_key
from hubel.data.record import PARTS
from hubel.errors import DataError

PART_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
SHAPE = "CLASS/image.jpg or train/CLASS/image.jpg"


def read_folder(path: Path, name: str | None = None) -> FileSource:
    """Images in one folder per class, or that below `train`, `val` (`valid`) and `test`.

    Classes are the folders' names in natural order; folders within a class folder count to it.
    Hidden files and files that are not images are passed over and counted in `skipped`.

    Raises:
        DataError: no such folder; no images; loose images beside class folders; one class only;
            a class without images; parts whose classes differ.
    """
    if not path.is_dir():
        raise DataError(f"no such folder: {path}")
    return _Folder(path).read(name)


class _Folder:
    """One reading of one folder; `skipped` counts as it goes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.skipped: Counter[str] = Counter()
        # Links that lead up would make the walk endless, or take in the whole disk.
        self.above = {_identity(folder) for folder in (root, *root.resolve().parents)}

    def read(self, name: str | None) -> FileSource:
        parts = self._parts()
        found = {part: self._classes(folder) for part, folder in parts.items()}
        self._check(found, parts)
        classes = sorted(next(iter(found.values())), key=natural_key)
        ids, targets, of_part = [], [], []
        for part, by_class in found.items():
            for target, word in enumerate(classes):
                ids += by_class[word]
                targets += [target] * len(by_class[word])
                of_part += [part] * len(by_class[word])
        return FileSource(
            self.root,
            ids,
            np.array(targets, dtype=np.int64),
            classes,
            name=name or self.root.resolve().name or "images",
            origin=str(self.root),
            parts=np.array(of_part, dtype="U5"),
            skipped=self.skipped,
        )

    def _parts(self) -> dict[str, Path]:
        """Part to folder, in the order train, val, test; {"": root} where there are none."""
        folders = self._folders(self.root)
        if not folders:
            self._complain_of_no_classes()
        words = {entry: PART_WORDS.get(entry.lower()) for entry in folders}
        self._refuse_loose(self.root)
        if None in words.values():
            self._check_mixture(words)
            return {"": self.root}
        parts: dict[str, Path] = {}
        for entry, part in words.items():
            assert part is not None
            if part in parts:
                raise DataError(f"{self.root}: {parts[part].name}/ and {entry}/ both mean {part!r}")
            parts[part] = self.root / entry
        return {part: parts[part] for part in PARTS if part in parts}

    def _check_mixture(self, words: dict[str, str | None]) -> None:
        """A class may be called "train"; but `train` and `test` with folders in them are parts."""
        parts = [e for e, word in words.items() if word and self._folders(self.root / e)]
        if {words[entry] for entry in parts} >= {"train", "test"}:
            other = next(entry for entry, word in words.items() if word is None)
            raise DataError(f"{self.root}: folder {other!r} beside train/ and test/: {_allowed()}")

    def _complain_of_no_classes(self) -> None:
        images = self._images(self.root)
        if images:
            raise DataError(
                f"{self.root} holds {len(images)} images but no class folders; expected: {SHAPE}"
            )
        raise DataError(f"{self.root} holds no images; expected: {SHAPE}")

    def _classes(self, folder: Path) -> dict[str, list[str]]:
        """Class name to ids of its images."""
        if folder != self.root:
            self._refuse_loose(folder)
        above = {*self.above, _identity(folder)}
        return {
            name: sorted(self._walk(folder / name, set(above)), key=natural_key)
            for name in self._folders(folder)
        }

    def _refuse_loose(self, folder: Path) -> None:
        loose = self._images(folder)
        if loose:
            raise DataError(
                f"{folder}: {len(loose)} images lie outside the class folders (first: {loose[0]}); "
                f"expected: {SHAPE}"
            )

    def _walk(self, folder: Path, seen: set[tuple[int, int]]) -> Iterator[str]:
        """Ids of all images in and below `folder`; no folder twice, whatever the links say."""
        identity = _identity(folder)
        if identity in seen:
            self.skipped["link to a folder already read"] += 1
            return
        seen.add(identity)
        for name in self._images(folder):
            yield (folder / name).relative_to(self.root).as_posix()
        for name in self._folders(folder):
            yield from self._walk(folder / name, seen)

    def _images(self, folder: Path) -> list[str]:
        """Names of the images that lie directly in `folder`."""
        names = []
        for entry in _entries(folder):
            if _leads_to(entry, "folder"):
                continue
            if entry.name.startswith("."):
                self.skipped["hidden"] += 1
            elif not is_image_name(entry.name):
                self.skipped[Path(entry.name).suffix.lower() or "no extension"] += 1
            elif _leads_to(entry, "file") or entry.is_symlink():  # a dead link is a broken image
                names.append(entry.name)
            else:
                self.skipped["not a file"] += 1  # a pipe or device: reading it might never end
        return names

    def _folders(self, folder: Path) -> list[str]:
        entries = [e for e in _entries(folder) if not e.name.startswith(".")]
        return sorted((e.name for e in entries if _leads_to(e, "folder")), key=natural_key)

    def _check(self, found: dict[str, dict[str, list[str]]], parts: dict[str, Path]) -> None:
        (first, reference), *rest = found.items()
        if not any(ids for by_class in found.values() for ids in by_class.values()):
            raise DataError(f"{self.root} holds no images; expected: {SHAPE}")
        check_classes(sorted(reference, key=natural_key), str(parts[first]))
        empty = [name for name in sorted(reference, key=natural_key) if not reference[name]]
        if empty:
            raise DataError(f"{parts[first]}: no images in class folder {_listed(empty)}")
        for part, by_class in rest:
            _check_same(reference, by_class, parts[first].name, parts[part])


def _check_same(
    reference: dict[str, list[str]], other: dict[str, list[str]], first: str, folder: Path
) -> None:
    """A part may lack images of a class, but says so with an empty folder."""
    strange = sorted(set(other) - set(reference), key=natural_key)
    lacking = sorted(set(reference) - set(other), key=natural_key)
    if strange:
        raise DataError(f"{folder} has class folders that {first}/ has not: {_listed(strange)}")
    if lacking:
        raise DataError(
            f"{folder} lacks class folders that {first}/ has: {_listed(lacking)} "
            "(an empty folder is allowed there)"
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more


def _allowed() -> str:
    return "allowed there: train, val (valid, validation), test"


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror})") from None


def _leads_to(entry: os.DirEntry[str], kind: Literal["file", "folder"]) -> bool:
    """Follows links; a link that leads to itself leads to nothing."""
    try:
        return entry.is_dir() if kind == "folder" else entry.is_file()
    except OSError:
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
