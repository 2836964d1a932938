"""The one pickle reader: it can make what CIFAR's "python version" holds, and nothing else.

A pickle is a program. This reader answers every request for a Python object from a table of
stand-ins written here, so that not even NumPy's own unpickling code sees the file's arguments; a
request for anything else refuses the file.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubel.errors import DataError

ALLOWED = "dict, list, str, bytes, int and NumPy arrays of uint8"


def restricted_load(data: bytes, where: str) -> Any:
    """What a pickle of plain values and uint8 arrays holds; Python 2 strings become str.

    Raises:
        DataError: the pickle asks for anything but dict, list, str, bytes, int and uint8
            arrays (the message names it), or is damaged.
    """
    try:
        return _plain(_Reader(io.BytesIO(data), encoding="latin1").load())
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{where}: damaged pickle ({type(error).__name__}: {error})") from None


class _Dtype:
    """Stands for `numpy.dtype`."""

    def __init__(self, code: str = "", *_: object) -> None:
        if code != "u1":
            raise DataError(f"refused: an array of type {code!r}; allowed: {ALLOWED}")

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment, which one-byte numbers have not."""


class _Array:
    """Stands for `numpy.ndarray` and for the function that makes an empty one."""

    def __init__(self, *_: object) -> None:
        self.values: NDArray[np.uint8] | None = None

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, str | bytes]) -> None:
        _, shape, dtype, column_major, content = state
        raw = content.encode("latin1") if isinstance(content, str) else content
        if not isinstance(dtype, _Dtype) or math.prod(shape) != len(raw):
            raise DataError(f"damaged pickle: an array of shape {shape} with {len(raw)} bytes")
        flat = np.frombuffer(raw, dtype=np.uint8)
        self.values = flat.reshape(shape, order="F" if column_major else "C")


class _Encode:
    """Stands for `_codecs.encode`, by which Python 3 writes bytes into an old pickle."""

    def __new__(cls, text: str, encoding: str) -> bytes:  # type: ignore[misc]
        if encoding != "latin1":
            raise DataError(f"refused: bytes written as {encoding!r}; allowed: latin1")
        return text.encode("latin1")

    def __setstate__(self, state: object) -> None:
        """Keeps a pickle from setting attributes of this class."""


GLOBALS: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encode,
}


class _Reader(pickle._Unpickler):
    """The reader in Python, not the one in C: that one sizes its memo by a number in the file, and
    sixteen bytes could make it fill all memory."""

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in GLOBALS:
            raise DataError(
                f"file refused: it asks for the Python object '{module}.{name}'; allowed: {ALLOWED}"
            )
        return GLOBALS[module, name]

    def persistent_load(self, pid: object) -> None:
        raise DataError(f"file refused: it asks for the outside object {pid!r}; allowed: {ALLOWED}")


def _plain(value: Any) -> Any:
    """The same with arrays in place of their stand-ins: CIFAR's stand in a dict."""
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
