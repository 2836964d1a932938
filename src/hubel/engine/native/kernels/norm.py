"""Batch norm's sums and figures. What it does to each number stands in `pointwise.py`.

The figures of a layer are rows of C floats: scale, shift, mean, 1 / std; on the way back a, b, c,
with which dx = a d + b x + c.
"""

from __future__ import annotations

from dataclasses import dataclass

from hubel.engine.native.emit import F32, F64, I64, PTR, Function, Registers, Value, vector
from hubel.engine.native.kernels.blocks import unrolled
from hubel.engine.native.machine import Machine


@dataclass(frozen=True)
class Sums:
    """Sum and sum of squares of each channel, counted from `shift`; `size` elements a channel."""

    channels: int
    size: int


def write_sums(name: str, spec: Sums, machine: Machine) -> Function:
    """void (x, shift, sums f64 (channels, 2, lanes), there: 1 or 0 a lane)."""
    f = Function(name, [("x", PTR), ("shift", PTR), ("sums", PTR), ("there", PTR)], machine.lanes)
    there = f.load(f.arg("there"))
    with f.loop(0, spec.channels) as c:
        shift = f.spread(f.load(f.arg("shift").at(c * 4), F32))
        at = f.arg("sums").at(c * (4 * machine.vector))
        state = Registers(load_sums(f, at, machine))
        with f.loop(0, spec.size, carry=state) as k:
            value = f.load(f.arg("x").at((c * spec.size + k) * machine.vector))
            moved = f.convert("fpext", (value - shift) * there, vector(F64, f.lanes))
            state[0], state[1] = state[0] + moved, f.fma(moved, moved, state[1])
        for half, value in enumerate(state):
            f.store(value, at.at(half * 2 * machine.vector), 8)
    return f


def load_sums(f: Function, place: Value, machine: Machine) -> list[Value]:
    """A channel's two sums, float64 in every lane: differences of large ones are wanted."""
    wide = vector(F64, f.lanes)
    return [f.load(place.at(half * 2 * machine.vector), wide, 8) for half in (0, 1)]


def add_to_sums(f: Function, place: Value, found: list[Value], machine: Machine) -> None:
    """Add float32 sums, of a few numbers, to a channel's two."""
    for half, old in enumerate(load_sums(f, place, machine)):
        more = f.convert("fpext", found[half], old.kind)
        f.store(old + more, place.at(half * 2 * machine.vector), 8)


@dataclass(frozen=True)
class Figures:
    """From sums to figures, and the running statistics moved on.

    Attributes:
        channels, size: of the map.
        eps, momentum: batch norm's.
        gamma, beta, running: whether it has them.
    """

    channels: int
    size: int
    eps: float
    momentum: float
    gamma: bool
    beta: bool
    running: bool


def write_figures(name: str, spec: Figures, machine: Machine) -> Function:
    """void (sums, bytes to the next thread's, threads, images, shift, gamma, beta, running mean,
    running variance, figures, first channel, past the last)."""
    pointers = ("shift", "gamma", "beta", "rm", "rv", "figures")
    arguments = [
        ("sums", PTR), ("apart", I64), ("threads", I64), ("images", I64),
        *((p, PTR) for p in pointers), ("c0", I64), ("c1", I64),
    ]  # fmt: skip
    f = Function(name, arguments, machine.lanes)
    count = f.convert("sitofp", f.arg("images") * spec.size, F64)
    with f.loop(f.arg("c0"), f.arg("c1")) as c:
        total, squares = _both(f, c, machine)
        shift = _read(f, "shift", c)
        off = total / count
        mean = shift + off
        variance = squares / count - off * off
        variance = f.select(variance < 0.0, f.constant(0.0, F64), variance)
        rest = f.constant(1.0, F64) / f.root(variance + spec.eps)
        _write_figures(f, spec, c, mean, rest)
        if spec.running:
            even = f.select(count > 1.0, count / (count - 1.0), f.constant(1.0, F64))
            for word, value in (("rm", mean), ("rv", variance * even)):
                old = _read(f, word, c)
                new = old + (value - old) * spec.momentum
                f.store(f.convert("fptrunc", new, F32), f.arg(word).at(c * 4))
    return f


def _both(f: Function, c: Value, machine: Machine) -> tuple[Value, Value]:
    """The two sums of a channel over threads and lanes."""
    state = Registers([f.constant(0.0, F64), f.constant(0.0, F64)])
    with f.loop(0, f.arg("threads"), carry=state) as t:
        at = f.arg("sums").at(t * f.arg("apart") + c * (4 * machine.vector))
        for half, value in enumerate(load_sums(f, at, machine)):
            state[half] = state[half] + f.lane_sum(value)
    return state[0], state[1]


def _read(f: Function, word: str, c: Value) -> Value:
    return f.convert("fpext", f.load(f.arg(word).at(c * 4), F32), F64)


def _write_figures(
    f: Function, spec: Figures | FixedFigures, c: Value, mean: Value, rest: Value
) -> None:
    """A channel's scale, shift, mean and 1 / std."""
    gamma = _read(f, "gamma", c) if spec.gamma else f.constant(1.0, F64)
    beta = _read(f, "beta", c) if spec.beta else f.constant(0.0, F64)
    scale = gamma * rest
    _write_rows(f, (scale, beta - mean * scale, mean, rest), c, spec.channels)


def _write_rows(f: Function, rows: tuple[Value, ...], c: Value, channels: int) -> None:
    for number, value in enumerate(rows):
        at = f.arg("figures").at(c * 4 + 4 * channels * number)
        f.store(f.convert("fptrunc", value, F32), at)


@dataclass(frozen=True)
class FixedFigures:
    """Figures from the running statistics, which stay: batch norm out of training."""

    channels: int
    eps: float
    gamma: bool
    beta: bool


def write_fixed_figures(name: str, spec: FixedFigures, machine: Machine) -> Function:
    """void (gamma, beta, running mean, running variance, figures, first channel, past the last)."""
    words = ("gamma", "beta", "rm", "rv", "figures")
    f = Function(name, [*((w, PTR) for w in words), ("c0", I64), ("c1", I64)], machine.lanes)
    with f.loop(f.arg("c0"), f.arg("c1")) as c:
        mean, variance = _read(f, "rm", c), _read(f, "rv", c)
        rest = f.constant(1.0, F64) / f.root(variance + spec.eps)
        _write_figures(f, spec, c, mean, rest)
    return f


@dataclass(frozen=True)
class FiguresBack:
    """The gradients of gamma and beta, and the figures of dx = a d + b x + c.

    d gamma = sum d xhat, d beta = sum d,  dx = gamma / std (d - mean d - xhat mean(d xhat));
    with `fixed` statistics dx = gamma / std d.
    """

    channels: int
    size: int
    gamma: bool
    beta: bool
    fixed: bool


def write_figures_back(name: str, spec: FiguresBack, machine: Machine) -> Function:
    """void (sums, bytes to the next thread's, threads, images, forward figures, d gamma, d beta,
    figures, first channel, past the last)."""
    arguments = [
        ("sums", PTR), ("apart", I64), ("threads", I64), ("images", I64),
        ("forward", PTR), ("dgamma", PTR), ("dbeta", PTR), ("figures", PTR),
        ("c0", I64), ("c1", I64),
    ]  # fmt: skip
    f = Function(name, arguments, machine.lanes)
    count = f.convert("sitofp", f.arg("images") * spec.size, F64)
    with f.loop(f.arg("c0"), f.arg("c1")) as c:
        total, dot = _both(f, c, machine)

        def figure(row: int, c: Value = c) -> Value:
            at = f.arg("forward").at(c * 4 + 4 * spec.channels * row)
            return f.convert("fpext", f.load(at, F32), F64)

        scale, mean, rest = figure(0), figure(2), figure(3)
        dgamma = dot * rest
        for word, there, value in (("dgamma", spec.gamma, dgamma), ("dbeta", spec.beta, total)):
            if there:
                f.store(f.convert("fptrunc", value, F32), f.arg(word).at(c * 4))
        b, offset = f.constant(0.0, F64), f.constant(0.0, F64)
        if not spec.fixed:
            b = scale * rest * dgamma / count * -1.0
            offset = scale * total / count * -1.0 - b * mean
        _write_rows(f, (scale, b, offset), c, spec.channels)
    return f


@dataclass(frozen=True)
class NormBack:
    """dx (+)= a d + b x + c for every channel; lanes without an image get nothing."""

    channels: int
    rows: int
    row: int
    add: bool


def write_norm_back(name: str, spec: NormBack, machine: Machine) -> Function:
    """void (d, x, figures, dx, present, first row, past the last)."""
    pointers = ("d", "x", "figures", "dx", "present")
    arguments = [*((p, PTR) for p in pointers), ("r0", I64), ("r1", I64)]
    f = Function(name, arguments, machine.lanes)
    unroll = unrolled(spec.row)
    present = f.load(f.arg("present"))
    with f.loop(0, spec.channels) as c:
        a, b, offset = (
            f.spread(f.load(f.arg("figures").at(c * 4 + 4 * spec.channels * row), F32))
            for row in range(3)
        )
        b, offset = b * present, offset * present
        with f.loop(f.arg("r0") * spec.row, f.arg("r1") * spec.row, unroll) as k:
            for u in range(unroll):
                place = (c * (spec.rows * spec.row) + k + u) * machine.vector
                x = f.fma(f.load(f.arg("x").at(place)), b, offset)
                value = f.fma(f.load(f.arg("d").at(place)), a, x)
                at = f.arg("dx").at(place)
                f.store(value + f.load(at) if spec.add else value, at)
    return f
