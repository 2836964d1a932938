"""Files that are either the old one or the new one, never half of either."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hubel.errors import RunError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes `path`'s place, flushed to disk, if all went well.

    Raises `RunError` where the disk is full or the folder cannot be written; `path` is then as it
    was.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        draft.touch()
        mode = draft.stat().st_mode  # what the user's umask says; safetensors would make it 0600
        yield draft
        draft.chmod(mode)
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        draft.replace(path)
    except Exception as error:
        if (reason := _disk_reason(error)) is not None:
            raise RunError(f"cannot write {path}: {reason}") from None
        raise
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`path` holds `text`, or what it held before."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: Path, record: Any) -> None:
    """`path` holds `record`, indented; NaN and infinity become null."""
    write_text(path, json.dumps(finite(record), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises `RunError` where the file is missing or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is missing: the run folder is not whole") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is damaged: {error}") from None


def finite(value: Any) -> Any:
    """`value` with NaN and infinity as None: JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _disk_reason(error: Exception) -> str | None:
    """safetensors wraps the system's error in its own words, so the words are looked at too."""
    if isinstance(error, OSError) and error.errno is not None:
        return "the disk is full" if error.errno == errno.ENOSPC else os.strerror(error.errno)
    return "the disk is full" if "No space left on device" in str(error) else None
