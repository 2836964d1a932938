"""Convolution by matrices in registers: see `kernels/amx.py`.

The map is first put down as pairs of bfloat16, (rows, columns, pairs of channels, images) with its
padding, so that what a row of the kernel reads at one pixel stands together: `AmxMap`. Each matrix
on the left holds weights of up to 16 output channels for a part of such a row, each on the right
what that part reads.
"""

from __future__ import annotations

from dataclasses import dataclass

from hubel.engine.native.emit import F32, I64, PTR, Function, Registers, Value
from hubel.engine.native.kernels.amx import SIDE, Matrices, evenly, zeros
from hubel.engine.native.kernels.axis import Axis, Run
from hubel.engine.native.kernels.blocks import parts
from hubel.engine.native.kernels.correlate import Correlate, PlainWriter
from hubel.engine.native.kernels.halves import paired
from hubel.engine.native.machine import Machine

HELD = 4  # matrices of sums at work: pixels side by side


def span(axis: Axis) -> int:
    """How many places the outputs read, padding included."""
    return (axis.n_out - 1) * axis.stride + axis.kernel


@dataclass(frozen=True)
class AmxMap:
    """y[h][w][p] = (x[2 p], x[2 p + 1]) at (h - padding, w - padding), 0 outside; then SIDE more
    vectors of zeros, since a kernel reads whole matrices."""

    channels: int
    rows: Axis
    columns: Axis

    @property
    def pairs(self) -> int:
        return -(-self.channels // 2)

    @property
    def vectors(self) -> int:
        """Those of y."""
        return span(self.rows) * span(self.columns) * self.pairs + SIDE


def write_amx_map(name: str, spec: AmxMap, machine: Machine) -> Function:
    """void (x, y)."""
    f = Function(name, [("x", PTR), ("y", PTR)], machine.lanes)
    y, v = f.arg("y"), machine.vector
    pixel = spec.pairs * v
    rows, columns = spec.rows, spec.columns
    tall, wide = span(rows), span(columns)
    there = [min(a.n_in, span(a) - a.padding) for a in (rows, columns)]
    above, left = rows.padding, columns.padding
    below, right = tall - above - there[0], wide - left - there[1]
    zeros(f, y, above * wide * spec.pairs)
    with f.loop(0, there[0]) as h:
        line = y.at((h + above) * (wide * pixel))
        zeros(f, line, left * spec.pairs)
        for whole in (True, False):
            with f.loop(*_pairs(spec.channels, whole)) as p:
                plane = rows.n_in * columns.n_in * v
                mine = f.arg("x").at(p * (2 * plane) + h * (columns.n_in * v))
                with f.loop(0, there[1]) as w:
                    one = f.load(mine.at(w * v))
                    other = f.load(mine.at(w * v + plane)) if whole else f.constant(0.0)
                    f.store(paired(f, one, other), line.at((w + left) * pixel + p * v))
        zeros(f, line.at((wide - right) * pixel), right * spec.pairs)
    zeros(f, y.at((tall - below) * (wide * pixel)), below * wide * spec.pairs + SIDE)
    return f


def _pairs(channels: int, whole: bool) -> tuple[int, int]:
    """From, to: the whole pairs of so many channels, or the half one at the end."""
    return (0, channels // 2) if whole else (channels // 2, -(-channels // 2))


@dataclass(frozen=True)
class AmxWeights:
    """A convolution's weight (out, inside, kernel, kernel) as matrices on the left.

    Attributes:
        back: for the way back: channels change places, and the kernel is turned around.
    """

    out: int
    inside: int
    kernel: int
    back: bool

    @property
    def outer(self) -> int:
        """Channels that the kernel writes."""
        return self.inside if self.back else self.out

    @property
    def pairs(self) -> int:
        """Of channels that it reads."""
        return -(-(self.out if self.back else self.inside) // 2)

    @property
    def blocks(self) -> tuple[int, int]:
        """Blocks of outer channels, and how many are in one."""
        return evenly(self.outer)

    @property
    def depths(self) -> tuple[int, int]:
        """Parts of what a row of the kernel reads, and the pairs in one."""
        return evenly(self.kernel * self.pairs)

    @property
    def floats(self) -> int:
        (blocks, tall), (count, deep) = self.blocks, self.depths
        return blocks * self.kernel * count * tall * deep


def write_amx_weights(name: str, spec: AmxWeights, machine: Machine) -> Function:
    """void (w, y, first outer channel, past the last). What is no weight stays as it stands: 0."""
    f = Function(name, [("w", PTR), ("y", PTR), ("i0", I64), ("i1", I64)], machine.lanes)
    (_, tall), (count, deep), k = spec.blocks, spec.depths, spec.kernel
    read = spec.out if spec.back else spec.inside
    apart = spec.inside * k * k if spec.back else k * k  # from one channel that is read to the next
    with f.loop(f.arg("i0"), f.arg("i1")) as o, f.loop(0, k) as row, f.loop(0, k) as column:
        tap = (k - 1 - row) * k + (k - 1 - column) if spec.back else row * k + column
        start = (o * (k * k) if spec.back else o * (spec.inside * k * k)) + tap
        for whole in (True, False):
            with f.loop(*_pairs(read, whole)) as p:
                at = f.arg("w").at((start + p * (2 * apart)) * 4)
                one = f.load(at, F32)
                other = f.load(at.at(4 * apart), F32) if whole else f.constant(0.0, F32)
                place = column * spec.pairs + p
                matrix = ((o // tall) * k + row) * count + place // deep
                to = (matrix * tall + o % tall) * deep + place % deep
                f.store(paired(f, one, other), f.arg("y").at(to * 4))
    return f


@dataclass(frozen=True)
class AmxCorrelate:
    """The same as `plain`, which has neither groups nor dilation, from an `AmxMap`."""

    plain: Correlate
    weights: AmxWeights

    @property
    def macs(self) -> int:
        """Multiply-adds for one image, those with padding left out."""
        return self.plain.macs


def write_amx_correlate(name: str, spec: AmxCorrelate, machine: Machine) -> Function:
    """void (x, u, b, y, extra, shift, present, scratch of HELD matrices, first row, past the last):
    as `write_correlate`; u is `AmxWeights`'."""
    pointers = ("x", "u", "b", "y", "extra", "shift", "present", "scratch")
    arguments = [*((p, PTR) for p in pointers), ("r0", I64), ("r1", I64)]
    f = Function(name, arguments, machine.lanes)
    _Writer(f, spec, machine).write()
    return f


class _Writer(PlainWriter):
    def __init__(self, f: Function, spec: AmxCorrelate, machine: Machine) -> None:
        super().__init__(f, spec.plain, machine)
        self.weights = spec.weights
        (self.blocks, self.high), (self.count, self.deep) = self.weights.blocks, self.weights.depths
        self.matrices = Matrices(f, self.high, self.deep, HELD, machine.vector)

    def write(self) -> None:
        f, columns = self.f, self.spec.columns
        total = columns.n_out // self.tall * self.tall
        with f.loop(f.arg("r0"), f.arg("r1")) as row:
            before = 0
            for width, many in parts(total, HELD // self.tall):
                run = Run(before, many, width, 0, 0, (), ((True,),) * width)
                with f.loop(0, many) as block, f.loop(0, self.blocks) as number:
                    self._matrices(row, number, run, block)
                before += width * many
        self.matrices.leave()

    def _matrices(self, row: Value, number: Value, run: Run, block: Value) -> None:
        f, spec, kernel, v = self.f, self.spec, self.weights.kernel, self.machine.vector
        pixel = self.weights.pairs * v
        line, step = span(spec.columns) * pixel, spec.columns.stride * pixel
        corner = row * (self.tall * spec.rows.stride * line)
        corner = corner + (block * run.width + run.start) * step
        for n in range(self.tall * run.width):
            self.matrices.clear(n)
        with f.loop(0, kernel) as k, f.loop(0, self.count) as part:
            matrix = (number * kernel + k) * self.count + part
            self.matrices.left(f.arg("u").at(matrix * (self.high * self.deep * 4)), 4 * self.deep)
            x = f.arg("x").at(corner + k * line + part * (self.deep * v))
            for r in range(self.tall):
                for j in range(run.width):
                    place = x.at(r * spec.rows.stride * line + j * step)
                    self.matrices.add(r * run.width + j, place)
        for n in range(self.tall * run.width):
            self.matrices.put(n, f.arg("scratch").at(n * (SIDE * v)))
        self._channels(row, number, run, block)

    def _channels(self, row: Value, number: Value, run: Run, block: Value) -> None:
        """On the way out: channel after channel of the matrices, as the plain kernel ends."""
        f, first, v = self.f, number * self.high, self.machine.vector
        with f.loop(0, f.smaller(self.high, self.spec.cout - first)) as m:
            sums = Registers()
            for n in range(self.tall * run.width):
                value = f.load(f.arg("scratch").at(n * (SIDE * v) + m * v))
                if self.spec.bias:
                    value = value + f.load(f.arg("b").at((first + m) * 4), F32)
                sums.append(value)
            self.finish(sums, row, first + m, 1, run, block)
