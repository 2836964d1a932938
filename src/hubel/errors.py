"""The caller's mistakes, said so that they can be mended.

Every message says what is wrong, what is allowed, and what was given. The command prints it on
one line and exits with 2; anything that is not a `HubelError` is a fault of ours and exits with 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HubelError(Exception):
    """A mistake of the caller's: bad words, bad data, bad files."""


class OptionError(HubelError):
    """A word or number that a function or flag does not take."""


class DataError(HubelError):
    """Data that cannot be used as it is."""


class BrokenImage(DataError):
    """One image that cannot be decoded. `where` names it (a path or an id), `reason` says why."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason

    def __reduce__(self) -> tuple[type[BrokenImage], tuple[str, str]]:
        return type(self), (self.where, self.reason)  # crosses process borders intact

    def bare(self) -> BrokenImage:
        """The same to be kept: without the frames that it came through, and all that they hold."""
        return type(self)(self.where, self.reason)


class ModelError(HubelError):
    """A model that cannot be built, loaded or fed as asked."""


class WeightsError(HubelError):
    """Weights that cannot be found, read or put into a net."""


class RunError(HubelError):
    """A run folder that cannot be made, read or continued."""


class TrainingError(HubelError):
    """A training that cannot go on (diverged, too many broken images, out of memory)."""


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """The allowed word closest to `word`, or None where nothing is near."""
    names = list(allowed)
    by_lower = {name.lower(): name for name in names}
    found = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None


def unknown(kind: str, given: str, allowed: Iterable[str]) -> str:
    """The sentence for an unknown word: the nearest right one first, then all that are allowed.

    >>> unknown("model", "lenet", ["lenet5", "mlp"])
    "unknown model 'lenet': did you mean 'lenet5'? allowed: lenet5, mlp"
    """
    names = sorted(allowed)
    near = nearest(given, names)
    hint = f"did you mean {near!r}? " if near else ""
    return f"unknown {kind} {given!r}: {hint}allowed: {', '.join(names)}"
