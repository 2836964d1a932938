"""One number for each map or place, or a parameter for each channel, over a whole tensor."""

from __future__ import annotations

from hubel.engine.native.graph import Node, Shape
from hubel.engine.native.kernels.broadcast import Broadcast, BroadcastBack, over
from hubel.engine.native.plan import Argument, Weight
from hubel.engine.native.planner import Planner


def _spec(p: Planner, node: Node) -> Broadcast:
    g: Shape
    if "weight" in node.weights:
        learnt = p.weights[node.weights["weight"]]
        g = (max(learnt, default=1), 1, 1)  # one number, or one a channel
    else:
        g = p.graph.shapes[node.inputs[1]]
    shape = p.graph.shapes[node.inputs[0]]
    return over(node.options["verb"], shape, g, "weight" in node.weights)


def _number(p: Planner, node: Node) -> Argument:
    if "weight" in node.weights:
        return Weight(node.weights["weight"])
    return p.values[node.inputs[1]]


def broadcast(p: Planner, node: Node) -> None:
    """Forward."""
    x, g = p.values[node.inputs[0]], _number(p, node)
    p.call(_spec(p, node), x, g, p.new_value(node.output))


def broadcast_back(p: Planner, node: Node) -> None:
    """Back to the map, and to the numbers: a map too, or a parameter."""
    spec, value = _spec(p, node), node.inputs[0]
    dy, _ = p.taken(node.output)
    dx: Argument = 0
    dg: Argument = 0
    add_x: bool | None = None
    add_g: bool | None = None
    same = spec.verb in ("add", "sub")  # then dx is dy
    if value in p.wanted and not same:
        dx, add_x = p.contribute(value)
    if "weight" in node.weights:
        name = node.weights["weight"]
        if name in p.learns:
            dg, add_g = p.lane_part(name, spec.outer), True
    elif node.inputs[1] in p.wanted:
        dg, add_g = p.contribute(node.inputs[1])
    if add_x is not None or add_g is not None:
        p.call(
            BroadcastBack(spec, add_x, add_g), dy, p.values[value], _number(p, node), dx, dg,
        )  # fmt: skip
    if value in p.wanted and same:
        p.contribute_buffer(value, dy)
