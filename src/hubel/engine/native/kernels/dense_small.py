"""Fully connected layers of tiles that are smaller than a vector: forward, and both ways back.

A vector holds features here, of one image; the images come as rows (`Unpack`), and weights are read
along their rows, which is how they stand in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from hubel.engine.native.emit import (
    EVERY,
    F32,
    F64,
    I64,
    PTR,
    Function,
    Registers,
    Some,
    Value,
    first_of,
    vector,
)
from hubel.engine.native.kernels.blocks import best_block, in_blocks
from hubel.engine.native.kernels.dense import Dense, row_floats
from hubel.engine.native.kernels.functions import relu
from hubel.engine.native.machine import Machine


@dataclass(frozen=True)
class DenseRows(Dense):
    """y[o] = sum over i of w[o][i] x[i] + b[o], for rows x of one tile's images.

    Attributes:
        bias, relu: what is added, what is done to it.
    """

    bias: bool
    relu: bool


def write_dense_rows(name: str, spec: DenseRows, machine: Machine) -> Function:
    """void (rows of x (lanes, padded), w, b, y (outputs, lanes))."""
    f = Function(name, [(word, PTR) for word in ("x", "w", "b", "y")], machine.floats)
    lanes, row = machine.lanes, row_floats(spec.inputs, machine) * 4
    whole, left = divmod(spec.inputs, machine.floats)
    vector = 4 * machine.floats
    for first, size in in_blocks(f, spec.outputs, machine.accumulators // lanes):
        w = f.arg("w").at(first * (spec.inputs * 4))
        sums = Registers([f.constant(0.0)] * (size * lanes))

        def products(place: Value, there: Some, w: Value = w, sums: Registers = sums) -> None:
            x = f.arg("x").at(place)
            xs = [f.load_there(x.at(n * row), there) for n in range(lanes)]
            for o in range(len(sums) // lanes):
                weights = f.load_there(w.at(place + o * spec.inputs * 4), there)
                for n in range(lanes):
                    sums[o * lanes + n] = f.fma(weights, xs[n], sums[o * lanes + n])

        with f.loop(0, whole, carry=sums) as k:
            products(k * vector, EVERY)
        if left:
            products(f.constant(whole * vector, I64), first_of(machine.floats, left))
        for slot, total in enumerate(sums):
            o, n = divmod(slot, lanes)
            y = f.lane_sum(total)
            if spec.bias:
                y = y + f.load(f.arg("b").at((first + o) * 4), F32)
            place = f.arg("y").at((first + o) * machine.vector + n * 4)
            f.store(relu(f, y) if spec.relu else y, place)
    return f


@dataclass(frozen=True)
class DenseRowsBack(Dense):
    """dx[i] (+)= sum over o of w[o][i] dy[o], for one tile; `add`: to what stands in dx."""

    add: bool


def write_dense_rows_back(name: str, spec: DenseRowsBack, machine: Machine) -> Function:
    """void (dy (outputs, lanes), w, dx (inputs, lanes))."""
    f = Function(name, [(word, PTR) for word in ("dy", "w", "dx")], machine.floats)
    lanes, vector = machine.lanes, 4 * machine.floats
    whole, left = divmod(spec.inputs, machine.floats)

    def block(start: Value, size: int, there: Some) -> None:
        sums = Registers([f.constant(0.0)] * (size * lanes))
        with f.loop(0, spec.outputs, carry=sums) as o:
            dy = f.arg("dy").at(o * machine.vector)
            slopes = [f.spread(f.load(dy.at(n * 4), F32)) for n in range(lanes)]
            for v in range(size):
                w = f.arg("w").at(o * (spec.inputs * 4) + start * vector + v * vector)
                weights = f.load_there(w, there)
                for n in range(lanes):
                    sums[v * lanes + n] = f.fma(weights, slopes[n], sums[v * lanes + n])
        for v in range(size):
            found = _woven(f, list(sums[v * lanes : (v + 1) * lanes]))
            dx = f.arg("dx").at((start + v) * (vector * lanes))
            if spec.add:
                found = found + f.load_there(dx, there, found.kind)
            f.store_there(found, dx, there)

    for start, size in in_blocks(f, whole, machine.accumulators // lanes):
        block(start, size, EVERY)
    if left:
        block(f.constant(whole, I64), 1, first_of(machine.floats, left))
    return f


def _woven(f: Function, rows: list[Value]) -> Value:
    """One vector of the first of every row, the second of every row, ..."""
    while len(rows) > 1:
        half = len(rows) // 2
        pairs = zip(rows[:half], rows[half:], strict=True)
        rows = [f.interleaved(a, b) for a, b in pairs]
    return rows[0]


@dataclass(frozen=True)
class DenseWhole(Dense):
    """The same at once for all images of a batch, each thread a part of the outputs: for batches
    so small that adding up the threads' partial gradients would take longer.

    Attributes:
        tile: bytes from one tile's memory to the next.
    """

    tile: int


def write_dense_whole(name: str, spec: DenseWhole, machine: Machine) -> Function:
    """void (rows of x (lanes, padded) and dy of the first tile, dw (outputs, inputs), images,
    first output, past the last, squared norm: |dw|^2 is added, squares in float32)."""
    arguments = [*((word, PTR) for word in ("x", "dy", "g"))]
    arguments += [*((word, I64) for word in ("n", "o0", "o1")), ("norm", PTR)]
    f, wide = Function(name, arguments, machine.floats), vector(F64, machine.floats)
    norm = Registers([f.constant(0.0, wide)])
    lanes, size_of_vector = machine.lanes, 4 * machine.floats
    row = row_floats(spec.inputs, machine) * 4
    whole, left = divmod(spec.inputs, machine.floats)
    tiles = (f.arg("n") + (lanes - 1)) // lanes

    def block(first: Value, outs: int, start: Value, size: int, there: Some) -> None:
        sums = Registers([f.constant(0.0)] * (outs * size))
        with f.loop(0, tiles, carry=sums) as tile, f.loop(0, lanes, carry=sums) as n:
            x = f.arg("x").at(tile * spec.tile + n * row + start * size_of_vector)
            dy = f.arg("dy").at(tile * spec.tile + first * machine.vector + n * 4)
            xs = [f.load_there(x.at(v * size_of_vector), there) for v in range(size)]
            for o in range(outs):
                d = f.spread(f.load(dy.at(o * machine.vector), F32))
                for v in range(size):
                    sums[o * size + v] = f.fma(d, xs[v], sums[o * size + v])
        norm[0] = norm[0] + f.convert("fpext", _sum([total * total for total in sums]), wide)
        for o in range(outs):
            g = f.arg("g").at((first + o) * (spec.inputs * 4) + start * size_of_vector)
            for v in range(size):
                f.store_there(sums[o * size + v], g.at(v * size_of_vector), there)

    ob, vb = best_block(spec.outputs, max(whole, 1), machine.accumulators)
    last = (f.arg("o1") - f.arg("o0")) // ob * ob + f.arg("o0")
    for outs, low, high in ((ob, f.arg("o0"), last), (1, last, f.arg("o1"))):
        with f.loop(low, high, outs, norm) as first:
            for start, size in in_blocks(f, whole, vb, norm):
                block(first, outs, start, size, EVERY)
            if left:
                block(first, outs, f.constant(whole, I64), 1, first_of(machine.floats, left))
    f.store(f.load(f.arg("norm"), F64, 8) + f.lane_sum(norm[0]), f.arg("norm"), 8)
    return f


def _sum(values: list[Value]) -> Value:
    """In pairs, so that no sum waits for all before it."""
    while len(values) > 1:
        pairs = zip(values[::2], values[1::2], strict=False)
        values = [a + b for a, b in pairs] + values[len(values) // 2 * 2 :]
    return values[0]
