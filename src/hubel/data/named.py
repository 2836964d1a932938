"""Data sets by name: found in hubel's cache or Debian's package, downloaded, or the sample."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path

from hubel.data.cifar import is_cifar, read_cifar
from hubel.data.fetch import Progress, Unreachable, cache_folder, fetch, is_whole
from hubel.data.idx import find_idx, read_idx_folder
from hubel.data.npz import read_npz
from hubel.data.record import ArraySource
from hubel.data.sets import SETS, Named
from hubel.errors import DataError, unknown

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the catalogue: a data set, and where it is on this machine, if it is."""

    named: Named
    found: Path | None


def catalogue() -> list[Entry]:
    """Every data set that has a name."""
    return [Entry(named, find(name)) for name, named in SETS.items()]


def find(name: str) -> Path | None:
    """Where a named data set is on this machine: a folder (the sample: a file), or None.

    Raises `DataError` for an unknown name. Nothing is downloaded.
    """
    named = _named(name)
    if named.kind == "npz":
        with as_file(_sample()) as path:
            return path
    folder = _folder(named)
    if all(is_whole(remote, folder) for remote in named.remotes) or _holds(folder, named):
        return folder
    return DEBIAN if name == "fashion-mnist" and _holds(DEBIAN, named) else None


def get(name: str, progress: Progress | None = None) -> Path:
    """Where a named data set is, after a download if it was not on this machine.

    Raises:
        Unreachable: it is not here and could not be downloaded; says what to do.
        DataError: unknown name; damaged download; a folder that cannot be written.
    """
    found = find(name)
    if found is not None:
        return found
    named, folder = SETS[name], _folder(SETS[name])
    try:
        for remote in named.remotes:
            fetch(remote, folder, progress)
    except Unreachable as error:
        wanted = ", ".join(remote.name for remote in named.remotes)
        raise Unreachable(
            f"{named.title} is not on this machine, and {error}; connect to the network, or put "
            f"{wanted} into {folder}, or use 'sample'"
        ) from None
    return folder


def open_named(name: str, progress: Progress | None = None) -> ArraySource:
    """The source of that name. Where Fashion-MNIST cannot be had: the sample, with a `notice`.

    Raises as `get` does.
    """
    if name == "sample":
        return open_sample()
    try:
        folder = get(name, progress)
    except Unreachable:
        if name != "fashion-mnist":
            raise
        source = open_sample()
        source.notice = (
            "ONLY A SAMPLE: Fashion-MNIST is not on this machine and could not be downloaded; "
            f"its bundled sample of {len(source):,} images stands in for all 70,000"
        )
        return source
    return _open_folder(folder, SETS[name])


def open_sample() -> ArraySource:
    """The bundled part of Fashion-MNIST: 6,000 training and 1,000 test images."""
    with _sample().open("rb") as file:
        return read_npz(file, "fashion-mnist-sample", "the Fashion-MNIST sample bundled with hubel")


def _named(name: str) -> Named:
    if name not in SETS:
        raise DataError(unknown("data set", name, SETS))
    return SETS[name]


def _folder(named: Named) -> Path:
    return cache_folder() / "data" / named.name


def _holds(folder: Path, named: Named) -> bool:
    """Whether the files were put there by hand, unpacked or in another of their forms."""
    if not folder.is_dir():
        return False
    return set(find_idx(folder)) == {"train", "test"} if named.kind == "idx" else is_cifar(folder)


def _open_folder(folder: Path, named: Named) -> ArraySource:
    if named.kind == "idx":
        origin = f"Debian's package ({folder})" if folder == DEBIAN else str(folder)
        return read_idx_folder(folder, classes=named.classes, name=named.name, origin=origin)
    (archive,) = named.remotes
    whole = is_whole(archive, folder)
    return read_cifar(folder / archive.name if whole else folder, name=named.name)


def _sample() -> Traversable:
    return files("hubel.data") / "sample" / "fashion-mnist-sample.npz"
