"""A look as a table: one line per operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hubel.engine.record import Record


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    index: int
    op: str
    path: str
    shapes: str
    parameters: int
    macs: int
    bytes: int
    seconds: float
    gradient: float | None
    field: str


HEADINGS = (
    "#", "operator", "module", "shapes", "params", "MACs", "bytes", "ms", "|grad|", "sees",
)  # fmt: skip


def cells(row: Row) -> list[str]:
    """One line of the table, as it is printed."""
    return [
        str(row.index), row.op, row.path, row.shapes, _some(row.parameters), _some(row.macs),
        f"{row.bytes:,}", f"{row.seconds * 1e3:.2f}",
        "" if row.gradient is None else f"{row.gradient:.3g}", row.field,
    ]  # fmt: skip


def _some(number: int) -> str:
    return f"{number:,}" if number else ""


def text_table(headings: Sequence[str], lines: list[list[str]]) -> str:
    """Columns under headings; names left, numbers right."""
    widths = [max(len(line[i]) for line in [list(headings), *lines]) for i in range(len(headings))]
    left = {1, 2, 3}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [list(headings), *lines]
    )


def shapes_of(record: Record) -> str:
    """ "2x3x8x8 -> 2x6x8x8": the first tensor that went in, and what came out."""
    known = [_shape(s) for s in record.shapes.inputs if s is not None]
    outs = ", ".join(_shape(s) for s in record.shapes.outputs)
    return f"{known[0] if known else ''} -> {outs}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) if shape else "scalar"


def count_of(shape: tuple[int, ...]) -> int:
    """Elements of a tensor of this shape."""
    n = 1
    for extent in shape:
        n *= extent
    return n
