"""CIFAR-10 and CIFAR-100 from a folder or a tar archive, in each of their forms.

Archives are read member by member in memory: nothing is ever written, so no member can place a
file anywhere.
"""

from __future__ import annotations

import tarfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from hubel.data.arrays import source_from_arrays
from hubel.data.cifar_forms import FORMS, SIGNS, Files, Form, form_of
from hubel.data.record import ArraySource
from hubel.errors import DataError

MAX_BYTES = 512 << 20  # of wanted members in one archive; the largest true one has 185 MB
BLOCK = 1 << 20


def read_cifar(path: Path, name: str | None = None, origin: str | None = None) -> ArraySource:
    """CIFAR-10 or CIFAR-100 (fine labels) from a folder or a tar archive, in any form.

    Raises:
        DataError: no such file; none of the forms; a file missing, damaged or with a label out
            of range; a pickle that asks for more than CIFAR's hold.
    """
    form, files = _from_folder(path) if path.is_dir() else _from_archive(path)
    missing = [file for file in form.images if file not in files]
    if missing:
        raise DataError(f"{path}: {form.title} lacks {', '.join(missing)}")
    try:
        parts = {"train": form.parse(form.train, files), "test": form.parse(form.test, files)}
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return source_from_arrays(
        parts,
        titles={part: (f"{path}: {part} images", f"{path}: {part} labels") for part in parts},
        classes=form.classes,
        name=name or form.name,
        origin=origin or str(path),
    )


def is_cifar(path: Path) -> bool:
    """Whether a folder, or one just below it, holds the files of one of the forms."""
    return _find(path) is not None


def _find(path: Path) -> tuple[Form, Path] | None:
    try:
        for folder in (path, *sorted(entry for entry in path.iterdir() if entry.is_dir())):
            form = form_of({sign for sign in SIGNS if (folder / sign).is_file()})
            if form is not None:
                return form, folder
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    return None


def _no_form(path: Path) -> DataError:
    signs = ", ".join(" + ".join(form.signs) for form in FORMS)
    return DataError(f"{path} holds no CIFAR-10 or CIFAR-100; expected one of: {signs}")


def _from_folder(path: Path) -> tuple[Form, Files]:
    found = _find(path)
    if found is None:
        raise _no_form(path)
    form, folder = found
    paths = [folder / name for name in form.files]
    return form, {path.name: path.read_bytes() for path in paths if path.is_file()}


def _from_archive(path: Path) -> tuple[Form, Files]:
    folders: dict[PurePosixPath, dict[str, bytes]] = defaultdict(dict)
    try:
        for member, content in _members(path):
            folders[member.parent][member.name] = content
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{path}: not a tar archive, or damaged ({error})") from None
    for files in folders.values():
        form = form_of(files)
        if form is not None:
            return form, files
    raise _no_form(path)


def _members(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Path and content of those members that any form knows, in one pass."""
    wanted = frozenset().union(*(form.files for form in FORMS))
    total = 0
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with tarfile.open(path, "r:gz" if packed else "r:") as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if name.name not in wanted or not member.isfile():
                continue
            total += member.size
            if total > MAX_BYTES:
                raise DataError(f"{path}: more than {MAX_BYTES:,} bytes; no CIFAR is so large")
            content = archive.extractfile(member)
            assert content is not None  # None is for folders and devices
            yield name, content.read()
        assert archive.fileobj is not None
        while archive.fileobj.read(BLOCK):  # the checksum stands at the very end
            pass
