"""The convolution's kernel, forward and, read backwards, the gradient of its input.

    y[o][h][w] = sum over i, kh, kw of  weight[o][i][kh][kw] x[i][row(h, kh)][column(w, kw)]

for one tile of images, one to a lane: x (C_in, H, W, lanes), y (C_out, Ho, Wo, lanes). `Axis` says
which row and column a tap reads; with its transpose and the weight's axes exchanged the same kernel
is the input's gradient, and the forward pass of a transposed convolution. A fully connected layer
is a convolution of kernel 1 over a map of one row, whose columns are the tiles that are at work.

Tiles smaller than a vector hold several neighbouring columns of y in one, where there is no stride;
what a tap reads of them outside of the map is masked.

A block of channels x columns of y stands in registers while the taps go by; weights are read one by
one from PyTorch's own array and spread over the lanes. What follows is done on the way out: bias,
ReLU, the sums that batch norm asks for, or 2 x 2 max pooling, in which case y is the pooled map.
"""

from __future__ import annotations

from dataclasses import dataclass

from hubel.engine.native.emit import (
    F32,
    I8,
    I32,
    I64,
    PTR,
    Function,
    Registers,
    Some,
    Value,
    lanes_of,
    vector,
)
from hubel.engine.native.kernels.axis import LIFT, Axis, Run, runs, taps_inside
from hubel.engine.native.kernels.blocks import best_block, in_blocks
from hubel.engine.native.kernels.functions import beats, relu
from hubel.engine.native.kernels.norm import add_to_sums
from hubel.engine.native.machine import Machine


@dataclass(frozen=True)
class Correlate:
    """One shape of it. Strides of the weight count elements, those of maps bytes.

    Attributes:
        cin, cout: channels of a group, read and written.
        groups: how many groups.
        rows, columns: the two axes.
        w_out, w_in: elements from one output's (input's) weights to the next.
        x_plane, x_row, x_column: bytes from channel to channel, row to row, column to column.
        y_plane, y_row, y_column: the same of what is written (of the pooled map with `pool`).
        bias, relu: what is added, what is done to it.
        add: add to what stands in y.
        sums: also add up y and y^2 of each channel.
        pool: write the largest of each 2 x 2 and which it was.
        half: x and the weight hold pairs of bfloat16, two input channels each (`halves.py`);
            `cin` and the strides of the weight count pairs.
    """

    cin: int
    cout: int
    groups: int
    rows: Axis
    columns: Axis
    w_out: int
    w_in: int
    x_plane: int
    x_row: int
    x_column: int
    y_plane: int
    y_row: int
    y_column: int
    bias: bool = False
    relu: bool = False
    add: bool = False
    sums: bool = False
    pool: bool = False
    half: bool = False

    @property
    def macs(self) -> int:
        """Multiply-adds for one image, those with padding left out."""
        pairs = 2 if self.half else 1
        return pairs * self.groups * self.cin * self.cout * self.rows.taken * self.columns.taken


MOST = 20  # sums in a block: with more, weights and inputs go to memory and back


def write_correlate(name: str, spec: Correlate, machine: Machine) -> Function:
    """void (x, w, b, y, extra, shift, present, zeros, first row, past the last row), rows of y.

    `extra` takes the sums (2 vectors of f64 a channel), counted from `shift`, of the lanes that are
    `present` (1, else 0); or, with `pool`, a byte a lane: 0 to 3, which of the four was largest,
    4 where ReLU silenced them all. `zeros` is a row of zeros.
    """
    pointers = ("x", "w", "b", "y", "extra", "shift", "present", "zeros")
    arguments = [*((p, PTR) for p in pointers), ("r0", I64), ("r1", I64)]
    f = Function(name, arguments, machine.lanes)
    PlainWriter(f, spec, machine).write()
    return f


class PlainWriter:
    """Writes the kernel; others that end as it does take its `finish`."""

    def __init__(self, f: Function, spec: Correlate, machine: Machine) -> None:
        self.f, self.spec, self.machine = f, spec, machine
        self.tall = 2 if spec.pool else 1
        columns = spec.columns.n_out // self.tall * self.tall
        side_by_side = spec.columns.stride == 1 and spec.x_column == spec.y_column == machine.vector
        self.wide = machine.wide if side_by_side and columns > 1 and not spec.half else 1
        self.vec = vector(F32, self.wide * machine.lanes)
        multiple = self.tall * (spec.columns.phases if spec.columns.n_out > 1 else 1)
        self.ob, self.wb = best_block(
            spec.cout, -(-columns // self.wide), min(machine.accumulators, MOST), held=self.tall,
            multiple=multiple if self.wide == 1 else 1,
        )  # fmt: skip
        self.runs = runs(spec.columns, self.wb, columns, self.wide)

    def write(self) -> None:
        f, rows = self.f, self.spec.rows
        with f.loop(f.arg("r0"), f.arg("r1")) as row:
            if rows.phases == 1:
                self._row(row, 0)
                return
            for phase in range(rows.phases):
                with f.when((row % rows.phases).equals(phase)):
                    self._row(row, phase)

    def _row(self, row: Value, phase: int) -> None:
        f, spec = self.f, self.spec
        group_weights = spec.cout * spec.cin * spec.rows.kernel * spec.columns.kernel * 4
        with f.loop(0, spec.groups) as group:
            w = f.arg("w").at(group * group_weights)
            x = f.arg("x").at(group * (spec.cin * spec.x_plane))
            for first, size in in_blocks(f, spec.cout, self.ob):
                mine, channel = w.at(first * (spec.w_out * 4)), group * spec.cout + first
                for run in self.runs:
                    with f.loop(0, run.count) as block:
                        self._block(row, phase, x, mine, channel, size, run, block)

    # ---- one block

    def _block(
        self, row: Value, phase: int, x: Value, w: Value, channel: Value, size: int, run: Run,
        block: Value,
    ) -> None:  # fmt: skip
        f, spec = self.f, self.spec
        held = self.tall * run.width
        sums = Registers()
        for i in range(size):
            start = f.constant(0.0, self.vec)
            if spec.bias:
                b = f.load(f.arg("b").at((channel + i) * 4), F32)
                start = f.spread(b, lanes_of(self.vec))
            sums.extend([start] * held)
        x = x.at(block * (run.step * spec.x_column) + run.base * spec.x_column)
        first, many, low, high, source = self._taps(row, phase)
        with f.loop(0, spec.cin, carry=sums) as ic:
            plane, weights = x.at(ic * spec.x_plane), w.at(ic * (spec.w_in * 4))
            with f.loop(low, high, carry=sums) as t:
                kh = (t * many + first) * (spec.columns.kernel * 4)
                lines = [self._line(plane, source(t, r)) for r in range(self.tall)]
                self._products(sums, lines, weights.at(kh), size, run)
        self.finish(sums, row, channel, size, run, block)

    def _products(self, sums: Registers, lines: list[Value], w: Value, size: int, run: Run) -> None:
        f, spec = self.f, self.spec
        multiply, kind = (f.dot2, vector(I32, f.lanes)) if spec.half else (f.fma, self.vec)
        for k in range(spec.columns.kernel):
            if all(reads[k] is None for reads in run.reads):
                continue
            word, lanes = I32 if spec.half else F32, lanes_of(kind)
            weights = [
                f.spread(f.load(w.at((i * spec.w_out + k) * 4), word), lanes) for i in range(size)
            ]
            for r, line in enumerate(lines):
                for j, reads in enumerate(run.reads):
                    read = reads[k]
                    if read is None:
                        continue
                    value = f.load_there(line.at(read.place * spec.x_column), read.there, kind)
                    for i, weight in enumerate(weights):
                        slot = (i * self.tall + r) * run.width + j
                        sums[slot] = multiply(weight, value, sums[slot])

    def _taps(self, row: Value, phase: int):  # type: ignore[no-untyped-def]
        """The kernel rows at work: first, distance, from, to, and the input row of each."""
        f, axis = self.f, self.spec.rows
        taps = axis.taps(phase)
        first = taps[0] if taps else 0
        apart = taps[1] - taps[0] if len(taps) > 1 else axis.stride
        if axis.transposed:
            # place(t) = (row + P - first D) / S - t (apart D / S); kept positive for the division
            lift = axis.kernel * axis.dilation
            base = (
                row + (axis.padding - first * axis.dilation + lift * axis.stride)
            ) // axis.stride - lift
            down = apart * axis.dilation // axis.stride
            low = f.larger(0, ((base - axis.n_in + down) + LIFT * down) // down - LIFT)
            high = f.smaller(len(taps), (base + down + LIFT * down) // down - LIFT)
            return first, apart, low, high, lambda t, r: base - t * down
        base = row * (axis.stride * self.tall) - axis.padding
        d = axis.dilation
        if self.tall > 1:
            return first, apart, 0, len(taps), lambda t, r: base + t * d + r * axis.stride
        return first, apart, *taps_inside(f, axis, base), lambda t, r: base + t * d

    def _line(self, plane: Value, source: Value) -> Value:
        """A row of x; of zeros where one row of a pooled pair reads outside."""
        f, spec = self.f, self.spec
        line = plane.at(source * spec.x_row)
        if self.tall == 1 or spec.rows.inside:
            return line
        inside = (source > -1) & (source < spec.rows.n_in)
        return f.select(inside, line, f.arg("zeros"))

    # ---- on the way out

    def finish(
        self, sums: Registers, row: Value, channel: Value, size: int, run: Run, block: Value
    ) -> None:
        """Bias is in the sums: what follows it, and where they go."""
        f, spec = self.f, self.spec
        column = block * (run.width * self.wide) + run.start
        for i in range(size):
            mine = channel + i
            if spec.pool:
                self._pooled(
                    sums[i * 2 * run.width : (i + 1) * 2 * run.width], row, mine, run, column
                )
                continue
            place = mine * spec.y_plane + row * spec.y_row + column * spec.y_column
            values = sums[i * run.width : (i + 1) * run.width]
            if spec.sums:
                self._add_sums(values, run.outputs, mine)
            for j, (value, there) in enumerate(zip(values, run.outputs, strict=True)):
                at = f.arg("y").at(place + j * self.wide * spec.y_column)
                whole = value + f.load_there(at, there, self.vec) if spec.add else value
                f.store_there(relu(f, whole) if spec.relu else whole, at, there)

    def _add_sums(self, values: list[Value], outputs: tuple[Some, ...], channel: Value) -> None:
        f = self.f
        shift = f.spread(f.load(f.arg("shift").at(channel * 4), F32), lanes_of(self.vec))
        present = f.repeated(f.load(f.arg("present")), self.wide)
        total = squares = f.constant(0.0, self.vec)
        for value, there in zip(values, outputs, strict=True):
            moved = (value - shift) * present
            if not all(there):
                moved = f.select(f.mask(there, lanes_of(self.vec)), moved, 0.0)
            total, squares = total + moved, f.fma(moved, moved, squares)
        place = f.arg("extra").at(channel * (4 * self.machine.vector))
        found = [over_columns(f, one, self.wide) for one in (total, squares)]
        add_to_sums(f, place, found, self.machine)

    def _pooled(
        self, values: list[Value], row: Value, channel: Value, run: Run, column: Value
    ) -> None:
        f, spec = self.f, self.spec
        rows = []
        for r in (0, 1):
            vectors = values[r * run.width : (r + 1) * run.width]
            rows.append([one for value in vectors for one in f.pieces(value, self.wide)])
        for j in range(0, sum(map(sum, run.outputs)), 2):
            four = [rows[r][j + c] for r in (0, 1) for c in (0, 1)]
            largest, which = largest_of(f, four, silence=spec.relu)
            place = (
                channel * spec.y_plane + row * spec.y_row + (column // 2 + j // 2) * spec.y_column
            )
            f.store(largest, f.arg("y").at(place))
            f.store(which, f.arg("extra").at(place // 4))


def over_columns(f: Function, value: Value, wide: int) -> Value:
    """The sum of a vector's columns, one number for each image."""
    pieces = f.pieces(value, wide)
    while len(pieces) > 1:
        pieces = [a + b for a, b in zip(pieces[::2], pieces[1::2], strict=True)]
    return pieces[0]


def largest_of(f: Function, values: list[Value], silence: bool) -> tuple[Value, Value]:
    """The largest of some vectors lane by lane, and which it was, as bytes.

    NaN wins, as in PyTorch; of equal ones the first. With `silence` the result goes through ReLU,
    and where that gives 0 "which" is len(values).
    """
    largest, which = values[0], f.constant(0, vector(I32, f.lanes))
    for number, value in enumerate(values[1:], start=1):
        wins = beats(f, value, largest)
        largest = f.select(wins, value, largest)
        which = f.select(wins, f.constant(number, which.kind), which)
    if silence:
        off = largest <= 0.0
        which = f.select(off, f.constant(len(values), which.kind), which)
        largest = relu(f, largest)
    return largest, f.convert("trunc", which, vector(I8, f.lanes))
