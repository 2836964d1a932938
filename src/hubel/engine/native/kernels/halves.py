"""bfloat16: pairs of numbers of half the length, each pair in the place of one float.

`vdpbf16ps` multiplies two such vectors and adds both products of every pair to a float32 sum: twice
the multiply-adds of an instruction. So the numbers that are summed over must stand in pairs: for a
convolution and its input's gradient two channels of a map, for the weight's gradient two rows.
Rounding is to the nearest, ties to even; sums, batch norm and the weights themselves stay float32.
"""

from __future__ import annotations

from dataclasses import dataclass

from hubel.engine.native.emit import F32, I16, I32, I64, PTR, Function, Number, Value, vector
from hubel.engine.native.kernels.blocks import unrolled
from hubel.engine.native.machine import Machine


@dataclass(frozen=True)
class HalfChannels:
    """y[c] = (x[2 c], x[2 c + 1]); `size` elements a channel, `channels` of x, an even number."""

    channels: int
    size: int


def write_half_channels(name: str, spec: HalfChannels, machine: Machine) -> Function:
    """void (x, y)."""
    f = Function(name, [("x", PTR), ("y", PTR)], machine.lanes)
    v, plane = machine.vector, spec.size * machine.vector
    unroll = unrolled(spec.size)
    with f.loop(0, spec.channels // 2) as c, f.loop(0, spec.size, unroll) as k:
        for u in range(unroll):
            first = f.arg("x").at(c * (2 * plane) + (k + u) * v)
            pair = paired(f, f.load(first), f.load(first.at(plane)))
            f.store(pair, f.arg("y").at(c * plane + (k + u) * v))
    return f


@dataclass(frozen=True)
class HalfRows:
    """y[c][q] = (x[c][q `each` - `before`], x[c][q `each` - `before` + `apart`]); 0 outside.

    `written` rows of y.
    """

    channels: int
    rows: int
    row: int
    written: int
    each: int
    before: int
    apart: int


def write_half_rows(name: str, spec: HalfRows, machine: Machine) -> Function:
    """void (x, y, zeros of a row)."""
    f = Function(name, [("x", PTR), ("y", PTR), ("zeros", PTR)], machine.lanes)
    v, line = machine.vector, spec.row * machine.vector
    unroll = unrolled(spec.row)
    with f.loop(0, spec.channels) as c, f.loop(0, spec.written) as q:
        plane = f.arg("x").at(c * (spec.rows * line))
        first = q * spec.each - spec.before
        lines = [_row(f, plane, r, spec, line) for r in (first, first + spec.apart)]
        y = f.arg("y").at(c * (spec.written * line) + q * line)
        with f.loop(0, spec.row, unroll) as k:
            for u in range(unroll):
                a, b = (f.load(x.at((k + u) * v)) for x in lines)
                f.store(paired(f, a, b), y.at((k + u) * v))
    return f


def _row(f: Function, plane: Value, row: Value, spec: HalfRows, line: int) -> Value:
    inside = (row > -1) & (row < spec.rows)
    return f.select(inside, plane.at(row * line), f.arg("zeros"))


@dataclass(frozen=True)
class HalfWeights:
    """A convolution's weight (out, inside, taps) in pairs.

    `by_out`: y[o][i] = (w[2 o][i], w[2 o + 1][i]), for the way back; else y[o][i] =
    (w[o][2 i], w[o][2 i + 1]), for the way forward.
    """

    out: int
    inside: int
    taps: int
    by_out: bool


def write_half_weights(name: str, spec: HalfWeights, machine: Machine) -> Function:
    """void (w, y, first outer index of y, past the last)."""
    f = Function(name, [("w", PTR), ("y", PTR), ("i0", I64), ("i1", I64)], machine.lanes)
    row = spec.inside * spec.taps
    with f.loop(f.arg("i0"), f.arg("i1")) as o:
        if spec.by_out:
            _pair_up(f, o * (2 * row), o * row, row, row)
        else:
            with f.loop(0, spec.inside // 2) as i:
                start = o * row + i * (2 * spec.taps)
                _pair_up(f, start, o * (row // 2) + i * spec.taps, spec.taps, spec.taps)
    return f


def _pair_up(f: Function, first: Value, to: Value, count: int, apart: Number) -> None:
    """y[to + k] = (w[first + k], w[first + apart + k])."""
    with f.loop(0, count) as k:
        a = f.load(f.arg("w").at((first + k) * 4), F32)
        b = f.load(f.arg("w").at((first + k + apart) * 4), F32)
        f.store(paired(f, a, b), f.arg("y").at((to + k) * 4))


def paired(f: Function, low: Value, high: Value) -> Value:
    """Two floats (or vectors of them) as bfloat16 in one i32 each, `low` in the lower half."""
    lanes = f.lanes if low.kind.startswith("<") else 0
    half, short, word = (vector(k, lanes) if lanes else k for k in ("bfloat", I16, I32))
    bits = []
    for value in (low, high):
        narrow = f.convert("bitcast", f.convert("fptrunc", value, half), short)
        bits.append(f.convert("zext", narrow, word))
    sixteen = f.constant(16, word)
    raised = f.make(word, f"shl {word} {bits[1].name}, {sixteen.name}")
    return bits[0] | raised
