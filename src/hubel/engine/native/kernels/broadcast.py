"""A number for each map, or for each place, spread over a whole tensor: gates, scales, PReLU.

    y = x g,  x + g,  x - g,  g - x,  or  x where x > 0, else g x

g is itself a map, of one place a channel (C, 1, 1), of one channel (1, H, W) or a single number; or
it is a parameter, one for a channel or one for all.
"""

from __future__ import annotations

from dataclasses import dataclass

from hubel.engine.native.emit import F32, PTR, Function, Registers, Value
from hubel.engine.native.kernels.blocks import unrolled
from hubel.engine.native.machine import Machine


@dataclass(frozen=True)
class Broadcast:
    """One shape of it: x is walked along `inner` elements for each of `outer` numbers.

    Attributes:
        verb: mul, add, sub (x - g), rsub (g - x), prelu.
        outer, inner: how many numbers g has, how many elements share one.
        outer_step, inner_step: elements of x from one to the next.
        weight: whether g is a parameter.
    """

    verb: str
    outer: int
    inner: int
    outer_step: int
    inner_step: int
    weight: bool


@dataclass(frozen=True)
class BroadcastBack:
    """The way back.

    Attributes:
        forward: what ran.
        dx, dg: None where that gradient is not wanted; else whether it is added to what stands
            there. A parameter's is a vector of partial sums, and always added.
    """

    forward: Broadcast
    dx: bool | None
    dg: bool | None


def over(verb: str, x: tuple[int, int, int], g: tuple[int, int, int], weight: bool) -> Broadcast:
    """The shape of it for maps of these shapes; g has 1 where it is spread."""
    channels, size = x[0], x[1] * x[2]
    if g == (1, 1, 1):
        return Broadcast(verb, 1, channels * size, 0, 1, weight)
    if g[0] == 1:
        return Broadcast(verb, size, channels, 1, size, weight)
    return Broadcast(verb, channels, size, size, 1, weight)


def write_broadcast(name: str, spec: Broadcast, machine: Machine) -> Function:
    """void (x, g, y)."""
    f = Function(name, [("x", PTR), ("g", PTR), ("y", PTR)], machine.lanes)
    unroll = unrolled(spec.inner)
    with f.loop(0, spec.outer) as o:
        g = _number(f, spec, o, machine)
        with f.loop(0, spec.inner, unroll) as i:
            for u in range(unroll):
                place = _place(spec, o, i + u, machine)
                x = f.load(f.arg("x").at(place))
                f.store(_result(f, spec.verb, x, g), f.arg("y").at(place))
    return f


def write_broadcast_back(name: str, spec: BroadcastBack, machine: Machine) -> Function:
    """void (dy, x, g, dx, dg)."""
    forward = spec.forward
    f = Function(name, [(word, PTR) for word in ("dy", "x", "g", "dx", "dg")], machine.lanes)
    unroll = unrolled(forward.inner)
    with f.loop(0, forward.outer) as o:
        g = _number(f, forward, o, machine)
        sums = Registers([f.constant(0.0)] * unroll)
        with f.loop(0, forward.inner, unroll, sums) as i:
            for u in range(unroll):
                place = _place(forward, o, i + u, machine)
                dy, x = f.load(f.arg("dy").at(place)), f.load(f.arg("x").at(place))
                dx, dg = _slopes(f, forward.verb, x, g, dy)
                sums[u] = sums[u] + dg
                if spec.dx is not None:
                    at = f.arg("dx").at(place)
                    f.store(dx + f.load(at) if spec.dx else dx, at)
        if spec.dg is not None:
            total = sums[0]
            for other in sums[1:]:
                total = total + other
            at = f.arg("dg").at(o * machine.vector)
            f.store(total + f.load(at) if spec.dg else total, at)
    return f


def _number(f: Function, spec: Broadcast, o: Value, machine: Machine) -> Value:
    if spec.weight:
        return f.spread(f.load(f.arg("g").at(o * 4), F32))
    return f.load(f.arg("g").at(o * machine.vector))


def _place(spec: Broadcast, o: Value, i: Value, machine: Machine) -> Value:
    return (o * spec.outer_step + i * spec.inner_step) * machine.vector


def _result(f: Function, verb: str, x: Value, g: Value) -> Value:
    if verb == "prelu":
        return f.select(x > 0.0, x, x * g)
    return g - x if verb == "rsub" else f.binary(verb, x, g)


def _slopes(f: Function, verb: str, x: Value, g: Value, dy: Value) -> tuple[Value, Value]:
    """dx and g's part of the sum."""
    if verb == "mul":
        return dy * g, dy * x
    if verb == "prelu":
        return f.select(x > 0.0, dy, dy * g), f.select(x > 0.0, 0.0, dy * x)
    return (dy * -1.0 if verb == "rsub" else dy), (dy * -1.0 if verb == "sub" else dy)
