"""What ATen's schemas say of an operator: names, defaults, what it writes, its pure twin."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from hubel.engine.ops.base import Adapted

_SCHEMAS: dict[Any, list[tuple[str, Any, bool]]] = {}


def _schema(func: Any) -> list[tuple[str, Any, bool]]:
    """Per argument of an ATen operator: name, default, whether it is a tensor."""
    if func not in _SCHEMAS:
        _SCHEMAS[func] = [
            (a.name, a.default_value if a.has_default_value() else None, _is_tensor(a.type))
            for a in func._schema.arguments
        ]
    return _SCHEMAS[func]


def _is_tensor(kind: Any) -> bool:
    inner = kind.getElementType() if hasattr(kind, "getElementType") else kind
    return isinstance(kind, torch.TensorType) or isinstance(inner, torch.TensorType)


def named_arguments(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The call's arguments by their schema names, defaults filled in."""
    names = _schema(func)
    named = {
        name: args[i] if i < len(args) else default for i, (name, default, _) in enumerate(names)
    }
    named.update(kwargs)
    return named


def as_it_comes(func: Any, named: dict[str, Any]) -> Adapted:
    """The tensors in the schema's order as positionals, everything else as options."""
    tensors = {name for name, _, is_tensor in _schema(func) if is_tensor}
    positionals: list[Any] = []
    for name, value in named.items():
        if name in tensors:
            positionals.extend(value if isinstance(value, (list, tuple)) else [value])
    return positionals, {k: v for k, v in named.items() if k not in tensors}


def written_arguments(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that an operator writes into."""
    named = {a.name: a for a in func._schema.arguments}
    given = [*zip(named, args, strict=False), *kwargs.items()]
    return [
        value
        for name, value in given
        if named[name].alias_info is not None and named[name].alias_info.is_write
    ]


def pure_twin(func: Any) -> Any | None:
    """The twin of an in-place operator that leaves its input alone."""
    space, _, name = func._schema.name.partition("::")
    if name in _TWINS:
        return _TWINS[name]
    packet = getattr(getattr(torch.ops, space), name.rstrip("_"), None)
    if packet is None:
        return None
    same = getattr(packet, func._schema.overload_name or "default", None)
    return same or next(
        filter(partial(_alike, func), map(partial(getattr, packet), packet.overloads())), None
    )


def _alike(func: Any, other: Any) -> bool:
    """Whether two operators take the same arguments."""
    kinds = [[str(a.type) for a in f._schema.arguments] for f in (func, other)]
    return kinds[0] == kinds[1]


RESHAPING = {
    f"aten::{name}_" for name in ("unsqueeze", "squeeze", "transpose", "t", "swapaxes", "swapdims")
}


_TWINS = {
    "copy_": torch.ops.aten.copy.default,
    "fill_": torch.ops.aten.fill.Scalar,
    "zero_": torch.ops.aten.zero.default,
}
