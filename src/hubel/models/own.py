"""A model of the user's own: "path/to/file.py:function", imported and called.

The file runs as a private module, afresh on every load, with its folder at the end of Python's
search path, so that it can import its neighbours but they never hide another package. Whatever it
gets wrong comes back as one line.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from hubel.errors import ModelError, unknown


def is_own(name: str) -> bool:
    """Whether a model's name points into a file: "net.py:make" (or, incomplete, "net.py")."""
    return name.endswith(".py") or ".py:" in name


def split_own(name: str) -> tuple[Path, str]:
    """(file, function) of "file.py:function". Raises `ModelError` where either is missing."""
    file, _, function = name.rpartition(":")
    if not file.endswith(".py") or not function.isidentifier():
        raise ModelError(f"say which function makes the model: 'file.py:function', given {name!r}")
    path = Path(file)
    if not path.is_file():
        raise ModelError(f"no such file: {file} (a model of your own is 'file.py:function')")
    return path, function


def load_own(
    name: str, *, classes: int, channels: int, size: tuple[int, int], **options: Any
) -> nn.Module:
    """The model that a user's function or class makes.

    It is called with those of `classes`, `channels`, `size` (H, W) that its signature takes, and
    with `options`. Its weights are left as its own code initialised them.

    Raises `ModelError`, one line, where the file or function is missing, asks for something else,
    takes no such option, raises (with type, message and line), or gives no `nn.Module`.
    """
    path, function = split_own(name)
    with _neighbours_importable(path), _said_in_one_line(path):
        module = _run(path)
        make = _find(module, path, function)
        given = {"classes": classes, "channels": channels, "size": size}
        made = make(**_arguments(make, name, given, options))
    if not isinstance(made, nn.Module):
        raise ModelError(f"{name} must return a torch.nn.Module, it returned {_kind(made)}")
    return made


def _run(path: Path) -> ModuleType:
    """The file as a module under a name that nothing else has."""
    alias = "_hubel_own_" + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = spec_from_file_location(alias, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[alias] = module  # where dataclasses and copy look a class's module up
    spec.loader.exec_module(module)
    return module


def _find(module: ModuleType, path: Path, function: str) -> Callable[..., Any]:
    if not hasattr(module, function):
        mine = [
            n for n, v in vars(module).items() if getattr(v, "__module__", 0) == module.__name__
        ]
        if not mine:
            raise ModelError(f"{path} defines no function or class, so no {function!r}")
        raise ModelError(unknown(f"function of {path}", function, mine))
    make = getattr(module, function)
    if not callable(make) or isinstance(make, nn.Module):
        raise ModelError(f"{path}:{function} must be a function or class, it is {_kind(make)}")
    return make  # type: ignore[no-any-return]


def _arguments(
    make: Callable[..., Any], name: str, given: dict[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    """What to call `make` with: of `given` what it takes, of `options` all."""
    parameters = inspect.signature(make).parameters.values()
    taken = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for word in options:
        if word not in taken and not anything:
            own = [w for w in taken if w not in given]
            raise ModelError(
                unknown(f"option of {name}", word, own) if own
                else f"{name} takes no options, given {word!r}"
            )  # fmt: skip
    words = {w: v for w, v in given.items() if w in taken or anything} | options
    for p in parameters:
        needed = p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        if needed and p.name not in words:
            raise ModelError(
                f"{name} asks for {p.name!r}, which has no default: "
                f"it is given {', '.join(given)} by name, as far as it takes them"
            )
    return words


@contextlib.contextmanager
def _neighbours_importable(path: Path) -> Iterator[None]:
    folder = str(path.resolve().parent)
    sys.path.append(folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the user's code may have tidied up already
            sys.path.remove(folder)


@contextlib.contextmanager
def _said_in_one_line(path: Path) -> Iterator[None]:
    """Whatever the user's code raises, as a `ModelError` with its type, message and line."""
    try:
        yield
    except ModelError:
        raise
    except (Exception, SystemExit) as error:
        message = " ".join(str(error).split())
        raise ModelError(
            f"{path}, line {_line(error, path)}: {type(error).__name__}: {message}"
        ) from error


def _line(error: BaseException, path: Path) -> int | str:
    """The last line of the user's file that was running."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or "?"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path]
    return next((line for line in reversed(lines) if line is not None), "?")


def _kind(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
