"""Receptive fields: which pixels of the input one number of a later layer can see."""

from __future__ import annotations

from typing import NamedTuple

from hubel.engine.ops.base import SAME, Window
from hubel.engine.record import Record
from hubel.engine.tape import Tape

Field = tuple[Window, ...] | None  # one window per axis; None: it may see everything


class Seen(NamedTuple):
    """A receptive field in pixels: its size and the step between neighbours, per axis."""

    size: tuple[int, ...]
    step: tuple[float, ...]

    def __str__(self) -> str:
        return "x".join(map(str, self.size))


def receptive_fields(tape: Tape, source: int) -> dict[int, Field]:
    """The field of every value that value number `source` (N, C, H, W) flows into.

    Exact for chains of convolutions and poolings; where paths of one step meet it is their hull;
    with upsampling it is a bound. Values that mix paths of different steps may see everything.
    """
    fields: dict[int, Field] = {}
    for record in tape.records:
        if source in record.inputs and source not in fields:
            shape = record.shapes.inputs[record.inputs.index(source)]
            assert shape is not None
            fields[source] = (SAME,) * max(len(shape) - 2, 0)
        found = _field(record, fields)
        if found != ():
            fields.update(dict.fromkeys(record.outputs, found))
    return fields


def seen(field: Field) -> Seen | None:
    """A field as whole pixels; None where it may see everything."""
    if not field:
        return None
    size = tuple(_ceil(w.high) - _floor(w.low) + 1 for w in field)
    return Seen(size, tuple(float(w.step) for w in field))


def _field(record: Record, fields: dict[int, Field]) -> Field:
    """() where nothing of the source flows in."""
    known = [fields[i] for i in record.inputs if i in fields]
    if not known:
        return ()
    windows = record.op.windows(record.shapes, **record.options)
    if windows is None or any(f is None for f in known):
        return None
    composed = [_compose(f, windows) for f in known if f is not None]
    return _hull(composed)


def _compose(inner: tuple[Window, ...], outer: tuple[Window, ...]) -> Field:
    if len(outer) == 1 and len(inner) > 1:
        outer = outer * len(inner)
    if len(outer) != len(inner):
        return None
    return tuple(
        Window(f.step * w.step, f.step * w.low + f.low, f.step * w.high + f.high)
        for f, w in zip(inner, outer, strict=True)
    )


def _hull(fields: list[Field]) -> Field:
    if any(f is None for f in fields):
        return None
    known = [f for f in fields if f is not None]
    if any(len(f) != len(known[0]) for f in known):
        return None
    axes = list(zip(*known, strict=True))
    if any(len({w.step for w in axis}) > 1 for axis in axes):
        return None
    return tuple(
        Window(axis[0].step, min(w.low for w in axis), max(w.high for w in axis)) for axis in axes
    )


def _floor(value: object) -> int:
    return int(value // 1)  # type: ignore[operator]


def _ceil(value: object) -> int:
    return -int(-value // 1)  # type: ignore[operator]
