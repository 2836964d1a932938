"""Planes brought to another size, and channels divided by their neighbours."""

from __future__ import annotations

from hubel.engine.native.graph import Node
from hubel.engine.native.kernels.resample import Resample
from hubel.engine.native.kernels.response import Response, ResponseBack, ResponseParts
from hubel.engine.native.plan import Buffer
from hubel.engine.native.planner import Planner


def resample(p: Planner, node: Node) -> None:
    """Forward: `mixes` are what each row and each column mixes."""
    rows, columns = node.options["mixes"]
    spec = Resample(*p.graph.shapes[node.inputs[0]], rows, columns, add=False)
    p.call(spec, p.values[node.inputs[0]], p.new_value(node.output))


def resample_back(p: Planner, node: Node) -> None:
    """Back: the same with the matrices turned."""
    dy, _ = p.taken(node.output)
    if node.inputs[0] not in p.wanted:
        return
    dx, add = p.contribute(node.inputs[0])
    rows, columns = node.options["turned"]
    p.call(Resample(*p.graph.shapes[node.output], rows, columns, add), dy, dx)


def response(p: Planner, node: Node) -> None:
    """Forward."""
    p.call(_response(p, node), p.values[node.inputs[0]], p.new_value(node.output))


def response_back(p: Planner, node: Node) -> None:
    """Back: its two halves, the first half written over dy where nobody else reads it."""
    dy, own = p.taken(node.output)
    if node.inputs[0] not in p.wanted:
        return
    spec, x = _response(p, node), p.values[node.inputs[0]]
    t, u = Buffer(dy.elements), dy if own else Buffer(dy.elements)
    p.call(ResponseParts(spec), dy, x, t, u)
    dx, add = p.contribute(node.inputs[0])
    p.call(ResponseBack(spec, add), u, x, t, dx)


def _response(p: Planner, node: Node) -> Response:
    c, h, w = p.graph.shapes[node.output]
    o = node.options
    return Response(c, h * w, o["size"], o["alpha"], o["beta"], o["k"])
