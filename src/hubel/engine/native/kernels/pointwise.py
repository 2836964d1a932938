"""What is done to every number by itself, fused: batch norm, residual sums, activations, dropout.

A `Program` says how one map comes from others:

    (("norm", 0), ("leaf", 1), ("add", 0, 1), ("relu", 2))      y = relu(s c + t + r)

Each line names lines above it by their number; "leaf" and "norm" name a map read, the latter with a
scale and a shift for every channel. The last line is what is written. One kernel runs the program
forward; another reads the maps again and runs it backwards, so that nothing in between is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hubel.engine.native.emit import F32, I32, I64, PTR, Function, Registers, Value, literal
from hubel.engine.native.kernels.blocks import unrolled
from hubel.engine.native.kernels.functions import UNARY
from hubel.engine.native.kernels.norm import add_to_sums
from hubel.engine.native.machine import Machine

DROPOUTS = ("dropout", "map_dropout")  # of single elements, of whole maps

Line = tuple[Any, ...]
Program = tuple[Line, ...]


@dataclass(frozen=True)
class Pointwise:
    """The forward kernel's shape.

    Attributes:
        channels, row: channels of the maps, elements of a row of one.
        rows: rows of a map; a kernel is told which to do.
        program: what is computed.
    """

    channels: int
    rows: int
    row: int
    program: Program


@dataclass(frozen=True)
class PointwiseBack:
    """The backward kernel's shape.

    Attributes:
        forward: what ran.
        outputs: for each gradient written, the program's line it belongs to.
    """

    forward: Pointwise
    outputs: tuple[int, ...]

    @property
    def norms(self) -> list[int]:
        """Lines that are norms, in order: each gets two sums a channel."""
        return [n for n, line in enumerate(self.forward.program) if line[0] == "norm"]


def leaves(program: Program) -> list[Line]:
    """The lines that read a map, in order."""
    return [line for line in program if line[0] in ("leaf", "norm")]


def gradient_lines(program: Program) -> dict[int, int]:
    """For each leaf's line: the line whose gradient is the leaf's. A sum hands its own on."""
    uses = [0] * len(program)
    for line in program:
        for number in operands(line):
            uses[number] += 1
    holder = {len(program) - 1: len(program) - 1}
    for number in range(len(program) - 1, -1, -1):
        line = program[number]
        for operand in operands(line):
            passes = line[0] == "add" and uses[operand] == 1
            holder[operand] = holder[number] if passes else operand
    return {n: holder[n] for n, line in enumerate(program) if line[0] in ("leaf", "norm")}


def operands(line: Line) -> tuple[int, ...]:
    """The lines that a line names."""
    if line[0] in ("leaf", "norm"):
        return ()
    return line[1:3] if line[0] in ("add", "sub", "mul") else line[1:2]


_CHANCE = (("seed", I64), ("image", I64))


def write_pointwise(name: str, spec: Pointwise, machine: Machine) -> Function:
    """void (y, seed, first image, leaf 0, ..., its scales, ..., first row, past the last)."""
    arguments = [("y", PTR), *_CHANCE, *_leaf_arguments(spec.program), ("r0", I64), ("r1", I64)]
    f = Function(name, arguments, machine.lanes)
    unroll = unrolled(spec.row)
    with f.loop(0, spec.channels) as channel:
        figures = _figures(f, spec, channel)
        with _elements(f, spec, unroll) as first:
            for step in range(unroll):
                index = channel * (spec.rows * spec.row) + first + step
                place = index * machine.vector
                values = _run(f, spec, figures, place, index, channel)
                f.store(values[-1], f.arg("y").at(place))
    return f


def write_pointwise_back(name: str, spec: PointwiseBack, machine: Machine) -> Function:
    """void (dy, seed, first image, leaves and scales, outputs, sums, first row, past the last).

    `sums` takes for each norm, for each channel, in f64: sum of d, and of d (c - mean).
    """
    forward, program = spec.forward, spec.forward.program
    outs = [(f"o{n}", PTR) for n in range(len(spec.outputs))]
    sums = [(f"sums{n}", PTR) for n in range(len(spec.norms))]
    arguments = [
        ("dy", PTR), *_CHANCE, *_leaf_arguments(program), *outs, *sums, ("r0", I64), ("r1", I64),
    ]  # fmt: skip
    f = Function(name, arguments, machine.lanes)
    unroll = unrolled(forward.row)
    holders = gradient_lines(program)
    with f.loop(0, forward.channels) as channel:
        figures = _figures(f, forward, channel)
        carried = Registers([f.constant(0.0)] * (2 * len(spec.norms)))
        with _elements(f, forward, unroll, carried) as first:
            for step in range(unroll):
                index = channel * (forward.rows * forward.row) + first + step
                place = index * machine.vector
                values = _run(f, forward, figures, place, index, channel)
                slopes = _back(f, forward, values, f.load(f.arg("dy").at(place)), index, channel)
                for number, line in enumerate(spec.outputs):
                    f.store(slopes[line], f.arg(f"o{number}").at(place))
                for number, line in enumerate(spec.norms):
                    d = slopes[holders[line]]
                    raw = f.load(f.arg(f"x{program[line][1]}").at(place)) - figures[line][2]
                    carried[2 * number] = carried[2 * number] + d
                    carried[2 * number + 1] = f.fma(d, raw, carried[2 * number + 1])
        for number in range(len(spec.norms)):
            at = f.arg(f"sums{number}").at(channel * (4 * machine.vector))
            add_to_sums(f, at, carried[2 * number : 2 * number + 2], machine)
    return f


def _leaf_arguments(program: Program) -> list[tuple[str, str]]:
    found = []
    for line in leaves(program):
        found.append((f"x{line[1]}", PTR))
        if line[0] == "norm":
            found.append((f"n{line[1]}", PTR))
    return found


def _elements(f: Function, spec: Pointwise, unroll: int, carry: Registers | None = None):  # type: ignore[no-untyped-def]
    return f.loop(f.arg("r0") * spec.row, f.arg("r1") * spec.row, unroll, carry)


def _figures(f: Function, spec: Pointwise, channel: Value) -> dict[int, tuple[Value, ...]]:
    """For each norm's line: scale, shift and mean of the channel. `n` holds three rows of them."""
    found = {}
    for number, line in enumerate(spec.program):
        if line[0] == "norm":
            base = f.arg(f"n{line[1]}").at(channel * 4)
            found[number] = tuple(
                f.spread(f.load(base.at(4 * spec.channels * part), F32)) for part in range(3)
            )
    return found


def _run(
    f: Function, spec: Pointwise, figures: dict[int, tuple[Value, ...]], place: Value, index: Value,
    channel: Value,
) -> list[Value]:  # fmt: skip
    values: list[Value] = []
    for number, line in enumerate(spec.program):
        verb = line[0]
        if verb == "leaf":
            values.append(f.load(f.arg(f"x{line[1]}").at(place)))
        elif verb == "norm":
            scale, shift, _ = figures[number]
            values.append(f.fma(f.load(f.arg(f"x{line[1]}").at(place)), scale, shift))
        elif verb in ("add", "sub", "mul"):
            values.append(f.binary(verb, values[line[1]], values[line[2]]))
        elif verb in DROPOUTS:
            kept = _kept(f, index if verb == "dropout" else channel, line)
            values.append(f.select(kept, values[line[1]] * _grown(line), 0.0))
        else:
            values.append(UNARY[verb].forward(f, values[line[1]], *line[2:]))
    return values


def _back(
    f: Function, spec: Pointwise, values: list[Value], dy: Value, index: Value, channel: Value
) -> dict[int, Value]:
    """The gradient of every line."""
    program = spec.program
    slopes = {len(program) - 1: dy}

    def give(line: int, value: Value) -> None:
        slopes[line] = slopes[line] + value if line in slopes else value

    for number in range(len(program) - 1, -1, -1):
        line, d = program[number], slopes[number]
        verb = line[0]
        if verb == "add":
            give(line[1], d)
            give(line[2], d)
        elif verb == "sub":
            give(line[1], d)
            give(line[2], d * -1.0)
        elif verb == "mul":
            a, b = line[1:]
            give(a, d * values[b])
            give(b, d * values[a])
        elif verb in DROPOUTS:
            kept = _kept(f, index if verb == "dropout" else channel, line)
            give(line[1], f.select(kept, d * _grown(line), 0.0))
        elif verb not in ("leaf", "norm"):
            give(line[1], UNARY[verb].backward(f, values[line[1]], values[number], d, *line[2:]))
    return slopes


def _grown(line: Line) -> float:
    return 1 / (1 - line[2]) if line[2] < 1 else 0.0


def _kept(f: Function, index: Value, line: Line) -> Value:
    """Which lanes dropout leaves: a hash of seed, layer, image and element, against the share.

    Two rounds of multiply and shift (Wellons' lowbias32): chance is a place, not a sequence, so
    forward and backward see the same however the batch was cut.
    """
    _, _, p, layer = line
    kind = f"<{f.lanes} x i32>"
    seed = f.convert("trunc", f.arg("seed"), I32)
    image = f.spread(f.convert("trunc", f.arg("image"), I32)) + f.iota()
    element = f.convert("trunc", index, I32)
    start = f.make(I32, f"xor i32 {seed.name}, {(layer * 0x9E3779B9) & 0x7FFFFFFF}")
    x = _mixed(f, image ^ f.spread(start), kind)
    x = _mixed(f, x ^ f.spread(element), kind)
    x = f.make(kind, f"lshr {kind} {x.name}, {literal(kind, 8)}")
    uniform = f.convert("uitofp", x, f.vec) * (1 / (1 << 24))
    return f.compare("ge", uniform, p)


def _mixed(f: Function, x: Value, kind: str) -> Value:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = x ^ f.make(kind, f"lshr {kind} {x.name}, {literal(kind, shift)}")
        x = f.make(kind, f"mul {kind} {x.name}, {literal(kind, factor)}")
    return x ^ f.make(kind, f"lshr {kind} {x.name}, {literal(kind, 16)}")
