"""`open_source`: the one door to data. It looks at what it is given and picks the reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hubel.data.arrays import source_from_arrays
from hubel.data.cifar import is_cifar, read_cifar
from hubel.data.decode import is_image_name
from hubel.data.fetch import Progress
from hubel.data.folder import read_folder
from hubel.data.idx import find_idx, looks_like_idx, read_idx_folder, read_idx_pair
from hubel.data.manifest import read_manifest
from hubel.data.named import open_named
from hubel.data.npz import read_npz
from hubel.data.record import Source
from hubel.data.sets import SETS
from hubel.errors import DataError, nearest

ARCHIVES = (".tar", ".tar.gz", ".tgz")
ALLOWED = (
    "an image folder (CLASS/image.jpg), a .csv or .tsv manifest, an .npz archive, IDX files, "
    f"CIFAR (folder or .tar.gz), or one of the names {', '.join(SETS)}"
)


def open_source(
    where: str | Path | Source | tuple[Any, Any], progress: Progress | None = None
) -> Source:
    """Labelled images from wherever they are.

    Args:
        where: a name (`hubel data list` shows them), a path, a source (returned as it is), or
            two arrays (images, labels). A name wins over a path: write ./mnist for the folder.
        progress: called with (file, bytes done, bytes in all) while a named set downloads.

    Raises:
        DataError: neither a name nor a path; a file that no reader knows; what its reader finds.
    """
    if isinstance(where, Source):
        return where
    if isinstance(where, tuple):
        return _open_arrays(where)
    if isinstance(where, str) and where.lower() in SETS:
        source: Source = open_named(where.lower(), progress)
        source.where = where.lower()
    else:
        path = Path(where).expanduser()
        source = _open_path(path, str(where))
        source.where = str(path.resolve())
    return source


def _open_path(path: Path, typed: str) -> Source:
    try:
        if typed and path.is_dir():
            return _open_folder(path)
        if path.is_file():
            return _open_file(path)
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise DataError(f"{typed[:80]!r} cannot be looked at ({error.strerror})") from None
    raise DataError(_no_such(typed))


def _open_arrays(pair: tuple[Any, ...]) -> Source:
    if len(pair) != 2:
        raise DataError(f"expected two arrays (images, labels), given {len(pair)}")
    images, labels = (np.asarray(array) for array in pair)
    return source_from_arrays({"": (images, labels)}, titles={"": ("images", "labels")})


def _open_folder(path: Path) -> Source:
    if find_idx(path):
        return read_idx_folder(path)
    if is_cifar(path):
        return read_cifar(path)
    return read_folder(path)


def _open_file(path: Path) -> Source:
    name = path.name.lower()
    if name.endswith((".csv", ".tsv")):
        return read_manifest(path)
    if name.endswith(".npz"):
        return read_npz(path)
    if name.endswith(ARCHIVES):
        return read_cifar(path)
    if is_image_name(name):
        raise DataError(f"{path} is one image; expected {ALLOWED}")
    if "idx" in name or looks_like_idx(path):
        return read_idx_pair(path)
    raise DataError(f"{path} is of no kind that can be read; expected {ALLOWED}")


def _no_such(where: str) -> str:
    near = nearest(where, SETS)
    hint = f" did you mean {near!r}?" if near and "/" not in where else ""
    return f"no data set or path called {where!r}:{hint} expected {ALLOWED}"
