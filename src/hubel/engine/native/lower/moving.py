"""What only moves numbers: joining channels, thinning out, enlarging."""

from __future__ import annotations

from dataclasses import dataclass

from hubel.engine.native.graph import Node
from hubel.engine.native.kernels.move import Copy
from hubel.engine.native.plan import At
from hubel.engine.native.planner import Planner

Triple = tuple[int, int, int]


def concat(p: Planner, node: Node) -> None:
    """Forward: a copy each."""
    y = p.new_value(node.output)
    for value, place in _places(p, node):
        p.copy(p.values[value], At(y, place), p.size(value), add=False)


def _places(p: Planner, node: Node) -> list[tuple[int, int]]:
    found, place = [], 0
    for value in node.inputs:
        found.append((value, place))
        place += p.size(value) * p.machine.vector
    return found


def concat_back(p: Planner, node: Node) -> None:
    """Back: every input gets its part."""
    dy, _ = p.taken(node.output)
    for value, place in _places(p, node):
        if value in p.wanted:
            dx, add = p.contribute(value)
            p.copy(At(dy, place), dx, p.size(value), add)


@dataclass(frozen=True)
class _Thin:
    """What is moved: how much of each axis, the bytes from one to the next, and from where."""

    size: Triple
    x: Triple
    y: Triple
    begin: int
    into: int


def _thin(p: Planner, node: Node) -> _Thin:
    v, o = p.machine.vector, node.options
    ins, outs = p.graph.shapes[node.inputs[0]], p.graph.shapes[node.output]
    start, step, into = o["start"], o["step"], o["into"]
    size = tuple(
        max(min(outs[a] - into[a], -(-(ins[a] - start[a]) // step[a])), 0) for a in range(3)
    )
    x, y = ((s[1] * s[2] * v, s[2] * v, v) for s in (ins, outs))
    return _Thin(
        size, tuple(n * s for n, s in zip(x, step, strict=True)), y,
        sum(n * s for n, s in zip(x, start, strict=True)),
        sum(n * s for n, s in zip(y, into, strict=True)),
    )  # fmt: skip


def thin(p: Planner, node: Node) -> None:
    """Forward: a copy with steps, among zeros."""
    t, to = _thin(p, node), p.new_value(node.output)
    if t.size != p.graph.shapes[node.output]:
        p.clear(to)
    spec = Copy(*t.size, *t.x, *t.y, add=False)
    p.call(spec, At(p.values[node.inputs[0]], t.begin), At(to, t.into))


def thin_back(p: Planner, node: Node) -> None:
    """Back: the same places; those that were left out get nothing."""
    t, (dy, _) = _thin(p, node), p.taken(node.output)
    if node.inputs[0] not in p.wanted:
        return
    dx, add = p.contribute(node.inputs[0])
    everywhere = t.size == p.graph.shapes[node.inputs[0]]
    if not add and not everywhere:
        p.clear(dx)
    spec = Copy(*t.size, *t.y, *t.x, add=add or not everywhere)
    p.call(spec, At(dy, t.into), At(dx, t.begin))


def view(p: Planner, node: Node) -> None:
    """Forward: the same numbers under another shape."""
    p.values[node.output] = p.values[node.inputs[0]]


def view_back(p: Planner, node: Node) -> None:
    """Back: the same gradient."""
    dy, _ = p.taken(node.output)
    if node.inputs[0] in p.wanted:
        p.contribute_buffer(node.inputs[0], dy)


def upsample(p: Planner, node: Node) -> None:
    """Forward: a copy for each place of the square that a pixel becomes."""
    y = p.new_value(node.output)
    for begin, size, inside, outside in _upsampled(p, node):
        spec = Copy(*size, *inside, *outside, add=False)
        p.call(spec, p.values[node.inputs[0]], At(y, begin))


def _upsampled(p: Planner, node: Node) -> list[tuple[int, Triple, Triple, Triple]]:
    """One copy for each place of the little square that a pixel becomes."""
    v, (tall, wide) = p.machine.vector, node.options["factor"]
    c, h, w = p.graph.shapes[node.inputs[0]]
    row = w * wide * v
    inside, outside = (h * w * v, w * v, v), (h * tall * row, tall * row, wide * v)
    return [(a * row + b * v, (c, h, w), inside, outside) for a in range(tall) for b in range(wide)]


def upsample_back(p: Planner, node: Node) -> None:
    """Back: their sum."""
    dy, _ = p.taken(node.output)
    if node.inputs[0] not in p.wanted:
        return
    dx, add = p.contribute(node.inputs[0])
    for begin, size, inside, outside in _upsampled(p, node):
        p.call(Copy(*size, *outside, *inside, add=add), At(dy, begin), dx)
        add = True
