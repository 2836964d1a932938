"""The gradient of the weight of Winograd's convolution, before its last transform.

For each of the n n places of a patch, the products of A dY A' and B' x B are summed over the
patches of the tile and over its images: a matrix of channels out x in. `Reduce` turns the n n
matrices into the gradient of the weight, once a step.

Some rows of patches are taken at a time, and of their transforms one row; so many that the sums
over the lanes, at the end of each block, do not weigh, and so few that all stays in the core's own
cache.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from hubel.engine.native.emit import I64, PTR, Function, Registers, Value
from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.kernels.blocks import in_blocks
from hubel.engine.native.kernels.weight_gradient import folded
from hubel.engine.native.kernels.winograd import (
    Block,
    Form,
    Line,
    Window,
    added,
    applied,
    chosen,
    stretches,
    turned,
)
from hubel.engine.native.machine import Machine

TOGETHER = 32  # patches whose transforms are made before they are multiplied, about
WIDTH = 8  # columns of patches of x that are transformed side by side


@dataclass(frozen=True)
class WinogradGradient:
    """One shape of it: form, channels and axes as in `WinogradCorrelate`."""

    form: Form
    cin: int
    cout: int
    rows: Axis
    columns: Axis

    @property
    def macs(self) -> int:
        """Multiply-adds of this gradient as it is defined, for one image."""
        return self.cin * self.cout * self.rows.taken * self.columns.taken

    @property
    def products(self) -> int:
        """Multiply-adds that it takes, transforms left out."""
        return self.cin * self.cout * math.prod(self.patches) * self.form.n**2

    @property
    def patches(self) -> tuple[int, int]:
        """Along the rows and along the columns."""
        return self.form.patches(self.rows, self.columns)

    @property
    def together(self) -> int:
        """Rows of patches that are transformed together."""
        return together(*self.patches)

    def scratch(self, machine: Machine) -> int:
        """Bytes that it puts numbers down in."""
        patches = self.together * self.patches[1]
        return self.form.n * patches * (self.cin + self.cout) * machine.vector


def together(tall: int, wide: int) -> int:
    """How many rows of so many patches are transformed together."""
    return max(1, min(tall, TOGETHER // wide))


def block_of(machine: Machine) -> tuple[int, int]:
    """Channels out and in of a block: as many as a vector has lanes."""
    out = {16: 4, 8: 2, 4: 2, 2: 1}[machine.lanes]
    return out, machine.lanes // out


def _blocks(spec: WinogradGradient, machine: Machine) -> list[tuple[int, int, int, int, int]]:
    """(first out, how many, first in, how many, place in `g`), one after the other."""
    a, b = block_of(machine)
    found, place = [], 0
    for out in range(0, spec.cout, a):
        for first in range(0, spec.cin, b):
            found.append((out, min(a, spec.cout - out), first, min(b, spec.cin - first), place))
            place += machine.lanes
    return found


@functools.cache
def pairs_of(spec: WinogradGradient, machine: Machine) -> tuple[int, ...]:
    """For each place of a matrix of `g` the pair of channels that stands there, out times C_in plus
    in; -1 for none."""
    found = [-1] * matrix_floats(spec, machine)
    for out, outs, first, ins, place in _blocks(spec, machine):
        for o in range(outs):
            for i in range(ins):
                found[place + o * ins + i] = (out + o) * spec.cin + first + i
    return tuple(found)


def matrix_floats(spec: WinogradGradient, machine: Machine) -> int:
    """Floats of one of the n n matrices."""
    a, b = block_of(machine)
    return -(-spec.cout // a) * -(-spec.cin // b) * machine.lanes


def write_winograd_gradient(name: str, spec: WinogradGradient, machine: Machine) -> Function:
    """void (x, dy, g, zeros, scratch)."""
    pointers = ("x", "dy", "g", "zeros", "scratch")
    f = Function(name, [(p, PTR) for p in pointers], machine.lanes)
    _Writer(f, spec, machine).write()
    return f


class _Writer:
    def __init__(self, f: Function, spec: WinogradGradient, machine: Machine) -> None:
        self.f, self.spec, self.machine = f, spec, machine
        self.form, self.v = spec.form, machine.vector
        self.outs, self.ins = block_of(machine)
        self.seen = f.arg("scratch")

    def write(self) -> None:
        f, spec = self.f, self.spec
        for first, tall in in_blocks(f, spec.patches[0], spec.together):
            self._together(first, tall)

    def _together(self, first: Value, tall: int) -> None:
        """`first`: the first row of patches."""
        f, spec = self.f, self.spec
        many = tall * spec.patches[1]
        slopes = self.seen.at(self.form.n * spec.cin * many * self.v)
        with f.loop(0, self.form.n) as row:
            with f.loop(0, tall) as r:
                self._inputs(row, first + r, r * spec.patches[1], many)
                self._slopes(row, first + r, r * spec.patches[1], many, slopes)
            with f.loop(0, self.form.n) as nu:
                self._products(row * self.form.n + nu, nu, many, slopes)

    # ---- the transforms: (n, blocks of channels, patches, channels of the block)

    def _inputs(self, row: Value, patch: Value, place: Value, many: int) -> None:
        f, spec, v = self.f, self.spec, self.v
        window = Window(f, self.form, spec.rows, spec.columns, patch, v)
        for mine, lines in window.rows(row):
            with f.when(mine), f.loop(0, spec.cin) as c:
                plane = f.arg("x").at(c * (spec.rows.n_in * spec.columns.n_in * v))
                to, apart = self._place(self.seen, spec.cin, self.ins, c, place, many)
                self._some_inputs(window, lines, plane, to, apart, many)

    def _some_inputs(
        self, window: Window, lines: list[Line], plane: Value, to: Value, apart: Value | int,
        many: int,
    ) -> None:  # fmt: skip
        """The row of patches of one channel."""
        f, spec, v = self.f, self.spec, self.v
        width = WIDTH // self.form.patch
        for stretch in stretches(self.form, spec.columns, width, spec.patches[1]):
            with f.loop(0, stretch.count) as number:
                start = number * width + stretch.start
                block = Block(window, stretch, start * self.form.patch - spec.columns.padding)
                for t, values in enumerate(block.transformed(lines, plane)):
                    at = to.at((start + t) * apart)
                    for nu, value in enumerate(values):
                        f.store(value, at.at(nu * (spec.cin * many * v)))

    def _place(
        self, base: Value, channels: int, block: int, c: Value, place: Value, many: int
    ) -> tuple[Value, Value | int]:
        """Where a channel's number for a patch goes, and how far from it the next patch's does:
        the last block of channels may be smaller."""
        f, full = self.f, channels // block * block
        first = c // block * block
        size: Value | int = block
        if full < channels:
            size = f.select(c < full, f.constant(block, I64), channels - full)
        return base.at((first * many + place * size + (c - first)) * self.v), size * self.v

    def _slopes(self, row: Value, patch: Value, place: Value, many: int, slopes: Value) -> None:
        f, spec, v, m = self.f, self.spec, self.v, self.form.patch
        tall, wide = spec.rows.n_out, spec.columns.n_out
        for mine, lines in self._slope_rows(row, patch):
            with f.when(mine), f.loop(0, spec.cout) as c:
                plane = f.arg("dy").at(c * (tall * wide * v))
                places = [
                    f.select(line.inside, plane.at(line.offset), f.arg("zeros")) for line in lines
                ]
                factors = [line.factor for line in lines]
                to, apart = self._place(slopes, spec.cout, self.outs, c, place, many)
                with f.loop(0, wide // m) as t:
                    self._one_slope(places, factors, t, m, to.at(t * apart), many)
                if wide % m:
                    t = f.constant(wide // m, I64)
                    self._one_slope(places, factors, t, wide % m, to.at(t * apart), many)

    def _slope_rows(self, k: Value, patch: Value) -> list[tuple[Value, list[Line]]]:
        """Row k of A dY, as `Window.rows` has those of B' x: the points' powers, and at both ends
        one row alone."""
        f, (n, m), v = self.f, (self.form.n, self.form.patch), self.v
        lines = []
        for r in range(m):
            row = patch * m + r
            powers = [column[r] for column in turned(self.form.output)]
            factor = chosen(f, k, powers) if r else None
            inside = row < self.spec.rows.n_out
            lines.append(Line(inside, row * (self.spec.columns.n_out * v), factor))
        first, last = lines[0], lines[-1]
        zero = k.equals(0)
        inside = f.select(zero, first.inside, last.inside)
        end = Line(inside, f.select(zero, first.offset, last.offset))
        return [(zero | k.equals(n - 1), [end]), ((k > 0) & (k < n - 1), lines)]

    def _one_slope(
        self, places: list[Value], factors: list[Value | None], t: Value, there: int, to: Value,
        many: int,
    ) -> None:  # fmt: skip
        f, m, v = self.f, self.form.patch, self.v
        columns: list[Value | None] = [None] * m
        for c in range(there):
            values = [f.load(place.at((t * m + c) * v)) for place in places]
            columns[c] = added(f, values, factors)
        for nu, value in enumerate(applied(f, turned(self.form.output), columns)):
            at = to.at(nu * (self.spec.cout * many * v))
            f.store(f.constant(0.0) if value is None else value, at)

    # ---- the products

    def _products(self, matrix: Value, nu: Value, many: int, slopes: Value) -> None:
        f, spec, v = self.f, self.spec, self.v
        x = self.seen.at(nu * (spec.cin * many * v))
        dy = slopes.at(nu * (spec.cout * many * v))
        g = f.arg("g").at(matrix * (4 * matrix_floats(spec, self.machine)))
        across = -(-spec.cin // self.ins) * v  # bytes of the blocks of one block of outputs
        for out, outs in in_blocks(f, spec.cout, self.outs):
            line = g.at(out // self.outs * across)
            for first, ins in in_blocks(f, spec.cin, self.ins):
                at = line.at(first // self.ins * v)
                self._block(dy.at(out * (many * v)), x.at(first * (many * v)), at, outs, ins, many)

    def _block(self, dy: Value, x: Value, to: Value, outs: int, ins: int, many: int) -> None:
        f, v = self.f, self.v
        sums = Registers([f.constant(0.0)] * (outs * ins))
        with f.loop(0, many, carry=sums) as t:
            values = [f.load(x.at(t * (ins * v)).at(i * v)) for i in range(ins)]
            for o in range(outs):
                slope = f.load(dy.at(t * (outs * v)).at(o * v))
                for i, value in enumerate(values):
                    sums[o * ins + i] = f.fma(slope, value, sums[o * ins + i])
        spare = [f.constant(0.0)] * (self.machine.lanes - len(sums))
        f.store(f.load(to) + folded(f, [*sums, *spare]), to)
