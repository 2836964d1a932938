"""`Architecture`: everything needed to build a net again, as one small JSON record."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from hubel.errors import ModelError
from hubel.models.names import build
from hubel.models.own import is_own, split_own


@dataclass(frozen=True)
class Architecture:
    """How a net was built, to build it again.

    Attributes:
        name: as given to `build`: a name of the table or "file.py:function".
        classes, channels, size: as given to `build`; size is (H, W).
        options: what the model took besides; plain JSON values.
        file, sha256: of a model of the user's own, found when not given: its whole path and the
            hash of its content (not of what it imports). A changed file is never built from.

    Raises `ModelError` where the name points to a file that is not there, and for options of a
    user's own function other than `dropout`: a record may come from a stranger, and must not be
    able to call any function of any file with words of its choice.
    """

    name: str
    classes: int
    channels: int
    size: tuple[int, int]
    options: dict[str, Any] = field(default_factory=dict)
    file: str | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        strange = sorted(set(self.options) - {"dropout"})
        if is_own(self.name) and strange:
            raise ModelError(
                f"{self.name}: only 'dropout' may stand beside it, given {strange[0]!r}"
            )
        if is_own(self.name) and self.file is None:
            path = split_own(self.name)[0].resolve()
            object.__setattr__(self, "file", str(path))
            object.__setattr__(self, "sha256", _hash(path))

    def build(self) -> nn.Module:
        """A new net of this shape, its weights drawn as `build` draws them.

        Raises `ModelError` as `build` does, and where the user's file is gone or has changed.
        """
        name = self.name if self.file is None else self._unchanged(Path(self.file))
        return build(
            name, classes=self.classes, channels=self.channels, size=self.size, **self.options
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "size": list(self.size)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Architecture:
        """Raises `ModelError` where it names a file without the hash of its content."""
        made = cls(**record)
        if is_own(made.name) and not (record.get("file") and record.get("sha256")):
            raise ModelError(f"{made.name}: the record does not say which content the file had")
        return made

    def _unchanged(self, path: Path) -> str:
        """ "file.py:function" with the whole path, if the file still is what it was."""
        if not path.is_file():
            raise ModelError(f"the model's file is gone: {path}; it must be there as it was")
        found = _hash(path)
        if found != self.sha256:
            raise ModelError(
                f"the model's file has changed: {path} must have SHA-256 "
                f"{str(self.sha256)[:12]}..., it has {found[:12]}..."
            )
        return f"{path}:{self.name.rpartition(':')[2]}"


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
