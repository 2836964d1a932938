"""What a finished run shows about its model: pictures, counts and maps, kept as two files.

`evidence.npz` holds the arrays, `evidence.json` the names beside them. The report reads only
these; whoever evaluates the model fills them in. Every piece may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubel.errors import RunError
from hubel.runs.files import read_json, replacing, write_json

ARRAYS, NAMES = "evidence.npz", "evidence.json"


@dataclass(frozen=True, slots=True)
class Mistakes:
    """Wrongly classified images, the most confident first.

    Attributes:
        images: uint8 (M, C, H, W), C = 1 or 3.
        true, predicted: int64 (M,) class indices.
        confidence: float (M,), probability of the predicted class, 0..1.
        ids: M names.
    """

    images: NDArray[np.uint8]
    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.floating[Any]]
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Samples:
    """Images as they come, with all the model says of them.

    Attributes:
        images: uint8 (n, C, H, W), C = 1 or 3.
        true: int64 (n,) class indices.
        probabilities: float (n, classes), rows sum to 1.
        ids: n names.
    """

    images: NDArray[np.uint8]
    true: NDArray[np.int64]
    probabilities: NDArray[np.floating[Any]]
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SeenBatch:
    """Training images as the net sees them, after augmentation.

    Attributes:
        images: uint8 (N, C, H, W), C = 1 or 3.
        labels: int64 (N,) class indices, or float (N, classes) where mixup blended them, or of
            masks uint8 (N, H, W), a class or 255 (no label) for every pixel.
    """

    images: NDArray[np.uint8]
    labels: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One image with its masks, scaled down together. Sizes differ from case to case.

    Attributes:
        image: uint8 (C, h, w), C = 1 or 3.
        truth: uint8 (h, w), a class or 255 (no label).
        predicted: uint8 (h, w), a class.
        uncertainty: uint8 (h, w), 0 sure, 255 no idea at all.
        id: its name.
        score: mean IoU of this image alone, 0..1.
        why: "worst", "best", or "random": drawn by lot.
    """

    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    uncertainty: NDArray[np.uint8]
    id: str
    score: float
    why: str


@dataclass(frozen=True, slots=True)
class Filters:
    """Weights of the first convolution: float (O, C, Kh, Kw), and the layer's name."""

    weights: NDArray[np.floating[Any]]
    name: str


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """What one layer answers to n images: float (n, maps, h, w). `kind` as in "Conv2d".

    `size` is (h, w) of the answer itself where its maps are kept smaller, else None.
    """

    layer: str
    kind: str
    maps: NDArray[np.floating[Any]]
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Features:
    """Input images uint8 (n, C, H, W) and the answers of some layers, first layer first."""

    images: NDArray[np.uint8]
    layers: tuple[FeatureMap, ...]


@dataclass(slots=True)
class Evidence:
    """All that the report shows and the log does not hold.

    Attributes:
        part: the part of the data that was evaluated: "train", "val" or "test".
        confusion: int64 (K, K), images (of masks: pixels) counted by [true, predicted].
        calibration: float64 (bins, 3), equal bins of confidence over 0..1: number of images
            (pixels), sum of their confidence, number right.
        boundary: of masks: float64 (K,), how well each class's outlines are met, 0..1 or NaN.
        each: of masks: float64 (n,), mean IoU of every image that was judged, 0..1.
        cases: of masks: the worst images, the best, and some drawn by lot; none stands twice.
        costs: one row per layer, for one image: layer, kind, shape of its output (1, ...),
            parameters, macs, milliseconds; other keys are kept and not shown.
        absent: why a piece is not there, by its field's name, in one line for people.
    """

    part: str | None = None
    confusion: NDArray[np.int64] | None = None
    calibration: NDArray[np.float64] | None = None
    boundary: NDArray[np.float64] | None = None
    each: NDArray[np.float64] | None = None
    cases: tuple[Case, ...] | None = None
    mistakes: Mistakes | None = None
    samples: Samples | None = None
    batch: SeenBatch | None = None
    filters: Filters | None = None
    features: Features | None = None
    costs: list[dict[str, Any]] | None = None
    absent: dict[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write both files into `folder`, each in one move; what stood there is replaced."""
        arrays, names = self._taken_apart()
        with replacing(folder / ARRAYS) as draft, draft.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        write_json(folder / NAMES, names)

    @classmethod
    def load(cls, folder: Path) -> Evidence:
        """Read both files. Without them the evidence is empty; broken ones raise `RunError`."""
        if not (folder / ARRAYS).exists() or not (folder / NAMES).exists():
            return cls()
        try:
            names = read_json(folder / NAMES)
            with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
                return cls._put_together({key: arrays[key] for key in arrays.files}, names)
        except (
            Exception
        ) as error:  # a torn zip raises a dozen kinds, none of them ours to tell apart
            raise RunError(f"{folder / ARRAYS}: evidence cannot be read ({error})") from error

    def _taken_apart(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        arrays: dict[str, NDArray[Any]] = {}
        costs = None if self.costs is None else [_plain(row) for row in self.costs]
        names: dict[str, Any] = {"part": self.part, "costs": costs, "absent": self.absent}
        for key in _ARRAYS:
            if (array := getattr(self, key)) is not None:
                arrays[key] = array
        for key in ("mistakes", "samples", "batch", "filters"):
            if (piece := getattr(self, key)) is not None:
                names[key] = _split(piece, key, arrays)
        if self.cases is not None:
            names["cases"] = _split_all(self.cases, "cases", arrays)
        if self.features is not None:
            arrays["features.images"] = self.features.images
            names["features"] = _split_all(self.features.layers, "features", arrays)
        return arrays, names

    @classmethod
    def _put_together(cls, arrays: Mapping[str, Any], names: Mapping[str, Any]) -> Evidence:
        made = cls(part=names.get("part"), costs=names.get("costs"))
        made.absent = dict(names.get("absent") or {})
        for key in _ARRAYS:
            setattr(made, key, arrays.get(key))
        for key, kind in _PIECES.items():
            if key in names:
                setattr(made, key, kind(**_join(key, arrays, names[key])))
        if "cases" in names:
            made.cases = tuple(Case(**it) for it in _join_all("cases", arrays, names["cases"]))
        if "features" in names:
            layers = _join_all("features", arrays, names["features"])
            made.features = Features(
                arrays["features.images"], tuple(FeatureMap(**layer) for layer in layers)
            )
        return made


_ARRAYS = ("confusion", "calibration", "boundary", "each")
_PIECES: dict[str, Callable[..., Any]] = {
    "mistakes": Mistakes,
    "samples": Samples,
    "batch": SeenBatch,
    "filters": Filters,
}


def _split(piece: Any, key: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """A piece's arrays go to `arrays` under "key.field"; what is left is fit for JSON."""
    names = {}
    for name in piece.__dataclass_fields__:
        value = getattr(piece, name)
        if isinstance(value, np.ndarray):
            arrays[f"{key}.{name}"] = value
        else:
            names[name] = value
    return names


def _join(key: str, arrays: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """The way back: the fields of one piece."""
    prefix = f"{key}."
    mine = {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
    return {**mine, **{k: tuple(v) if isinstance(v, list) else v for k, v in names.items()}}


def _split_all(
    pieces: Iterable[Any], key: str, arrays: dict[str, NDArray[Any]]
) -> list[dict[str, Any]]:
    """`_split` of each piece, numbered: every one keeps arrays of its own sizes."""
    return [_split(piece, f"{key}.{number}", arrays) for number, piece in enumerate(pieces)]


def _join_all(
    key: str, arrays: Mapping[str, Any], names: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The way back: the fields of each piece."""
    return [_join(f"{key}.{number}", arrays, piece) for number, piece in enumerate(names)]


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A cost row with NumPy's numbers as Python's own, which JSON knows."""
    return {k: v.tolist() if isinstance(v, np.generic | np.ndarray) else v for k, v in row.items()}
