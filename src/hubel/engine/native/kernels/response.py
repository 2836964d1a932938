"""Local response normalisation: each channel divided by its neighbours' energy, as AlexNet does.

    y = x / s^beta,  s = k + alpha sum of x^2 over `size` channels around

The way back goes through x itself and through all the sums that x stands in:

    dx = dy / s^beta - 2 alpha beta x sum of t,  t = dy x / s^(beta + 1),  the window mirrored

First every t and every dy / s^beta is written down, then the sums are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hubel.engine.native.emit import F32, PTR, Function, Value
from hubel.engine.native.kernels.axis import Axis, runs
from hubel.engine.native.kernels.functions import lanewise
from hubel.engine.native.machine import Machine


@dataclass(frozen=True)
class Response:
    """One shape of it; `elements` a channel, the rest as in the formula."""

    channels: int
    elements: int
    size: int
    alpha: float
    beta: float
    k: float


@dataclass(frozen=True)
class ResponseParts:
    """The way back's first half: t and dy / s^beta."""

    forward: Response


@dataclass(frozen=True)
class ResponseBack:
    """The second half; `add` where the gradient is added to another's."""

    forward: Response
    add: bool


def write_response(name: str, spec: Response, machine: Machine) -> Function:
    """void (x, y)."""
    f = Function(name, [("x", PTR), ("y", PTR)], machine.lanes)

    def one(place: Value, around: list[Value]) -> None:
        x = f.load(f.arg("x").at(place))
        energy = _energy(f, spec, [f.load(f.arg("x").at(p)) for p in around])
        f.store(x * lowered(f, energy, spec.beta), f.arg("y").at(place))

    _everywhere(f, spec, machine, spec.size // 2, one)
    return f


def write_response_parts(name: str, spec: ResponseParts, machine: Machine) -> Function:
    """void (dy, x, t, dy / s^beta); the last may be dy's own place."""
    forward = spec.forward
    f = Function(name, [(word, PTR) for word in ("dy", "x", "t", "u")], machine.lanes)

    def one(place: Value, around: list[Value]) -> None:
        x = f.load(f.arg("x").at(place))
        energy = _energy(f, forward, [f.load(f.arg("x").at(p)) for p in around])
        u = f.load(f.arg("dy").at(place)) * lowered(f, energy, forward.beta)
        f.store(u * x / energy, f.arg("t").at(place))
        f.store(u, f.arg("u").at(place))

    _everywhere(f, forward, machine, forward.size // 2, one)
    return f


def write_response_back(name: str, spec: ResponseBack, machine: Machine) -> Function:
    """void (dy / s^beta, x, t, dx); the first may be dx."""
    forward = spec.forward
    f = Function(name, [(word, PTR) for word in ("u", "x", "t", "dx")], machine.lanes)
    factor = -2 * forward.alpha * forward.beta

    def one(place: Value, around: list[Value]) -> None:
        total = f.load(f.arg("t").at(around[0]))
        for other in around[1:]:
            total = total + f.load(f.arg("t").at(other))
        x, u = f.load(f.arg("x").at(place)), f.load(f.arg("u").at(place))
        value, at = f.fma(x * factor, total, u), f.arg("dx").at(place)
        f.store(value + f.load(at) if spec.add else value, at)

    _everywhere(f, forward, machine, (forward.size - 1) // 2, one)
    return f


def lowered(f: Function, x: Value, beta: float) -> Value:
    """x^-beta of numbers above 0: by roots where they do, else by C's power, lane by lane."""
    if beta == 1:
        return 1.0 / x
    if beta in (0.5, 0.75):
        rest = 1.0 / f.root(x)
        return rest if beta == 0.5 else rest * f.root(rest)
    return lanewise(f, "powf", x, f.constant(-beta, F32))


def _energy(f: Function, spec: Response, around: list[Value]) -> Value:
    total = around[0] * around[0]
    for x in around[1:]:
        total = f.fma(x, x, total)
    return f.fma(total, spec.alpha, f.constant(spec.k))


def _everywhere(
    f: Function,
    spec: Response,
    machine: Machine,
    before: int,
    one: Callable[[Value, list[Value]], None],
) -> None:
    """`one` for every element, with the places of its window, which begins `before` channels back:
    near the first and last channels a shorter one."""
    channel = spec.elements * machine.vector
    axis = Axis(spec.channels, spec.channels, spec.size, padding=before)
    for run in runs(axis, 1):
        reads = [place for place in run.places if place is not None]
        with f.loop(0, run.count) as number, f.loop(0, spec.elements) as element:
            inside = element * machine.vector
            base = (number * run.step + run.base) * channel + inside
            place = (number + run.start) * channel + inside
            one(place, [base + read * channel for read in reads])
