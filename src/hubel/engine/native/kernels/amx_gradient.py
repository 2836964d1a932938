"""The weight's gradient by matrices in registers: see `kernels/amx.py`.

What is summed over are the images, 16 at each of two pixels side by side, or 8 at each of four: on
the left rows of slopes, one for each output channel (`AmxSlopes`), on the right the inputs with the
images in pairs and the channels side by side, which means turning them: `AmxTurned`. Sums stand in
the thread's own matrices (blocks of outputs, of inputs, kernel, kernel, 16 outputs, 16 inputs).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from hubel.engine.native.emit import I32, I64, PTR, Function, vector
from hubel.engine.native.kernels.amx import ROW, SIDE, Matrices, evenly, narrow, turned, zeros
from hubel.engine.native.kernels.amx_correlate import span
from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.kernels.blocks import parts
from hubel.engine.native.machine import Machine

HELD = 5  # taps that are summed at a time
TURNED = 8  # vectors of 16 channels of a turned pixel
REST = 3  # pixels that the last matrix may read past the last one


def together(machine: Machine) -> int:
    """Pixels side by side that one row on the left holds."""
    return 2 * SIDE // machine.lanes


@dataclass(frozen=True)
class AmxSlopes:
    """y[block][h][q][c] = dy[c][h] at the columns from q n on, n `together`, as bfloat16, 0 past
    the last."""

    channels: int
    rows: int
    columns: int

    def vectors(self, machine: Machine) -> int:
        """Those of y."""
        blocks, high = evenly(self.channels)
        matrices = blocks * self.rows * -(-self.columns // together(machine))
        return matrices * high * ROW // machine.vector


def write_amx_slopes(name: str, spec: AmxSlopes, machine: Machine) -> Function:
    """void (dy, y)."""
    f = Function(name, [("dy", PTR), ("y", PTR)], machine.lanes)
    (_, high), n, v = evenly(spec.channels), together(machine), machine.vector
    with f.loop(0, spec.channels) as c, f.loop(0, spec.rows) as h:
        line = f.arg("dy").at((c * spec.rows + h) * (spec.columns * v))
        matrix = (c // high * spec.rows + h) * -(-spec.columns // n)
        before = 0
        for many, count in parts(spec.columns, n):  # as many as fit, then the rest
            with f.loop(before, before + count) as q:
                y = f.arg("y").at(((matrix + q) * high + c % high) * ROW)
                for j in range(n):
                    none = f.constant(0, vector(I32, machine.lanes // 2))
                    there = j < many
                    value = narrow(f, f.load(line.at(q * (n * v) + j * v))) if there else none
                    f.store(value, y.at(j * v // 2))
            before += count
    return f


@dataclass(frozen=True)
class AmxTurned:
    """y[block][h][w][t][c] = images 2 t and 2 t + 1 of x[c] at (h - padding, w - padding), 0
    outside; then pixels of zeros, since a kernel reads whole matrices."""

    channels: int
    rows: Axis
    columns: Axis

    @property
    def vectors(self) -> int:
        """Those of y."""
        pixels = span(self.rows) * span(self.columns)
        return (evenly(self.channels)[0] * pixels + REST) * TURNED


def write_amx_turned(name: str, spec: AmxTurned, machine: Machine) -> Function:
    """void (x, y)."""
    f = Function(name, [("x", PTR), ("y", PTR)], machine.lanes)
    tall, wide, v = span(spec.rows), span(spec.columns), machine.vector
    above, left, pixel = spec.rows.padding, spec.columns.padding, TURNED * v
    below, right = tall - above - spec.rows.n_in, wide - left - spec.columns.n_in
    blocks, many = evenly(spec.channels)
    plane = spec.rows.n_in * spec.columns.n_in * v
    for block in range(blocks):
        y = f.arg("y").at(block * tall * wide * pixel)
        zeros(f, y, above * wide * TURNED)
        with f.loop(0, spec.rows.n_in) as h:
            line = y.at((h + above) * (wide * pixel))
            zeros(f, line, left * TURNED)
            with f.loop(0, spec.columns.n_in) as w:
                x = f.arg("x").at((h * spec.columns.n_in + w) * v + block * many * plane)
                count = min(many, spec.channels - block * many)
                found = [narrow(f, f.load(x.at(c * plane))) for c in range(count)]
                found += [f.constant(0, vector(I32, machine.lanes // 2))] * (SIDE - count)
                for t, row in enumerate(turned(f, found)):
                    f.store(row, line.at((w + left) * pixel + t * ROW))
            zeros(f, line.at((wide - right) * pixel), right * TURNED)
        zeros(f, y.at((tall - below) * wide * pixel), below * wide * TURNED)
    zeros(f, f.arg("y").at(blocks * tall * wide * pixel), REST * TURNED)
    return f


@dataclass(frozen=True)
class AmxGradient:
    """One shape of it, without stride, groups or dilation."""

    cin: int
    cout: int
    rows: Axis
    columns: Axis

    @property
    def macs(self) -> int:
        """Multiply-adds for one image, those with padding left out."""
        return self.cin * self.cout * self.rows.taken * self.columns.taken

    @property
    def floats(self) -> int:
        """Of the sums."""
        taps = self.rows.kernel * self.columns.kernel
        return evenly(self.cout)[0] * evenly(self.cin)[0] * taps * SIDE * SIDE


@functools.cache
def order_of(spec: AmxGradient) -> tuple[int, ...]:
    """Where each weight (out, in, kernel, kernel) stands among the sums."""
    (_, high), (blocks, many) = evenly(spec.cout), evenly(spec.cin)
    taps = spec.rows.kernel * spec.columns.kernel
    return tuple(
        ((((o // high) * blocks + i // many) * taps + tap) * SIDE + o % high) * SIDE + i % many
        for o in range(spec.cout) for i in range(spec.cin) for tap in range(taps)
    )  # fmt: skip


def write_amx_gradient(name: str, spec: AmxGradient, machine: Machine) -> Function:
    """void (x turned, slopes, g, first row, past the last)."""
    arguments = [("x", PTR), ("dy", PTR), ("g", PTR), ("r0", I64), ("r1", I64)]
    f = Function(name, arguments, machine.lanes)
    (outs, high), (ins, _) = evenly(spec.cout), evenly(spec.cin)
    tall, wide, taps = span(spec.rows), span(spec.columns), spec.columns.kernel
    side, pixel = together(machine), TURNED * machine.vector
    turns = -(-spec.columns.n_out // side)
    matrices = Matrices(f, high, SIDE, HELD)
    with f.loop(0, outs) as o, f.loop(0, ins) as i, f.loop(0, spec.rows.kernel) as k:
        x = f.arg("x").at((i * tall + k) * (wide * pixel))
        dy = f.arg("dy").at(o * (spec.rows.n_out * turns * high * ROW))
        g = f.arg("g").at(((o * ins + i) * spec.rows.kernel + k) * (taps * SIDE * SIDE * 4))
        for first in range(0, taps, HELD):
            some = range(first, min(first + HELD, taps))
            for tap in some:
                matrices.fetch(tap - first, g.at(tap * SIDE * SIDE * 4))
            with f.loop(f.arg("r0"), f.arg("r1")) as h, f.loop(0, turns) as q:
                matrices.left(dy.at((h * turns + q) * (high * ROW)), ROW)
                for tap in some:
                    matrices.add(tap - first, x.at((h * wide + q * side + tap) * pixel))
            for tap in some:
                matrices.put(tap - first, g.at(tap * SIDE * SIDE * 4))
    matrices.leave()
    return f
