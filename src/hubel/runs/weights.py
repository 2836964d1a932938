"""Weights on disk: one safetensors file that also says what they are weights of.

The file's metadata (one JSON string under the key "hubel") holds the architecture, the class names
and the preprocessing, so a weights file alone is enough to predict. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hubel.data.preprocess import Preprocess
from hubel.errors import ModelError, RunError, unknown
from hubel.models.architecture import Architecture
from hubel.runs.files import replacing

KEY = "hubel"
FORMAT = 1


@dataclass(frozen=True)
class Card:
    """What stands beside the numbers.

    Attributes:
        architecture: None for a module made by hand, which only its maker can build again.
        classes: their names, in the order of the net's answers.
        preprocess: what the net is to be fed.
        origin: what the weights began from, where they are not hubel's own from the first step.
        task: what the answers are: "classify" or "segment".
        colours: of masks: each class's, (r, g, b) of 0..255.
    """

    architecture: Architecture | None
    classes: tuple[str, ...]
    preprocess: Preprocess
    origin: dict[str, Any] | None = None
    task: str = "classify"
    colours: tuple[tuple[int, int, int], ...] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "architecture": self.architecture.to_json() if self.architecture else None,
            "classes": list(self.classes),
            "preprocess": self.preprocess.to_json(),
            "origin": self.origin,
            "task": self.task,
            "colours": self.colours and [list(colour) for colour in self.colours],
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Card:
        """Raises `KeyError`, `TypeError` or `ValueError` for what is no whole card."""
        made, classes = record["architecture"], record["classes"]
        if made and made["classes"] != len(classes):
            raise ValueError(f"it names {len(classes)} classes for a net of {made['classes']}")
        return cls(
            Architecture.from_json(made) if made else None,
            tuple(classes),
            Preprocess.from_json(record["preprocess"]),
            record.get("origin"),
            record.get("task", "classify"),
            _colours(record.get("colours"), len(classes)),
        )


def _colours(given: Any, classes: int) -> tuple[tuple[int, int, int], ...] | None:
    """Raises `ValueError` unless there is one (r, g, b) for every class."""
    if given is None:
        return None
    found = tuple((int(r), int(g), int(b)) for r, g, b in given)
    if len(found) != classes or not all(0 <= part <= 255 for rgb in found for part in rgb):
        raise ValueError(f"it has {len(found)} colours of 0..255 for {classes} classes")
    return found


def save_tensors(path: Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Tensors and one JSON record, in one file, atomically. Tied ones are written once a name."""
    seen: set[int] = set()
    whole = {}
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous()
        if flat.data_ptr() in seen:  # tied weights: safetensors refuses two names for one memory
            flat = flat.clone()
        seen.add(flat.data_ptr())
        whole[name] = flat
    with replacing(path) as draft:
        save_file(whole, draft, metadata={KEY: json.dumps(record)})


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Raises `RunError` where the file is missing, damaged or not ours."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(metadata[KEY])
    except FileNotFoundError:
        raise RunError(f"no such file: {path}") from None
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise RunError(f"{path} is not a whole hubel file: {error}") from None


def save_weights(path: Path, weights: dict[str, Tensor], card: Card) -> None:
    """One weights file."""
    save_tensors(path, weights, card.to_json())


def load_weights(path: Path) -> tuple[dict[str, Tensor], Card]:
    """One weights file. Raises `RunError`."""
    tensors, record = load_tensors(path)
    try:
        return tensors, Card.from_json(record)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} does not say what its weights are of: {error}") from None


def fill(model: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Put weights into a model. Raises `ModelError` naming the first keys that do not fit."""
    own = model.state_dict()
    missing = sorted(own.keys() - weights.keys())
    extra = sorted(weights.keys() - own.keys())
    if missing or extra:
        words = [f"missing {_few(missing)}"] if missing else []
        words += [unknown("weight", extra[0], own)[:200]] if extra else []
        raise ModelError(f"{where} holds the weights of another architecture: {'; '.join(words)}")
    for name, tensor in own.items():
        if weights[name].shape != tensor.shape:
            raise ModelError(
                f"{where} holds the weights of another architecture: {name} is "
                f"{tuple(weights[name].shape)}, the model's is {tuple(tensor.shape)}"
            )
    model.load_state_dict(weights)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
