"""What only moves numbers: joining channels, thinning out, enlarging."""

from __future__ import annotations

from hubel.engine.native.graph import Node
from hubel.engine.native.kernels.move import Copy
from hubel.engine.native.plan import At
from hubel.engine.native.planner import Planner

Triple = tuple[int, int, int]


def concat(p: Planner, node: Node) -> None:
    """Forward: a copy each."""
    y = p.new_value(node.output)
    for value, place in _places(p, node):
        x = p.values[value]
        v = p.machine.vector
        p.call(Copy(1, 1, x.elements, 0, 0, v, 0, 0, v, add=False), x, At(y, place))


def _places(p: Planner, node: Node) -> list[tuple[int, int]]:
    found, place = [], 0
    for value in node.inputs:
        found.append((value, place))
        place += p.size(value) * p.machine.vector
    return found


def concat_back(p: Planner, node: Node) -> None:
    """Back: every input gets its part."""
    dy, _ = p.taken(node.output)
    v = p.machine.vector
    for value, place in _places(p, node):
        if value in p.wanted:
            dx, add = p.contribute(value)
            p.call(Copy(1, 1, dx.elements, 0, 0, v, 0, 0, v, add), At(dy, place), dx)


def _thin_strides(p: Planner, node: Node) -> tuple[Triple, Triple, Triple, int, int]:
    """(channels, rows, columns) moved, the strides of x and of y, and where each begins."""
    v, o = p.machine.vector, node.options
    (_, hi, wi), (co, ho, wo) = p.graph.shapes[node.inputs[0]], p.graph.shapes[node.output]
    ci = p.graph.shapes[node.inputs[0]][0]
    count = min(co, -(-(ci - o["start"][0]) // o["step"][0]))
    x = (o["step"][0] * hi * wi * v, o["step"][1] * wi * v, o["step"][2] * v)
    y = (ho * wo * v, wo * v, v)
    begin = ((o["start"][0] * hi + o["start"][1]) * wi + o["start"][2]) * v
    return (count, ho, wo), x, y, begin, o["into"] * ho * wo * v


def thin(p: Planner, node: Node) -> None:
    """Forward: a copy with steps, among zeros."""
    size, x, y, begin, into = _thin_strides(p, node)
    to = p.new_value(node.output)
    if size[0] < p.graph.shapes[node.output][0]:
        p.clear(to)
    p.call(Copy(*size, *x, *y, add=False), At(p.values[node.inputs[0]], begin), At(to, into))


def thin_back(p: Planner, node: Node) -> None:
    """Back: the same places."""
    size, x, y, begin, into = _thin_strides(p, node)
    dy, _ = p.taken(node.output)
    if node.inputs[0] not in p.wanted:
        return
    dx, add = p.contribute(node.inputs[0])
    if not add:
        p.clear(dx)
    p.call(Copy(*size, *y, *x, add=True), At(dy, into), At(dx, begin))


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
