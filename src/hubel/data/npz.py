"""NumPy archives: `.npz` with images and labels under any of the usual names."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hubel.data.arrays import Pair, source_from_arrays
from hubel.data.record import ArraySource
from hubel.errors import DataError

# Key names of (images, labels) by part. The first family that is there is taken whole.
FAMILIES: tuple[dict[str, tuple[str, str]], ...] = (
    {"train": ("x_train", "y_train"), "val": ("x_val", "y_val"), "test": ("x_test", "y_test")},
    {
        "train": ("train_images", "train_labels"),
        "val": ("val_images", "val_labels"),
        "test": ("test_images", "test_labels"),
    },
    {"": ("images", "labels")},
    {"": ("x", "y")},
    {"": ("data", "labels")},
)
CLASS_KEYS = ("classes", "label_names", "class_names")
ALLOWED = "x_train + y_train [+ x_val, y_val, x_test, y_test], images + labels, or X + y"


def read_npz(
    source: Path | IO[bytes], name: str | None = None, origin: str | None = None
) -> ArraySource:
    """Images and labels of a NumPy archive, small or capital letters alike.

    Shapes and scales as `arrays.source_from_arrays` takes them; an array `classes` (or
    `label_names`) names the classes. No pickle is loaded.

    Raises:
        DataError: no such file, not an archive, no known names, or arrays that do not fit.
    """
    where = origin or str(source)
    try:
        wanted, arrays, classes = _read(source, where)
    except FileNotFoundError:
        raise DataError(f"no such file: {where}") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        raise DataError(f"{where}: {_in_words(error)}") from None
    return source_from_arrays(
        arrays,
        titles={part: (f"{where}: {x}", f"{where}: {y}") for part, (x, y) in wanted.items()},
        classes=None if classes is None else _names(classes, where),
        name=name or Path(where).stem,
        origin=where,
    )


def _read(
    source: Path | IO[bytes], where: str
) -> tuple[dict[str, tuple[str, str]], dict[str, Pair], NDArray[Any] | None]:
    """(part -> names of its two arrays, part -> the arrays, class names)."""
    loaded = np.load(source, allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise DataError(f"{where} holds one array; expected an .npz archive: {ALLOWED}")
    with loaded as archive:
        keys = {key.lower(): key for key in archive.files}
        wanted = _wanted(keys, where)
        arrays = {p: (_array(archive, x), _array(archive, y)) for p, (x, y) in wanted.items()}
        named = next((keys[key] for key in CLASS_KEYS if key in keys), None)
        return wanted, arrays, None if named is None else _array(archive, named)


def _array(archive: Mapping[str, Any], key: str) -> NDArray[Any]:
    value = archive[key]  # NumPy hands out the bytes of what does not start like an array
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{key} is no array")
    return value


def _wanted(keys: dict[str, str], where: str) -> dict[str, tuple[str, str]]:
    """Part -> names of its two arrays. `keys` leads from small letters to the names."""
    for family in FAMILIES:
        found = {part: pair for part, pair in family.items() if pair[0] in keys}
        for images, labels in found.values():
            if labels not in keys:
                raise DataError(f"{where}: {keys[images]} has no {labels} beside it")
        if found:
            return {part: (keys[images], keys[labels]) for part, (images, labels) in found.items()}
    given = ", ".join(keys.values()) or "nothing"
    raise DataError(f"{where}: no known array names; allowed: {ALLOWED}; given: {given}")


def _names(classes: NDArray[Any], where: str) -> list[str]:
    if classes.ndim != 1 or classes.dtype.kind not in "USiu":
        raise DataError(f"{where}: class names must be a list of words, given {classes.dtype}")
    return [w.decode("utf-8", "replace") if isinstance(w, bytes) else str(w) for w in classes]


def _in_words(error: Exception) -> str:
    if "Object arrays" in str(error):
        return "holds Python objects (a pickle), which are never loaded; save plain arrays"
    if "allow_pickle" in str(error):  # NumPy's guess for every file that it does not know
        return "not a NumPy .npz archive"
    if isinstance(error, MemoryError):
        return "its arrays do not fit into memory"
    return f"not a NumPy .npz archive, or damaged ({str(error).partition(chr(10))[0]})"
