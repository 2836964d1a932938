"""Winograd's convolution of a tile: forward and, with the weight turned around, its input's
gradient.

A few patches side by side are taken at a time. For each of the n rows of B' x B their transforms
are written to a scratch that stays in the nearest cache, then multiplied: a block of channels x
patches stands in registers while the channels of x go by, and what comes of it goes through A'
along the columns before it is put down. At the end A' along the rows, and whatever follows on the
way out: bias, ReLU, batch norm's sums, or 2 x 2 max pooling, whose windows no patch cuts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hubel.engine.native.emit import F32, I64, PTR, Function, Registers, Value
from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.kernels.blocks import in_blocks
from hubel.engine.native.kernels.correlate import largest_of
from hubel.engine.native.kernels.functions import relu
from hubel.engine.native.kernels.norm import add_to_sums
from hubel.engine.native.kernels.winograd import (
    Block,
    Form,
    Stretch,
    Window,
    applied,
    stretches,
)
from hubel.engine.native.machine import Machine

NEAR = 24 << 10  # bytes of the nearest cache for the transforms


@dataclass(frozen=True)
class WinogradCorrelate:
    """One shape of it: x (C_in, H, W, lanes), y (C_out, Ho, Wo, lanes).

    Attributes:
        form: the patches and the kernel.
        cin, cout: channels read and written.
        rows, columns: the two axes, without stride or dilation, read forward; with pooling their
            outputs are even in number.
        block: channels and patches at once, as `block_of` has it.
        bias, relu, add, sums, pool: as in `Correlate`.
    """

    form: Form
    cin: int
    cout: int
    rows: Axis
    columns: Axis
    block: tuple[int, int]
    bias: bool = False
    relu: bool = False
    add: bool = False
    sums: bool = False
    pool: bool = False

    @property
    def macs(self) -> int:
        """Multiply-adds of this convolution as it is defined, for one image."""
        return self.cin * self.cout * self.rows.taken * self.columns.taken

    @property
    def products(self) -> int:
        """Multiply-adds that it takes, transforms left out."""
        return self.cin * self.cout * math.prod(self.patches) * self.form.n**2

    @property
    def patches(self) -> tuple[int, int]:
        """Along the rows and along the columns."""
        return self.form.patches(self.rows, self.columns)

    def scratch(self, machine: Machine) -> int:
        """Bytes that it puts numbers down in."""
        form, (_, wide) = self.form, self.block
        return form.n * wide * (self.cin + form.patch * self.cout) * machine.vector


def block_of(form: Form, cin: int, cout: int, columns: int, machine: Machine) -> tuple[int, int]:
    """Channels and patches at once: as many as fit in registers, but no more patches than let the
    transforms of a row stay in the nearest cache."""
    held = max(1, (24 if machine.registers >= 32 else 12) // form.n)
    near = form.n * 2 * cin * machine.vector <= NEAR
    wide = 2 if held % 2 == 0 and columns > form.patch and near else 1
    return min(cout, held // wide), wide


def write_winograd_correlate(name: str, spec: WinogradCorrelate, machine: Machine) -> Function:
    """void (x, u, b, y, extra, shift, present, zeros, scratch, first row of patches, past the
    last): as `write_correlate`; u is `WinogradWeights`'."""
    pointers = ("x", "u", "b", "y", "extra", "shift", "present", "zeros", "scratch")
    arguments = [*((p, PTR) for p in pointers), ("r0", I64), ("r1", I64)]
    f = Function(name, arguments, machine.lanes)
    _Writer(f, spec, machine).write()
    return f


class _Writer:
    def __init__(self, f: Function, spec: WinogradCorrelate, machine: Machine) -> None:
        self.f, self.spec, self.machine = f, spec, machine
        self.form, self.v = spec.form, machine.vector
        self.x_plane = spec.rows.n_in * spec.columns.n_in * machine.vector
        self.seen = f.arg("scratch")
        self.found = self.seen.at(self.form.n * spec.block[1] * spec.cin * machine.vector)

    def write(self) -> None:
        f, spec, form = self.f, self.spec, self.form
        with f.loop(f.arg("r0"), f.arg("r1")) as patch:
            window = Window(f, form, spec.rows, spec.columns, patch, self.v)
            for stretch in stretches(form, spec.columns, spec.block[1], spec.patches[1]):
                with f.loop(0, stretch.count) as block:
                    first = (block * spec.block[1] + stretch.start) * form.patch
                    self._block(window, patch, first, stretch)

    def _block(self, window: Window, patch: Value, first: Value, stretch: Stretch) -> None:
        """`first`: the first column written."""
        f, spec, n = self.f, self.spec, self.form.n
        block = Block(window, stretch, first - spec.columns.padding)
        with f.loop(0, n) as row:
            for mine, lines in window.rows(row):
                with f.when(mine), f.loop(0, spec.cin) as c:
                    found = block.transformed(lines, f.arg("x").at(c * self.x_plane))
                    to = self.seen.at(c * (n * stretch.width * self.v))
                    for t, values in enumerate(found):
                        for nu, value in enumerate(values):
                            f.store(value, to.at((nu * stretch.width + t) * self.v))
            self._products(row, stretch.width)
        whole, rest = divmod(spec.rows.n_out, self.form.patch)
        if not rest:
            self._outputs(patch, first, stretch, self.form.patch)
            return
        with f.when(patch < whole):
            self._outputs(patch, first, stretch, self.form.patch)
        with f.when(patch.equals(whole)):
            self._outputs(patch, first, stretch, rest)

    # ---- the products

    def _products(self, row: Value, width: int) -> None:
        f, spec, n = self.f, self.spec, self.form.n
        for out, size in in_blocks(f, spec.cout, spec.block[0]):
            u = f.arg("u").at(out * (n * n * spec.cin * 4) + row * (n * spec.cin * size * 4))
            sums = Registers([f.constant(0.0)] * (n * size * width))
            with f.loop(0, spec.cin, carry=sums) as c:
                self._channel(sums, u.at(c * (n * size * 4)), c, size, width)
            place = (row * spec.cout + out) * (self.form.patch * width * self.v)
            self._put_down(sums, self.found.at(place), size, width)

    def _channel(self, sums: Registers, u: Value, c: Value, size: int, width: int) -> None:
        f = self.f
        seen = self.seen.at(c * (self.form.n * width * self.v))
        for nu in range(self.form.n):
            values = [f.load(seen.at((nu * width + t) * self.v)) for t in range(width)]
            for o in range(size):
                weight = f.spread(f.load(u.at((nu * size + o) * 4), F32))
                for t, value in enumerate(values):
                    slot = (nu * size + o) * width + t
                    sums[slot] = f.fma(weight, value, sums[slot])

    def _put_down(self, sums: Registers, to: Value, size: int, width: int) -> None:
        """A' along the columns."""
        f, form = self.f, self.form
        for o in range(size):
            for t in range(width):
                line = [sums[(nu * size + o) * width + t] for nu in range(form.n)]
                for c, value in enumerate(applied(f, form.output, line)):
                    f.store(_there(value), to.at(((o * width + t) * form.patch + c) * self.v))

    # ---- on the way out

    def _outputs(self, patch: Value, first: Value, stretch: Stretch, tall: int) -> None:
        """A' along the rows, of which `tall` are there, and the rest."""
        f, spec, m = self.f, self.spec, self.form.patch
        with f.loop(0, spec.cout) as o:
            bias = f.spread(f.load(f.arg("b").at(o * 4), F32)) if spec.bias else None
            sums = _Sums(self, o) if spec.sums else None
            earlier: list[Value] = []
            for c in range(sum(stretch.writes)):
                column = self._column((o * (m * stretch.width) + c) * self.v, stretch.width, tall)
                if bias is not None:
                    column = [y + bias for y in column]
                if sums is not None:
                    sums.add(column)
                if not spec.pool:
                    self._store(column, o, patch, first, c)
                elif c % 2:
                    self._store_pooled(earlier, column, o, patch, first, c // 2)
                earlier = column
            if sums is not None:
                sums.store()

    def _column(self, place: Value, width: int, tall: int) -> list[Value]:
        f, form = self.f, self.form
        apart = self.spec.cout * form.patch * width * self.v
        values = [f.load(self.found.at(place).at(k * apart)) for k in range(form.n)]
        return [_there(value) for value in applied(f, form.output, values)[:tall]]

    def _store(
        self, column: list[Value], channel: Value, patch: Value, first: Value, c: int
    ) -> None:
        f, spec = self.f, self.spec
        for r, y in enumerate(column):
            line = (channel * spec.rows.n_out + patch * self.form.patch + r) * spec.columns.n_out
            at = f.arg("y").at((line + first) * self.v).at(c * self.v)
            whole = y + f.load(at) if spec.add else y
            f.store(relu(f, whole) if spec.relu else whole, at)

    def _store_pooled(
        self, left: list[Value], right: list[Value], channel: Value, patch: Value, first: Value,
        c: int,
    ) -> None:  # fmt: skip
        f, spec = self.f, self.spec
        tall, wide = spec.rows.n_out // 2, spec.columns.n_out // 2
        for r in range(0, len(left), 2):
            four = [left[r], right[r], left[r + 1], right[r + 1]]
            largest, which = largest_of(f, four, silence=spec.relu)
            row = channel * tall + patch * (self.form.patch // 2) + r // 2
            place = row * wide + first // 2 + c
            f.store(largest, f.arg("y").at(place * self.v))
            f.store(which, f.arg("extra").at(place * self.machine.lanes))


class _Sums:
    """The two sums of a channel that batch norm asks for."""

    def __init__(self, writer: _Writer, channel: Value) -> None:
        self.f, self.machine = writer.f, writer.machine
        f = self.f
        self.shift = f.spread(f.load(f.arg("shift").at(channel * 4), F32))
        self.present = f.load(f.arg("present"))
        self.place = f.arg("extra").at(channel * (4 * writer.v))
        self.total = self.squares = f.constant(0.0)

    def add(self, values: list[Value]) -> None:
        for value in values:
            moved = (value - self.shift) * self.present
            self.total = self.total + moved
            self.squares = self.f.fma(moved, moved, self.squares)

    def store(self) -> None:
        add_to_sums(self.f, self.place, [self.total, self.squares], self.machine)


def _there(value: Value | None) -> Value:
    assert value is not None
    return value
