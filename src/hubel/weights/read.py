"""Any file of weights to plain tensors. No code in a file is ever run.

safetensors files, and what `torch.save` wrote: a state dict, alone or inside a checkpoint. The
second kind is a pickle; it is read by torch's `weights_only` reader, which makes tensors and
refuses everything else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hubel.errors import WeightsError
from hubel.runs.weights import KEY

ALLOWED = "a .safetensors file, or a state dict as torch.save writes it (.pt, .pth)"
INSIDE = ("state_dict", "model_state_dict", "model", "state_dict_ema", "net", "weights")
KINDS = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)  # what a net's numbers are copied from; quantised and complex ones would not be the same numbers
ZIP, PICKLE, HDF5 = b"PK\x03\x04", b"\x80", b"\x89HDF"


@dataclass(frozen=True)
class Tensors:
    """What a file holds.

    Attributes:
        named: the tensors, on the CPU, whole and of one of KINDS.
        card: what hubel wrote beside them (`runs/weights.py`), where it wrote the file.
        sha256: of the file.
    """

    named: dict[str, Tensor]
    card: dict[str, Any] | None
    sha256: str


def read_tensors(path: Path) -> Tensors:
    """The tensors of a file.

    Raises `WeightsError` for no such file, a file of another kind, a damaged one, one that asks
    to run code, one without a tensor, and one with a sparse, quantised or otherwise odd tensor.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except FileNotFoundError:
        raise WeightsError(f"no such file of weights: {path}") from None
    except OSError as error:
        raise WeightsError(f"cannot read the weights {path}: {error.strerror}") from None
    card = None
    if head[8:9] == b"{":
        named, card = _safetensors(path)
    elif head.startswith((ZIP, PICKLE)):
        named = _named(_unpickled(path), path)
    else:
        kind = "is an HDF5 (Keras) file" if head.startswith(HDF5) else "is no file of weights"
        raise WeightsError(f"{path} {kind}; allowed: {ALLOWED}")
    if not named:
        raise WeightsError(f"{path} holds no tensor; allowed: {ALLOWED}")
    for name, tensor in named.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.dtype not in KINDS:
            raise WeightsError(f"{path}: {name} is no plain tensor: {_kind(tensor)}")
    return Tensors(named, card, _sha256(path))


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            named = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return named, json.loads(metadata[KEY]) if KEY in metadata else None
    except (SafetensorError, ValueError, RecursionError) as error:  # the last two are json's
        raise WeightsError(f"{path} is not a whole safetensors file: {_short(error)}") from None


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # hostile bytes trip the reader up in many ways
        if type(error).__name__ == "UnpicklingError":  # pickle itself is imported nowhere
            raise WeightsError(
                f"{path} wants more than tensors, which is refused, since it could run any code "
                f"({_asked(error)}); save the net's state_dict() instead"
            ) from None
        raise WeightsError(f"{path} is not a whole file of weights: {_short(error)}") from None


def _named(found: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what was saved."""
    for _ in INSIDE:  # some levels deep; a dict may hold itself
        below = [found.get(key) for key in INSIDE] if isinstance(found, Mapping) else []
        found = next((inner for inner in below if isinstance(inner, Mapping)), found)
    if not isinstance(found, Mapping):
        raise WeightsError(f"{path} holds a {type(found).__name__}, no state dict")
    return {str(name): value for name, value in found.items() if isinstance(value, Tensor)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _kind(tensor: Tensor) -> str:
    layout = str(tensor.layout).removeprefix("torch.")
    return f"{layout}, {str(tensor.dtype).removeprefix('torch.')}, on {tensor.device.type}"


def _asked(error: Exception) -> str:
    """What the pickle asked for, out of torch's long explanation."""
    for line in str(error).splitlines():
        if "GLOBAL" in line or "Unsupported" in line:
            return line.split("GLOBAL", 1)[-1].split("was not", 1)[0].strip()[:80]
    return _short(error)


def _short(error: Exception) -> str:
    """Its first sentence."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].partition(". ")[0][:160]
