"""Softmax and cross entropy of one tile: the loss, its slope, and who was right."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hubel.engine.native.emit import F32, I32, I64, PTR, Function, Registers, Value, vector
from hubel.engine.native.kernels.functions import beats, exponential, logarithm
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
        map: rows and columns of logits (K, rows, columns, lanes) whose every pixel has a label;
            None where an image has one.
    """

    classes: int
    smoothing: float
    shares: bool
    backward: bool
    weight: float = 1.0
    judged: bool = True
    map: tuple[int, int] | None = None


def write_cross_entropy(name: str, spec: CrossEntropy, machine: Machine) -> Function:
    """void (z, labels, images there are, scale, dz, totals).

    Labels are i64, or shares; of a map floats (2, rows, columns, lanes): a label, below 0 where a
    pixel has none, and what the pixel weighs, beside `scale`, which all do. `totals` takes two
    vectors: loss, hits. A label that is no class makes the loss NaN.
    """
    pointers = [(word, PTR) for word in ("z", "labels", "dz", "totals")]
    arguments = [*pointers[:2], ("n", I64), ("scale", F32), *pointers[2:]]
    f = Function(name, arguments, machine.lanes)
    there, scale = f.first(f.arg("n")), f.spread(f.arg("scale"))
    if spec.weight != 1:
        scale = scale * spec.weight
    found = _of_map if spec.map is not None else _of_image
    for number, value in enumerate(found(f, spec, machine, there, scale)):
        at = f.arg("totals").at(number * machine.vector)
        f.store(f.load(at) + value, at)
    return f


Found = tuple[Value, Value]  # loss and hits, of each lane


def _of_image(
    f: Function, spec: CrossEntropy, machine: Machine, there: Value, scale: Value
) -> Found:
    place = _Place(f.arg("z"), f.arg("dz"), machine.vector)
    if spec.shares:
        _, label = _largest(f, f.arg("labels"), spec.classes, machine.vector)
        return _at(f, spec, place, label, there, scale)
    label, known = _labels(f, there, spec)
    loss, hit = _at(f, spec, place, label, there, scale)
    return f.select(there & (known ^ 1), math.nan, loss), hit


def _of_map(f: Function, spec: CrossEntropy, machine: Machine, there: Value, scale: Value) -> Found:
    """Of all pixels, line by line: a float that adds up ten thousands loses digits."""
    assert spec.map is not None
    rows, columns = spec.map
    step = rows * columns * machine.vector
    whole = Registers([f.constant(0.0)] * 2)
    with f.loop(0, rows, carry=whole) as row:
        line = Registers([f.constant(0.0)] * 2)
        with f.loop(0, columns, carry=line) as column:
            at = (row * columns + column) * machine.vector
            told, weight = (f.load(f.arg("labels").at(at + part)) for part in (0, step))
            label = f.convert("fptosi", told, vector(I32, f.lanes))
            counted = there & (told >= 0.0)
            place = _Place(f.arg("z").at(at), f.arg("dz").at(at), step)
            loss, hit = _at(f, spec, place, label, counted, scale * weight)
            line[0] = line[0] + f.select(counted & (told >= spec.classes), math.nan, loss)
            line[1] = line[1] + hit
        whole[:] = [a + b for a, b in zip(whole, line, strict=True)]
    return whole[0], whole[1]


@dataclass(frozen=True)
class _Place:
    """Where the classes' logits of a pixel, or of an image, stand, and their slopes; `step` bytes
    from one class to the next."""

    z: Value
    dz: Value
    step: int


def _at(
    f: Function, spec: CrossEntropy, place: _Place, label: Value, counted: Value, scale: Value
) -> Found:
    """Loss and hit at one place, of the lanes that count; the slope is written, 0 for others."""
    largest, best = _largest(f, place.z, spec.classes, place.step)
    # sum of exponentials, sum of t, sum of t z: the loss is sum t (largest + log sum) - sum t z
    sums = Registers([f.constant(0.0)] * 3)
    with f.loop(0, spec.classes, carry=sums) as k:
        z = f.load(place.z.at(k * place.step)) - largest
        e = exponential(f, z)
        t = _target(f, spec, label, k)
        sums[0] = sums[0] + e
        sums[1] = sums[1] + t
        sums[2] = f.fma(t, z, sums[2])
        f.store(e, place.dz.at(k * place.step))
    total, mass, dot = sums
    loss = f.fma(mass, logarithm(f, total), dot * -1.0)
    if spec.backward:
        share = scale * mass / total
        with f.loop(0, spec.classes) as k:
            at = place.dz.at(k * place.step)
            t = _target(f, spec, label, k) * scale
            f.store(f.select(counted, f.load(at) * share - t, 0.0), at)
    right = counted & best.equals(label) if spec.judged else f.constant(0, counted.kind)
    return f.select(counted, loss * scale, 0.0), f.select(right, f.constant(1.0), 0.0)


def _largest(f: Function, z: Value, classes: int, step: int) -> tuple[Value, Value]:
    """The largest of each lane's numbers, and which it is."""
    state = Registers([f.load(z), f.constant(0, vector(I32, f.lanes))])
    with f.loop(1, classes, carry=state) as k:
        value = f.load(z.at(k * step))
        wins = beats(f, value, state[0])
        state[0] = f.select(wins, value, state[0])
        state[1] = f.select(wins, f.spread(f.convert("trunc", k, I32)), state[1])
    return state[0], state[1]


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


def _target(f: Function, spec: CrossEntropy, label: Value, k: Value) -> Value:
    low = spec.smoothing / spec.classes
    if spec.shares:
        share = f.load(f.arg("labels").at(k * (4 * f.lanes)))
        return share if not spec.smoothing else f.fma(share, 1 - spec.smoothing, f.constant(low))
    mine = label.equals(f.spread(f.convert("trunc", k, I32)))
    return f.select(mine, f.constant(1 - spec.smoothing + low), f.constant(low))
