"""Pooling: the largest or the mean of each window, and the way back."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hubel.engine.native.emit import (
    F32,
    I8,
    I32,
    I64,
    PTR,
    Function,
    Number,
    Registers,
    Value,
    vector,
)
from hubel.engine.native.kernels.axis import Axis, Run, runs, taps_inside
from hubel.engine.native.kernels.functions import beats
from hubel.engine.native.machine import Machine


@dataclass(frozen=True)
class Pool:
    """Windows over a map.

    Attributes:
        kind: "max" or "mean".
        channels, rows, columns: of the map; the axes' `n_in` are what is pooled.
        padding_counts: whether a mean divides by the window's size also at the rim.
        divisor: what a mean divides by instead, if not 0.
    """

    kind: str
    channels: int
    rows: Axis
    columns: Axis
    padding_counts: bool = True
    divisor: int = 0


@dataclass(frozen=True)
class PoolBack:
    """The way back; `add` where windows overlap or the gradient is added to another's."""

    forward: Pool
    add: bool


def covers_once(spec: Pool) -> bool:
    """Whether every input place belongs to exactly one window."""
    return all(
        axis.kernel == axis.stride and not axis.padding and axis.dilation == 1
        and axis.n_out * axis.stride == axis.n_in
        for axis in (spec.rows, spec.columns)
    )  # fmt: skip


def write_pool(name: str, spec: Pool, machine: Machine) -> Function:
    """void (x, y, which as bytes, first row, past the last)."""
    f = Function(
        name, [("x", PTR), ("y", PTR), ("which", PTR), ("r0", I64), ("r1", I64)], machine.lanes
    )
    for place, x, low, high, run, source in _windows(f, spec, machine):
        most = spec.kind == "max"
        state = Registers([f.constant(-math.inf if most else 0.0)])
        if most:
            state.append(f.constant(0, vector(I32, f.lanes)))
        with f.loop(low, high, carry=state) as kh:
            line = source(x, kh)
            for k, column in enumerate(run.places):
                if column is None:
                    continue
                value = f.load(line.at(column * machine.vector))
                if not most:
                    state[0] = state[0] + value
                    continue
                wins = beats(f, value, state[0])
                state[0] = f.select(wins, value, state[0])
                number = f.spread(f.convert("trunc", kh * spec.columns.kernel + k, I32))
                state[1] = f.select(wins, number, state[1])
        if most:
            f.store(
                f.convert("trunc", state[1], vector(I8, f.lanes)), f.arg("which").at(place // 4)
            )
            f.store(state[0], f.arg("y").at(place))
        else:
            f.store(state[0] * _share(f, spec, low, high, run), f.arg("y").at(place))
    return f


def write_pool_back(name: str, spec: PoolBack, machine: Machine) -> Function:
    """void (dy, dx, which, first row, past the last), rows of dy."""
    forward = spec.forward
    f = Function(
        name, [("dy", PTR), ("x", PTR), ("which", PTR), ("r0", I64), ("r1", I64)], machine.lanes
    )
    for place, x, low, high, run, source in _windows(f, forward, machine):
        d = f.load(f.arg("dy").at(place))
        if forward.kind == "max":
            which = f.load(f.arg("which").at(place // 4), vector(I8, f.lanes), 1)
        else:
            d = d * _share(f, forward, low, high, run)
        with f.loop(low, high) as kh:
            line = source(x, kh)
            for k, column in enumerate(run.places):
                if column is None:
                    continue
                value = d
                if forward.kind == "max":
                    number = f.convert("trunc", kh * forward.columns.kernel + k, I8)
                    value = f.select(which.equals(f.spread(number)), d, 0.0)
                at = line.at(column * machine.vector)
                f.store(f.load(at) + value if spec.add else value, at)
    return f


def _windows(f: Function, spec: Pool, machine: Machine):  # type: ignore[no-untyped-def]
    """For every output: its place, its map of x, the window's rows, and what columns it reads."""
    rows, columns = spec.rows, spec.columns
    line = columns.n_in * machine.vector
    with f.loop(0, spec.channels) as c:
        plane = f.arg("x").at(c * (rows.n_in * line))
        with f.loop(f.arg("r0"), f.arg("r1")) as h:
            base = h * rows.stride - rows.padding
            d = rows.dilation
            low, high = taps_inside(f, rows, base)

            def source(x: Value, kh: Value, base: Value = base, d: int = d) -> Value:
                return x.at((base + kh * d) * line)

            for run in runs(columns, 1):
                with f.loop(0, run.count) as w:
                    x = plane.at((w * run.step + run.base) * machine.vector)
                    index = (c * rows.n_out + h) * columns.n_out + w + run.start
                    yield index * machine.vector, x, low, high, run, source


def _share(f: Function, spec: Pool, low: Number, high: Number, run: Run) -> Value:
    """What one number weighs in its mean."""
    if spec.divisor:
        return f.constant(1 / spec.divisor)
    if spec.padding_counts or (isinstance(low, int) and isinstance(high, int)):
        wide = spec.columns.kernel if spec.padding_counts else _wide(run)
        return f.constant(1 / (spec.rows.kernel * wide))
    tall = f.as_value(high, I64) - low
    count = f.convert("sitofp", tall * _wide(run), F32)
    return f.constant(1.0) / f.spread(count)


def _wide(run: Run) -> int:
    return sum(place is not None for place in run.places)


@dataclass(frozen=True)
class Whole:
    """One number from each whole map: its "max", "mean" or "sum". `size` elements a map."""

    kind: str
    channels: int
    size: int


@dataclass(frozen=True)
class WholeBack:
    """The way back; `add` where the gradient is added to another's."""

    forward: Whole
    add: bool


def write_whole(name: str, spec: Whole, machine: Machine) -> Function:
    """void (x, y)."""
    f = Function(name, [("x", PTR), ("y", PTR)], machine.lanes)
    with f.loop(0, spec.channels) as c:
        start = f.constant(-math.inf if spec.kind == "max" else 0.0)
        state = Registers([start])
        with f.loop(0, spec.size, carry=state) as k:
            value = f.load(f.arg("x").at((c * spec.size + k) * machine.vector))
            if spec.kind == "max":
                wins = beats(f, value, state[0])
                state[0] = f.select(wins, value, state[0])
            else:
                state[0] = state[0] + value
        y = state[0] * (1 / spec.size) if spec.kind == "mean" else state[0]
        f.store(y, f.arg("y").at(c * machine.vector))
    return f


def write_whole_back(name: str, spec: WholeBack, machine: Machine) -> Function:
    """void (dy, dx, x, y). Equal largest ones share the gradient, as `amax` has it."""
    forward = spec.forward
    f = Function(name, [("dy", PTR), ("dx", PTR), ("x", PTR), ("y", PTR)], machine.lanes)
    with f.loop(0, forward.channels) as c:
        d = f.load(f.arg("dy").at(c * machine.vector))
        most = forward.kind == "max"
        if most:
            y = f.load(f.arg("y").at(c * machine.vector))
            count = Registers([f.constant(0.0)])
            with f.loop(0, forward.size, carry=count) as k:
                x = f.load(f.arg("x").at((c * forward.size + k) * machine.vector))
                count[0] = count[0] + f.select(x.equals(y), f.constant(1.0), 0.0)
            d = d / f.select(count[0] < 1.0, 1.0, count[0])
        elif forward.kind == "mean":
            d = d * (1 / forward.size)
        with f.loop(0, forward.size) as k:
            place = (c * forward.size + k) * machine.vector
            at = f.arg("dx").at(place)
            value = f.select(f.load(f.arg("x").at(place)).equals(y), d, 0.0) if most else d
            f.store(f.load(at) + value if spec.add else value, at)
    return f
