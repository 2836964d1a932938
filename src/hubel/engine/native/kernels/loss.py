"""Softmax and cross entropy of one tile: the loss, its slope, and who was right."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hubel.engine.native.emit import F32, I32, I64, PTR, Function, Registers, Value, vector
from hubel.engine.native.kernels.functions import beats, exponential, lanewise
from hubel.engine.native.machine import Machine


@dataclass(frozen=True)
class CrossEntropy:
    """- sum_k t_k log softmax(z)_k, t = (1 - s) y + s / K, y the label's or given shares.

    Attributes:
        classes: K.
        smoothing: s.
        shares: whether y comes as shares (K, lanes) instead of labels.
        backward: whether the slope is written.
        weight: of all of it, beside what an image weighs.
        judged: whether hits are counted.
    """

    classes: int
    smoothing: float
    shares: bool
    backward: bool
    weight: float = 1.0
    judged: bool = True


def write_cross_entropy(name: str, spec: CrossEntropy, machine: Machine) -> Function:
    """void (z, labels i64 or shares, images there are, scale, dz, totals).

    `scale` is what each image weighs in the loss. `totals` takes two vectors: loss, hits. A label
    that is no class makes the loss NaN.
    """
    arguments = [
        ("z", PTR),
        ("labels", PTR),
        ("n", I64),
        ("scale", F32),
        ("dz", PTR),
        ("totals", PTR),
    ]
    f = Function(name, arguments, machine.lanes)
    there = f.first(f.arg("n"))
    largest, best = _likeliest(f, spec, machine)
    # sum of exponentials, sum of t, sum of t z: the loss is sum t (largest + log sum) - sum t z
    label, known = (None, None) if spec.shares else _labels(f, there, spec)
    sums = Registers([f.constant(0.0)] * 3)
    with f.loop(0, spec.classes, carry=sums) as k:
        z = f.load(f.arg("z").at(k * machine.vector)) - largest
        e = exponential(f, z)
        t = _target(f, spec, machine, label, k)
        sums[0] = sums[0] + e
        sums[1] = sums[1] + t
        sums[2] = f.fma(t, z, sums[2])
        f.store(e, f.arg("dz").at(k * machine.vector))
    total, mass, dot = sums
    loss = f.fma(mass, lanewise(f, "logf", total), dot * -1.0)
    if known is not None:
        loss = f.select(known, loss, math.nan)
    scale = f.spread(f.arg("scale"))
    if spec.weight != 1:
        scale = scale * spec.weight
    _add(f, f.arg("totals"), f.select(there, loss * scale, 0.0))
    if spec.judged:
        right = best.equals(label if label is not None else _best_share(f, spec, machine))
        hit = f.select(there & right, f.constant(1.0), 0.0)
        _add(f, f.arg("totals").at(machine.vector), hit)
    if spec.backward:
        share = scale * mass / total
        with f.loop(0, spec.classes) as k:
            at = f.arg("dz").at(k * machine.vector)
            t = _target(f, spec, machine, label, k) * scale
            f.store(f.select(there, f.load(at) * share - t, 0.0), at)
    return f


def _add(f: Function, place: Value, value: Value) -> None:
    f.store(f.load(place) + value, place)


def _likeliest(f: Function, spec: CrossEntropy, machine: Machine) -> tuple[Value, Value]:
    """The largest logit of each image, and its class."""
    return _largest(f, f.arg("z"), spec.classes, machine)


def _largest(f: Function, z: Value, classes: int, machine: Machine) -> tuple[Value, Value]:
    state = Registers([f.load(z), f.constant(0, vector(I32, f.lanes))])
    with f.loop(1, classes, carry=state) as k:
        value = f.load(z.at(k * machine.vector))
        wins = beats(f, value, state[0])
        state[0] = f.select(wins, value, state[0])
        state[1] = f.select(wins, f.spread(f.convert("trunc", k, I32)), state[1])
    return state[0], state[1]


def _best_share(f: Function, spec: CrossEntropy, machine: Machine) -> Value:
    return _largest(f, f.arg("labels"), spec.classes, machine)[1]


def _labels(f: Function, there: Value, spec: CrossEntropy) -> tuple[Value, Value]:
    """The tile's labels, -1 where there is no image; and which of them are classes."""
    wide = vector(I64, f.lanes)
    name = f"llvm.masked.load.v{f.lanes}i64.p0"
    f.needs.add(f"declare {wide} @{name}(ptr, {there.kind}, {wide})")
    none = f.constant(-1, wide)
    words = f"ptr align 8 {f.arg('labels').name}, {there.kind} {there.name}, {wide} {none.name}"
    found = f.make(wide, f"call {wide} @{name}({words})")
    known = (found > -1) & (found < spec.classes)
    return f.convert("trunc", found, vector(I32, f.lanes)), known


def _target(
    f: Function, spec: CrossEntropy, machine: Machine, label: Value | None, k: Value
) -> Value:
    low = spec.smoothing / spec.classes
    if label is None:
        share = f.load(f.arg("labels").at(k * machine.vector))
        return share if not spec.smoothing else f.fma(share, 1 - spec.smoothing, f.constant(low))
    mine = label.equals(f.spread(f.convert("trunc", k, I32)))
    return f.select(mine, f.constant(1 - spec.smoothing + low), f.constant(low))
