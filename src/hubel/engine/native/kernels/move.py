"""Bringing numbers from one order into another: images into tiles and back, copies, zeros."""

from __future__ import annotations

from dataclasses import dataclass

from hubel.engine.native.emit import I64, PTR, Function, Value
from hubel.engine.native.machine import Machine


def transposed(f: Function, rows: list[Value]) -> list[Value]:
    """As many vectors as lanes, seen as a square, turned over its diagonal."""
    lanes = f.lanes
    low = [p for i in range(lanes // 2) for p in (i, lanes + i)]
    high = [p for i in range(lanes // 2, lanes) for p in (i, lanes + i)]
    size = lanes
    while size > 1:
        half = lanes // 2
        rows = [
            f.shuffle(rows[i // 2], rows[half + i // 2], low if i % 2 == 0 else high)
            for i in range(lanes)
        ]
        size //= 2
    return rows


@dataclass(frozen=True)
class Pack:
    """Images (n, floats) into a tile (floats, lanes); lanes without an image get zeros."""

    floats: int


def write_pack(name: str, spec: Pack, machine: Machine) -> Function:
    """void (first image, images there are, tile, zeros of `floats` + lanes)."""
    f = Function(name, [("x", PTR), ("n", I64), ("y", PTR), ("zeros", PTR)], machine.lanes)
    starts = []
    for lane in range(machine.lanes):
        there = f.arg("n") > lane
        starts.append(f.select(there, f.arg("x").at(lane * spec.floats * 4), f.arg("zeros")))
    whole = spec.floats // machine.lanes * machine.lanes
    with f.loop(0, whole, machine.lanes) as k:
        _pack_some(f, [f.load(start.at(k * 4)) for start in starts], k, machine.lanes, machine)
    if whole < spec.floats:
        rest = f.first(f.constant(spec.floats - whole, I64))
        rows = [f.load_some(start.at(whole * 4), rest) for start in starts]
        _pack_some(f, rows, f.constant(whole, I64), spec.floats - whole, machine)
    return f


def _pack_some(f: Function, rows: list[Value], k: Value, count: int, machine: Machine) -> None:
    for place, column in enumerate(transposed(f, rows)[:count]):
        f.store(column, f.arg("y").at((k + place) * machine.vector))


@dataclass(frozen=True)
class Unpack:
    """A tile (floats, lanes) into rows (lanes, stride), one an image; past `floats` come zeros."""

    floats: int
    stride: int
    padded: bool  # whether whole vectors may be written; else not past `floats`


def write_unpack(name: str, spec: Unpack, machine: Machine) -> Function:
    """void (tile, images there are, rows)."""
    f = Function(name, [("x", PTR), ("n", I64), ("y", PTR)], machine.lanes)
    whole = spec.floats // machine.lanes * machine.lanes
    with f.loop(0, whole, machine.lanes) as k:
        columns = [f.load(f.arg("x").at((k + i) * machine.vector)) for i in range(machine.lanes)]
        _unpack_some(f, spec, columns, k, None)
    if whole < spec.floats:
        left = spec.floats - whole
        columns = [f.load(f.arg("x").at((whole + i) * machine.vector)) for i in range(left)]
        columns += [f.constant(0.0)] * (machine.lanes - left)
        mask = None if spec.padded else f.first(f.constant(left, I64))
        _unpack_some(f, spec, columns, f.constant(whole, I64), mask)
    return f


def _unpack_some(
    f: Function, spec: Unpack, columns: list[Value], k: Value, mask: Value | None
) -> None:
    for lane, row in enumerate(transposed(f, columns)):
        at = f.arg("y").at(k * 4 + lane * spec.stride * 4)
        if spec.padded:
            f.store(row, at)
            continue
        with f.when(f.arg("n") > lane):
            if mask is None:
                f.store(row, at)
            else:
                f.store_some(row, at, mask)


@dataclass(frozen=True)
class Fill:
    """Zeros into some bytes (whole vectors)."""


def write_fill(name: str, spec: Fill, machine: Machine) -> Function:
    """void (place, bytes)."""
    f = Function(name, [("y", PTR), ("bytes", I64)], machine.lanes)
    with f.loop(0, f.arg("bytes"), machine.vector) as k:
        f.store(f.constant(0.0), f.arg("y").at(k))
    return f


@dataclass(frozen=True)
class Copy:
    """y (+)= x for so many channels, rows and columns, each side with steps of its own, in bytes.
    All else stays."""

    channels: int
    rows: int
    columns: int
    x_plane: int
    x_row: int
    x_column: int
    y_plane: int
    y_row: int
    y_column: int
    add: bool


def write_copy(name: str, spec: Copy, machine: Machine) -> Function:
    """void (x, y)."""
    f = Function(name, [("x", PTR), ("y", PTR)], machine.lanes)
    with f.loop(0, spec.channels) as c, f.loop(0, spec.rows) as h, f.loop(0, spec.columns) as w:
        x = f.arg("x").at(c * spec.x_plane + h * spec.x_row + w * spec.x_column)
        y = f.arg("y").at(c * spec.y_plane + h * spec.y_row + w * spec.y_column)
        f.store(f.load(x) + f.load(y) if spec.add else f.load(x), y)
    return f
