"""Planes brought to another size, axis by axis: bilinear enlarging, adaptive averages.

    y = A x B^T

Every row of A (and of B) mixes a few neighbouring entries, so only those are read. The way back,
dx = A^T dy B, is the same kernel with the turned matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from hubel.engine.native.emit import F32, I64, PTR, Function, Registers, Value
from hubel.engine.native.kernels.tables import table
from hubel.engine.native.machine import Machine

Span = tuple[int, tuple[float, ...]]  # the first entry read, and the weights from there on
UNROLLED = 4  # up to so many entries an axis are written out one by one


@dataclass(frozen=True)
class Resample:
    """One shape of it.

    Attributes:
        channels, height, width: of the map read.
        rows, columns: for every row and column written, what it mixes.
        add: add to what stands in y.
    """

    channels: int
    height: int
    width: int
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    add: bool


def spans(matrix: Tensor) -> tuple[Span, ...]:
    """The rows of a matrix (outputs, inputs), each from its first entry to its last but zero."""
    found = []
    for row in matrix.tolist():
        places = [place for place, weight in enumerate(row) if weight] or [0]
        found.append((places[0], tuple(row[places[0] : places[-1] + 1])))
    return tuple(found)


def write_resample(name: str, spec: Resample, machine: Machine) -> Function:
    """void (x, y)."""
    f = Function(name, [("x", PTR), ("y", PTR)], machine.lanes)
    rows = _Axis(f, spec.rows, spec.height)
    columns = _Axis(f, spec.columns, spec.width)
    line = spec.width * machine.vector
    with f.loop(0, spec.channels) as c:
        plane = f.arg("x").at(c * (spec.height * line))
        with f.loop(0, len(spec.rows)) as h:
            base = plane.at(rows.start(h) * line)
            known = rows.weights_of(h)
            with f.loop(0, len(spec.columns)) as w:
                x = base.at(columns.start(w) * machine.vector)
                across = columns.weights_of(w)
                total = Registers([f.constant(0.0)])
                for i in rows.entries(h, total):
                    mixed = Registers([f.constant(0.0)])
                    for j in columns.entries(w, mixed):
                        value = f.load(x.at(i * line + j * machine.vector))
                        mixed[0] = f.fma(value, columns.weight(across, j), mixed[0])
                    total[0] = f.fma(mixed[0], rows.weight(known, i), total[0])
                place = ((c * len(spec.rows) + h) * len(spec.columns) + w) * machine.vector
                at = f.arg("y").at(place)
                f.store(total[0] + f.load(at) if spec.add else total[0], at)
    return f


class _Axis:
    """The tables of one axis: starts, counts, weights (a row for each output)."""

    def __init__(self, f: Function, mixes: tuple[Span, ...], entries: int) -> None:
        self.f, self.most = f, max(len(weights) for _, weights in mixes)
        self.short = self.most <= UNROLLED
        if self.short:  # all alike: zeros in front where the last would reach outside
            mixes = tuple(_filled(mix, self.most, entries) for mix in mixes)
        self.starts = table(f, I64, [start for start, _ in mixes])
        self.counts = table(f, I64, [len(weights) for _, weights in mixes])
        padded = [[*weights, *[0.0] * (self.most - len(weights))] for _, weights in mixes]
        self.weights = table(f, F32, [weight for row in padded for weight in row])

    def start(self, out: Value) -> Value:
        return self.f.load(self.starts.at(out * 8), I64, 8)

    def weights_of(self, out: Value) -> Value | list[Value]:
        """An output's weights: all of them as vectors, or, where they are many, their address."""
        row = self.weights.at(out * (4 * self.most))
        if not self.short:
            return row
        return [self.f.spread(self.f.load(row.at(4 * entry), F32)) for entry in range(self.most)]

    def weight(self, known: Value | list[Value], entry: Value | int) -> Value:
        if isinstance(known, list):
            assert isinstance(entry, int), entry
            return known[entry]
        return self.f.spread(self.f.load(known.at(entry * 4), F32))

    def entries(self, out: Value, carried: Registers) -> Iterator[Value | int]:
        """The entries that an output mixes: one by one, or in a loop that carries a sum."""
        if self.short:
            yield from range(self.most)
            return
        count = self.f.load(self.counts.at(out * 8), I64, 8)
        with self.f.loop(0, count, carry=carried) as entry:
            yield entry


def _filled(mix: Span, size: int, entries: int) -> Span:
    start, weights = mix
    first = min(start, entries - size)
    zeros = [0.0] * (start - first)
    return first, (*zeros, *weights, *[0.0] * (size - len(zeros) - len(weights)))
