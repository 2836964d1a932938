"""From the threads' partial gradients to one gradient, and from the gradient to new weights."""

from __future__ import annotations

from dataclasses import dataclass

from hubel.engine.native.emit import (
    EVERY,
    F32,
    F64,
    I32,
    I64,
    PTR,
    Function,
    Registers,
    Some,
    Value,
    first_of,
    vector,
)
from hubel.engine.native.kernels.winograd import Form, gradient_of_weight
from hubel.engine.native.machine import Machine


@dataclass(frozen=True)
class Reduce:
    """g[i] = sum over threads of their partial sums; |g|^2 is added to `norm`.

    Attributes:
        kind: how the partial sums stand: "lanes" (a vector each), "packed" (one float each, where
            `order` says), "rows" (of `row` floats, padded to `padded`), "ready" (in g already, in
            rows too), "counted" (so too, and in the norm: nothing is left to do), "winograd"
            (matrices of `padded` floats, see `winograd_gradient.py`; `order` says which pair of
            channels stands where, each of `row` weights).
        form: Winograd's.
    """

    kind: str
    row: int = 1
    padded: int = 1
    form: Form | None = None

    def turns(self, count: int, machine: Machine) -> int:
        """What a thread's share of so many weights counts: rows, for "winograd" vectors of a
        matrix, else floats."""
        return self.padded // machine.lanes if self.kind == "winograd" else count // self.row


def write_reduce(name: str, spec: Reduce, machine: Machine) -> Function:
    """void (parts, bytes to the next thread's, threads, order, g, norm, first, past the last): see
    `Reduce.turns`."""
    arguments = [
        ("parts", PTR), ("apart", I64), ("threads", I64), ("order", PTR), ("g", PTR),
        ("norm", PTR), ("i0", I64), ("i1", I64),
    ]  # fmt: skip
    f = Function(name, arguments, machine.floats)
    if spec.kind in ("rows", "ready"):
        _reduce_rows(f, spec, machine)
        return f
    if spec.kind == "winograd":
        _reduce_winograd(f, spec, machine)
        return f
    first = f.arg("i0")
    if spec.kind == "lanes":
        first = _reduce_lanes(f, machine)
    norm = Registers([f.load(f.arg("norm"), F64, 8)])
    with f.loop(first, f.arg("i1"), carry=norm) as i:
        value = _gathered(f, spec, i, machine)
        f.store(value, f.arg("g").at(i * 4))
        wide = f.convert("fpext", value, F64)
        norm[0] = norm[0] + wide * wide
    f.store(norm[0], f.arg("norm"), 8)
    return f


def _reduce_lanes(f: Function, machine: Machine) -> Value:
    """As many weights at a time as a vector has lanes; where it leaves off."""
    lanes, wide = machine.lanes, vector(F64, machine.lanes)
    norm = Registers([f.constant(0.0, wide)])
    last = f.arg("i0") + (f.arg("i1") - f.arg("i0")) // lanes * lanes
    with f.loop(f.arg("i0"), last, lanes, norm) as i:
        value = f.lane_sums([_summed(f, i + k, machine) for k in range(lanes)])
        f.store(value, f.arg("g").at(i * 4))
        double = f.convert("fpext", value, wide)
        norm[0] = norm[0] + double * double
    f.store(f.load(f.arg("norm"), F64, 8) + f.lane_sum(norm[0]), f.arg("norm"), 8)
    return last


def _summed(f: Function, i: Value, machine: Machine) -> Value:
    """Weight i's vector, over all threads."""
    place, kind = i * machine.vector, vector(F32, machine.lanes)
    total = Registers([f.constant(0.0, kind)])
    with f.loop(0, f.arg("threads"), carry=total) as t:
        total[0] = total[0] + f.load(f.arg("parts").at(t * f.arg("apart") + place), kind)
    return total[0]


def _reduce_rows(f: Function, spec: Reduce, machine: Machine) -> None:
    """Whole rows, a vector at a time."""
    wide = vector(F64, machine.floats)
    norm = Registers([f.constant(0.0, wide)])
    whole = spec.row // machine.floats * machine.floats

    def some(r: Value, k: Value, there: Some) -> None:
        at = f.arg("g").at((r * spec.row + k) * 4)
        if spec.kind == "ready":
            value = f.load_there(at, there)
        else:
            total = Registers([f.constant(0.0)])
            place = (r * spec.padded + k) * 4
            with f.loop(0, f.arg("threads"), carry=total) as t:
                parts = f.arg("parts").at(t * f.arg("apart") + place)
                total[0] = total[0] + f.load_there(parts, there)
            value = total[0]
            f.store_there(value, at, there)
        double = f.convert("fpext", value, wide)
        norm[0] = norm[0] + double * double

    with f.loop(f.arg("i0"), f.arg("i1"), carry=norm) as r:
        with f.loop(0, whole, machine.floats, norm) as k:
            some(r, k, EVERY)
        if whole < spec.row:
            some(r, f.constant(whole, I64), first_of(machine.floats, spec.row - whole))
    total_norm = f.load(f.arg("norm"), F64, 8) + f.lane_sum(norm[0])
    f.store(total_norm, f.arg("norm"), 8)


def _gathered(f: Function, spec: Reduce, i: Value, machine: Machine) -> Value:
    if spec.kind == "lanes":
        return f.lane_sum(_summed(f, i, machine))
    place = f.convert("sext", f.load(f.arg("order").at(i * 4), I32), I64) * 4
    total = Registers([f.constant(0.0, F32)])
    with f.loop(0, f.arg("threads"), carry=total) as t:
        total[0] = total[0] + f.load(f.arg("parts").at(t * f.arg("apart") + place), F32)
    return total[0]


def _reduce_winograd(f: Function, spec: Reduce, machine: Machine) -> None:
    """As many pairs of channels as a vector has lanes: their matrices to the weights' gradients."""
    assert spec.form is not None
    wide = vector(F64, machine.lanes)
    norm = Registers([f.constant(0.0, wide)])
    with f.loop(f.arg("i0"), f.arg("i1"), carry=norm) as i:
        sums = Registers([f.constant(0.0)] * spec.form.n**2)
        with f.loop(0, f.arg("threads"), carry=sums) as t:
            at = f.arg("parts").at(t * f.arg("apart") + i * machine.vector)
            for k, one in enumerate(sums):
                sums[k] = one + f.load(at.at(4 * spec.padded * k))
        values = gradient_of_weight(f, spec.form, list(sums))
        for value in values:
            double = f.convert("fpext", value, wide)
            norm[0] = norm[0] + double * double
        for lane in range(machine.lanes):
            pair = f.load(f.arg("order").at((i * machine.lanes + lane) * 4), I32)
            with f.when(pair > -1):
                at = f.arg("g").at(f.convert("sext", pair, I64) * (4 * spec.row))
                for k, value in enumerate(values):
                    f.store(f.lane(value, lane), at.at(4 * k))
    f.store(f.load(f.arg("norm"), F64, 8) + f.lane_sum(norm[0]), f.arg("norm"), 8)


@dataclass(frozen=True)
class Update:
    """One optimiser step on the weights [first, past the last).

    Attributes:
        kind: "velocity", "average", "nesterov", "pytorch" (SGD's four forms, see
            `training/optimiser.py`) or "adam".
        decay: "l2", "decoupled" or "none".
    """

    kind: str
    decay: str


FIGURES = ("rate", "momentum", "decay", "beta2", "eps", "warm1", "warm2")
"""What an update is told: learning rate, momentum (Adam: beta1), weight decay, and Adam's beta2,
eps, 1 - beta1^t, sqrt(1 - beta2^t)."""


def write_update(name: str, spec: Update, machine: Machine) -> Function:
    """void (weights, gradient, first state, second state, figures f32, clip: what the gradient is
    multiplied by, first, past the last)."""
    words = ("w", "g", "v", "s", "figures")
    arguments = [*((w, PTR) for w in words), ("clip", F32), ("i0", I64), ("i1", I64)]
    f = Function(name, arguments, machine.floats)
    clip = f.spread(f.arg("clip"))
    figures = {
        word: f.spread(f.load(f.arg("figures").at(4 * n), F32)) for n, word in enumerate(FIGURES)
    }

    def some(i: Value, there: Value | None) -> None:
        def load(word: str) -> Value:
            place = f.arg(word).at(i * 4)
            return f.load(place) if there is None else f.load_some(place, there)

        def store(value: Value, word: str) -> None:
            place = f.arg(word).at(i * 4)
            if there is None:
                f.store(value, place)
            else:
                f.store_some(value, place, there)

        w, g = load("w"), load("g") * clip
        if spec.decay == "l2":
            g = f.fma(figures["decay"], w, g)
        elif spec.decay == "decoupled":
            w = w * (1.0 - figures["rate"] * figures["decay"])
        v = load("v")
        if spec.kind == "adam":
            w, v, s = _adam(f, figures, w, g, v, load("s"))
            store(s, "s")
        else:
            w, v = _momentum(spec.kind, f, figures, w, g, v)
        store(v, "v")
        store(w, "w")

    count = f.arg("i1") - f.arg("i0")
    last = f.arg("i0") + count // machine.floats * machine.floats
    with f.loop(f.arg("i0"), last, machine.floats) as i:
        some(i, None)
    with f.loop(last, f.arg("i1"), machine.floats) as i:
        some(i, f.first(f.arg("i1") - i))
    return f


def _momentum(
    kind: str, f: Function, figures: dict[str, Value], w: Value, g: Value, v: Value
) -> tuple[Value, Value]:
    rate, mu = figures["rate"], figures["momentum"]
    if kind == "average":
        v = mu * v + g * (1.0 - mu)
        return w - rate * v, v
    if kind == "pytorch":
        v = mu * v + g
        return w - rate * v, v
    v = mu * v - rate * g
    if kind == "velocity":
        return w + v, v
    return w + mu * v - rate * g, v


def _adam(
    f: Function, figures: dict[str, Value], w: Value, g: Value, v: Value, s: Value
) -> tuple[Value, Value, Value]:
    """Kingma & Ba 2015, as `torch.optim.Adam` orders it."""
    beta1, beta2 = figures["momentum"], figures["beta2"]
    v = v + (g - v) * (1.0 - beta1)
    s = s * beta2 + g * g * (1.0 - beta2)
    below = f.root(s) / figures["warm2"] + figures["eps"]
    return w - figures["rate"] / figures["warm1"] * (v / below), v, s
