"""The convolution's other way back: the gradient of its weight.

    dw[o][i][kh][kw] = sum over images, h, w of  dy[o][h][w] x[i][row(h, kh)][column(w, kw)]

A block of weights stands in registers, each as a vector whose lanes are the partial sums of as many
images. Each thread adds to sums of its own, `g`: as vectors (C_out, C_in / groups, KH, KW, lanes)
where there are few weights, else added up over the lanes at once, block after block as they are met
(`packing` says which weight stands where).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from hubel.engine.native.emit import F32, I32, I64, PTR, Function, Registers, Value, vector
from hubel.engine.native.kernels.axis import Axis, Run, runs
from hubel.engine.native.kernels.blocks import LATENCY, PER_CYCLE, in_blocks, parts
from hubel.engine.native.kernels.correlate import over_columns
from hubel.engine.native.machine import Machine

SIDE = 4  # columns that are taken in one turn
LOAD = 3.0  # what a load counts, next to a product
NEAR = 24 << 10  # bytes of the nearest cache for rows of both maps
FEW = 96  # products in a sum, at least, before it is put down


@dataclass(frozen=True)
class WeightGradient:
    """One shape of it; strides of maps in bytes, as in `Correlate`.

    Attributes:
        cin, cout: channels of a group, read forward and written forward.
        packed: add up over the lanes at once.
        half: both maps hold pairs of bfloat16, two rows each (`kernels/halves.py`), and the axis of
            the rows counts pairs.
    """

    cin: int
    cout: int
    groups: int
    rows: Axis
    columns: Axis
    x_plane: int
    x_row: int
    y_plane: int
    y_row: int
    packed: bool
    half: bool = False

    @property
    def macs(self) -> int:
        """Multiply-adds for one image, those with padding left out."""
        pairs = 2 if self.half else 1
        return pairs * self.groups * self.cin * self.cout * self.rows.taken * self.columns.taken


def block_of(spec: WeightGradient, machine: Machine) -> tuple[int, int]:
    """Channels out and in of a block: as few loads for a product as fit in the registers."""
    taps, most = spec.columns.kernel, machine.accumulators
    best, least = (1, 1), float("inf")
    for o in range(1, spec.cout + 1):
        for i in range(1, spec.cin + 1):
            if o * i * taps > most and (o, i) != (1, 1):
                break
            cost = 0.0
            for p, n in parts(spec.cout, o):
                for q, m in parts(spec.cin, i):
                    side = side_by_side(p, q, taps, machine)
                    loads = p + q * (taps + side - 1) / side
                    cost += n * m * (max(p * q * taps, PER_CYCLE * LATENCY) + LOAD * loads)
            if cost < least:
                best, least = (o, i), cost
    return best


def side_by_side(outs: int, ins: int, taps: int, machine: Machine) -> int:
    """How many columns of a block are taken in one turn: several, whose inputs are mostly the same,
    where those can stay in registers."""
    held = outs * ins * taps + outs + ins * (taps + 1)
    return SIDE if held <= machine.registers else 1


def blocks(spec: WeightGradient, machine: Machine) -> Iterator[tuple[int, int, int, int, int]]:
    """(group, first out, how many, first in, how many), in the kernel's own order."""
    o, i = block_of(spec, machine)
    for group in range(spec.groups):
        for first_out in range(0, spec.cout, o):
            for first_in in range(0, spec.cin, i):
                yield (
                    group, first_out, min(o, spec.cout - first_out),
                    first_in, min(i, spec.cin - first_in),
                )  # fmt: skip


def packed_size(block: tuple[int, int], spec: WeightGradient, machine: Machine) -> int:
    """Floats that one packed block of one kernel row takes: whole vectors."""
    sums = block[0] * block[1] * spec.columns.kernel
    return -(-sums // machine.lanes) * machine.lanes


@functools.cache
def packing(spec: WeightGradient, machine: Machine) -> tuple[int, ...]:
    """For each weight, in PyTorch's order, its place in `g`, packed."""
    kh, kw = spec.rows.kernel, spec.columns.kernel
    where = [0] * (spec.groups * spec.cout * spec.cin * kh * kw)
    start = 0
    for group, out, outs, first, ins in blocks(spec, machine):
        for row in range(kh):
            for o in range(outs):
                for i in range(ins):
                    for k in range(kw):
                        slot = (o * ins + i) * kw + k
                        channel = (group * spec.cout + out + o) * spec.cin + first + i
                        where[(channel * kh + row) * kw + k] = start + slot
            start += packed_size((outs, ins), spec, machine)
    return tuple(where)


@functools.cache
def packed_floats(spec: WeightGradient, machine: Machine) -> int:
    """Floats of the whole packed sum."""
    return sum(
        spec.rows.kernel * packed_size((outs, ins), spec, machine)
        for _, _, outs, _, ins in blocks(spec, machine)
    )


def write_weight_gradient(name: str, spec: WeightGradient, machine: Machine) -> Function:
    """void (x, dy, g, first row, past the last row), rows of dy."""
    arguments = [("x", PTR), ("dy", PTR), ("g", PTR), ("r0", I64), ("r1", I64)]
    f = Function(name, arguments, machine.lanes)
    _Writer(f, spec, machine).write()
    return f


class _Writer:
    def __init__(self, f: Function, spec: WeightGradient, machine: Machine) -> None:
        self.f, self.spec, self.machine = f, spec, machine
        side_by_side = spec.columns.stride == 1 and spec.columns.n_out > 1 and not spec.half
        self.wide = machine.wide if side_by_side else 1
        self.vec = vector(F32, self.wide * machine.lanes)

    def write(self) -> None:
        f, spec = self.f, self.spec
        ob, ib = block_of(spec, self.machine)
        kh = spec.rows.kernel
        packed_out = sum(  # bytes of the packed sums of one block of outputs
            n * kh * 4 * packed_size((ob, s), spec, self.machine) for s, n in parts(spec.cin, ib)
        )
        group_bytes = packed_floats(spec, self.machine) // spec.groups * 4
        with f.loop(0, spec.groups) as group:
            x = f.arg("x").at(group * (spec.cin * spec.x_plane))
            dy = f.arg("dy").at(group * (spec.cout * spec.y_plane))
            for out, size in in_blocks(f, spec.cout, ob):
                packed = group * group_bytes + out // ob * packed_out
                self._inputs(group, out, size, ib, x, dy, packed)

    def _inputs(
        self, group: Value, out: Value, outs: int, ib: int, x: Value, dy: Value, packed: Value
    ) -> None:
        f, spec = self.f, self.spec
        done = before = 0
        for size, count in parts(spec.cin, ib):
            each = packed_size((outs, size), spec, self.machine) * 4
            with f.loop(0, count) as number:
                first = number * size + done
                mine = x.at(first * spec.x_plane), dy.at(out * spec.y_plane)
                with self._near(outs, size) as (low, high), f.loop(0, spec.rows.kernel) as kh:
                    count_of = outs * size * spec.columns.kernel
                    sums = Registers([f.constant(0.0, self.vec)] * count_of)
                    self._rows(sums, *mine, kh, low, high, outs, size)
                    sums[:] = [over_columns(f, one, self.wide) for one in sums]
                    if spec.packed:
                        place = packed + before + (number * spec.rows.kernel + kh) * each
                        self._add_packed(sums, place)
                    else:
                        self._add_lanes(sums, group, out, first, kh, outs, size)
            done += size * count
            before += each * count * spec.rows.kernel

    @contextlib.contextmanager
    def _near(self, outs: int, ins: int) -> Iterator[tuple[Value, Value]]:
        """Some rows at a time, from and to: each of the kernel's reads them again, from the nearest
        cache. More than fit there where the sums would be put down too often, or not one does."""
        f, spec = self.f, self.spec
        row = (outs * spec.columns.n_out + ins * spec.columns.n_in) * self.machine.vector
        many = max(NEAR // row, FEW // spec.columns.n_out, 1)
        if many >= spec.rows.n_out:
            yield f.arg("r0"), f.arg("r1")
            return
        with f.loop(f.arg("r0"), f.arg("r1"), many) as low:
            yield low, f.as_value(f.smaller(low + many, f.arg("r1")), I64)

    def _rows(
        self, sums: Registers, x: Value, dy: Value, kh: Value, r0: Value, r1: Value, outs: int,
        ins: int,
    ) -> None:  # fmt: skip
        f, spec, axis = self.f, self.spec, self.spec.rows
        shift = kh * axis.dilation - axis.padding  # row read = h S + shift
        s = axis.stride
        low = f.larger(r0, (f.larger(0, 0 - shift) + (s - 1)) // s)
        high = f.smaller(r1, (f.larger(0, axis.n_in - shift) + (s - 1)) // s)
        with f.loop(low, high, carry=sums) as h:
            line = x.at((h * s + shift) * spec.x_row)
            mine = dy.at(h * spec.y_row)
            side = side_by_side(outs, ins, spec.columns.kernel, self.machine)
            for run in runs(spec.columns, side, wide=self.wide):
                with f.loop(0, run.count, carry=sums) as w:
                    self._products(
                        sums,
                        line.at((w * run.step + run.base) * self.machine.vector),
                        mine.at((w * (self.wide * run.width) + run.start) * self.machine.vector),
                        run, outs, ins,
                    )  # fmt: skip

    def _products(
        self, sums: Registers, x: Value, dy: Value, run: Run, outs: int, ins: int
    ) -> None:
        f, spec, step = self.f, self.spec, self.wide * self.machine.vector
        multiply, kind = (f.dot2, vector(I32, f.lanes)) if spec.half else (f.fma, self.vec)
        for column, (reads, there) in enumerate(zip(run.reads, run.outputs, strict=True)):
            places = [dy.at(o * spec.y_plane + column * step) for o in range(outs)]
            slopes = [f.load_there(place, there, kind) for place in places]
            for i in range(ins):
                for k, read in enumerate(reads):
                    if read is None:
                        continue
                    at = x.at(i * spec.x_plane + read.place * self.machine.vector)
                    value = f.load_there(at, read.there, kind)
                    for o, slope in enumerate(slopes):
                        slot = (o * ins + i) * len(reads) + k
                        sums[slot] = multiply(slope, value, sums[slot])

    def _add_lanes(
        self,
        sums: Registers,
        group: Value,
        out: Value,
        first: Value,
        kh: Value,
        outs: int,
        ins: int,
    ) -> None:
        f, spec = self.f, self.spec
        taps = spec.columns.kernel
        for o in range(outs):
            for i in range(ins):
                channel = ((group * spec.cout + out) + o) * spec.cin + first + i
                row = (channel * spec.rows.kernel + kh) * taps
                for k in range(taps):
                    place = f.arg("g").at((row + k) * self.machine.vector)
                    f.store(f.load(place) + sums[(o * ins + i) * taps + k], place)

    def _add_packed(self, sums: Registers, place: Value) -> None:
        f, lanes = self.f, self.machine.lanes
        for start in range(0, len(sums), lanes):
            some = list(sums[start : start + lanes])
            some += [f.constant(0.0)] * (lanes - len(some))
            at = f.arg("g").at(place + start * 4)
            f.store(f.load(at) + folded(f, some), at)


def folded(f: Function, vectors: list[Value]) -> Value:
    """As many vectors as lanes, each added up over its lanes: one vector, in their order."""
    lanes = f.lanes
    while len(vectors) > 1:
        even = list(range(0, 2 * lanes, 2))
        odd = list(range(1, 2 * lanes, 2))
        vectors = [
            f.shuffle(a, b, even) + f.shuffle(a, b, odd)
            for a, b in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    return vectors[0]
