"""IDX files, the format of MNIST: a magic number, the shape, then the values, big-endian.

Byte 3 of the magic number is the type, byte 4 the number of axes; each axis is an uint32.
Format: Y. LeCun, "The MNIST database", section "File formats".
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from hubel.data.arrays import source_from_arrays
from hubel.data.record import ArraySource
from hubel.errors import DataError

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_AXES = 32
CHUNK = 1 << 24  # bytes read at a time: a header that lies cannot make us allocate its lie
STEMS = {"train": "train", "test": "t10k"}
IMAGES_NAME = re.compile(r"images([.-])idx[0-9]+(-ubyte)?")


def read_idx(path: Path) -> NDArray[Any]:
    """The array in an IDX file, gzipped or not, in this machine's byte order.

    Raises:
        DataError: no such file, a wrong magic number, a body that is shorter or longer than the
            shape says, damaged gzip.
    """
    try:
        with _opened(path) as file:
            dtype, shape = _header(file, path)
            body = _body(file, dtype.itemsize * math.prod(shape), path)
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip ({error})") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    array = np.frombuffer(body, dtype=dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def read_idx_folder(
    path: Path,
    *,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    origin: str | None = None,
) -> ArraySource:
    """The four files of MNIST and its kin: train-images-idx3-ubyte, train-labels-idx1-ubyte and
    t10k-..., also with a dot before idx, also with .gz. The test pair may be absent.

    Raises:
        DataError: a file is missing or does not fit its partner.
    """
    files = find_idx(path)
    if "train" not in files:
        raise DataError(f"{path} lacks train-images-idx3-ubyte, or its labels (.gz or not)")
    return _source(files, classes, name or path.resolve().name, origin or str(path))


def read_idx_pair(images: Path, name: str | None = None) -> ArraySource:
    """One file of images; its labels lie beside it under the same name with "labels".

    Raises `DataError` where there are none, or they do not fit.
    """
    labels = _labels_of(images)
    if labels is None:
        raise DataError(
            f"{images}: no labels beside it; expected a name like {_labels_name(images)}"
        )
    return _source({"": (images, labels)}, None, name or images.name.split(".")[0], str(images))


def find_idx(path: Path) -> dict[str, tuple[Path, Path]]:
    """Part -> (images, labels) for the MNIST-named pairs in a folder."""
    found = {}
    for part, stem in STEMS.items():
        candidates = [
            path / f"{stem}-images{dot}idx3-ubyte{gz}" for gz in ("", ".gz") for dot in "-."
        ]
        for images in candidates:
            if images.is_file() and (labels := _labels_of(images)):
                found[part] = (images, labels)
                break
    return found


def looks_like_idx(path: Path) -> bool:
    """Whether a file starts as an IDX file does."""
    try:
        with _opened(path) as file:
            head = file.read(4)
    except (OSError, EOFError, zlib.error):
        return False
    return len(head) == 4 and head[:2] == b"\0\0" and head[2] in TYPES and 1 <= head[3] <= MAX_AXES


def _source(
    files: dict[str, tuple[Path, Path]], classes: Sequence[str] | None, name: str, origin: str
) -> ArraySource:
    return source_from_arrays(
        {part: (read_idx(images), read_idx(labels)) for part, (images, labels) in files.items()},
        titles={part: (str(images), str(labels)) for part, (images, labels) in files.items()},
        classes=classes,
        name=name,
        origin=origin,
    )


def _opened(path: Path) -> IO[bytes]:
    """The file, unpacked on the way where it starts like gzip, whatever its name."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path, "rb")) if packed else path.open("rb")


def _header(file: IO[bytes], path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in TYPES or magic[3] > MAX_AXES:
        types = ", ".join(f"{code:02x}" for code in TYPES)
        raise DataError(
            f"{path}: not an IDX file: it starts with {magic.hex(' ') or 'nothing'}; "
            f"allowed: 00 00, a type ({types}), the number of axes"
        )
    axes = file.read(4 * magic[3])
    if len(axes) < 4 * magic[3]:
        raise DataError(f"{path}: the file ends within its header")
    return np.dtype(TYPES[magic[2]]), struct.unpack(f">{magic[3]}I", axes)


def _body(file: IO[bytes], size: int, path: Path) -> bytearray:
    body = bytearray()
    while chunk := file.read(min(CHUNK, size + 1 - len(body))):
        body += chunk
    if len(body) < size:
        raise DataError(f"{path}: its header promises {size:,} bytes, {len(body):,} are there")
    if len(body) > size:
        raise DataError(f"{path}: more bytes follow than the {size:,} its header promises")
    return body


def _labels_name(images: Path) -> str:
    return IMAGES_NAME.sub(r"labels\1idx1\2", images.name)


def _labels_of(images: Path) -> Path | None:
    """The labels' file, packed or not, spelt with a dot or a hyphen."""
    name = _labels_name(images).removesuffix(".gz")
    if name == images.name.removesuffix(".gz"):
        return None
    spellings = (name, re.sub(r"[.-]idx1", ".idx1", name), re.sub(r"[.-]idx1", "-idx1", name))
    paths = [images.with_name(spelling + gz) for spelling in spellings for gz in ("", ".gz")]
    return next((path for path in paths if path.is_file()), None)
