"""The walk back: from the loss to the weights, one record after another, by our own rules."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from hubel.engine.ops import OPS
from hubel.engine.ops.base import Grads
from hubel.engine.record import Record
from hubel.engine.tape import Tape
from hubel.errors import OptionError, unknown

# rule(record, dy, default) -> gradients in the order of the op's arguments
Default = Callable[[Any], Grads]
Rule = Callable[[Record, Any, Default], Grads]
_RULES: ContextVar[dict[str, Rule]] = ContextVar("rules", default={})  # noqa: B039 never written to


@dataclass(frozen=True)
class Move:
    """One step of the walk: what came into a record from above, and what goes on below."""

    record: Record
    dy: Any
    gradients: Grads


@contextmanager
def rules(by_path: dict[str, Rule] | None = None, /, **by_op: Rule) -> Iterator[None]:
    """Another backward for some operators, inside the block.

        with hubel.rules(relu=guided): ...
        with hubel.rules({"features.*": rule}, max_pool=other): ...

    Args:
        by_path: rules for module paths; `*` and `?` as in file names. They go before `by_op`.
        by_op: rules by the name of the operator.

    A rule is `rule(record, dy, default) -> gradients`, one per argument of the operator's forward;
    `default(dy)` is the true backward. Raises `OptionError` for an unknown operator.
    """
    for name in by_op:
        if name not in OPS:
            raise OptionError(unknown("operator", name, OPS))
    paths = {f"/{pattern}": rule for pattern, rule in (by_path or {}).items()}
    token = _RULES.set({**_RULES.get(), **paths, **by_op})
    try:
        yield
    finally:
        _RULES.reset(token)


def walk(tape: Tape, gradients: dict[int, Tensor], *, free: bool = False) -> Iterator[Move]:
    """Backpropagate step by step, newest record first.

    Args:
        gradients: what is known at the start: number of a value -> gradient of its shape. It is
            added to on the way; what stands in it at the end belongs to the watched values.
        free: forget what was saved as soon as it was used; the tape can be walked once only.
    """
    ours = _RULES.get()
    for record in reversed(tape.records):
        dys = [gradients.pop(number, None) for number in record.outputs]
        if all(dy is None for dy in dys):
            continue
        dy = tuple(dys) if record.many else dys[0]
        found = _backward(record, dy, tape.fast, ours)
        for number, needed, gradient in zip(record.inputs, record.needs, found, strict=True):
            if needed and gradient is not None and number is not None:
                before = gradients.get(number)
                gradients[number] = gradient if before is None else before + gradient
        if free:
            record.saved = ()
        yield Move(record, dy, found)
        del dys, dy, found  # let the allocator have them before the next operator


def backpropagate(
    tape: Tape, output: Tensor, dy: Tensor | None = None, *, free: bool = False
) -> dict[str, Tensor]:
    """Gradients of `output` (any shape) with respect to everything watched, by name.

    Args:
        dy: gradient that comes into `output`, of its shape; 1 where `output` is a scalar.
    """
    gradients = {tape.values.number(output): torch.ones_like(output) if dy is None else dy}
    with torch.no_grad():
        for _ in walk(tape, gradients, free=free):
            pass
    return {name: gradients[n] for n, name in tape.watched.items() if n in gradients}


def _backward(record: Record, dy: Any, fast: bool, ours: dict[str, Rule]) -> Grads:
    def default(dy: Any) -> Grads:
        if fast:
            return record.op.fast_backward(dy, record.saved, record.needs)
        return record.op.backward(dy, record.saved)

    rule = _rule(record, ours) if ours else None
    found = default(dy) if rule is None else rule(record, dy, default)
    return tuple(map(_fitting, repeat(record), found, record.shapes.inputs, record.dtypes))


def _fitting(record: Record, gradient: Tensor | None, shape: Any, dtype: Any) -> Tensor | None:
    """A gradient has its value's shape, or the rule that made it is wrong; and its dtype."""
    if gradient is None:
        return None
    if tuple(gradient.shape) != shape:
        raise ValueError(
            f"the backward of {record.op.name} gave a gradient of shape {tuple(gradient.shape)} "
            f"for a value of shape {shape}"
        )
    return gradient if gradient.dtype == dtype else gradient.to(dtype)


def _rule(record: Record, ours: dict[str, Rule]) -> Rule | None:
    for name, rule in ours.items():
        if name.startswith("/") and record.path and fnmatch.fnmatchcase(record.path, name[1:]):
            return rule
    return ours.get(record.op.name)
