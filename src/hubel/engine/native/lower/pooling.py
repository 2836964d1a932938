"""Pooling over windows and over whole maps."""

from __future__ import annotations

from hubel.engine.native.graph import Node, NotCovered
from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.kernels.pool import Pool, PoolBack, Whole, WholeBack, covers_once
from hubel.engine.native.plan import Argument, Buffer
from hubel.engine.native.planner import Planner


def _pool_spec(p: Planner, node: Node) -> Pool:
    o = node.options
    (c, *ins), (_, *outs) = p.graph.shapes[node.inputs[0]], p.graph.shapes[node.output]
    rows, columns = (
        Axis(ins[a], outs[a], o["kernel"][a], o["stride"][a], o["padding"][a], o["dilation"][a])
        for a in (0, 1)
    )
    return Pool(o["kind"], c, rows, columns, o["padding_counts"], o.get("divisor", 0))


def pool(p: Planner, node: Node) -> None:
    """Forward; a largest one's place is kept."""
    spec = _pool_spec(p, node)
    which: Argument = 0
    if spec.kind == "max":
        if spec.rows.kernel * spec.columns.kernel > 127:
            raise NotCovered(f"max_pool in {node.path}: a window of more than 127")
        which = p.kept[node.output, "which"] = Buffer(p.size(node.output), bytes_=True)
    y = p.new_value(node.output)
    p.call(spec, p.values[node.inputs[0]], y, which, 0, spec.rows.n_out)


def pool_back(p: Planner, node: Node) -> None:
    """Back, to the places kept or to all alike."""
    spec = _pool_spec(p, node)
    dy, _ = p.taken(node.output)
    if node.inputs[0] not in p.wanted:
        return
    dx, add = p.contribute(node.inputs[0])
    once = covers_once(spec)
    if not once and not add:
        p.clear(dx)
    which = p.kept.get((node.output, "which"), 0)
    p.call(PoolBack(spec, add or not once), dy, dx, which, 0, spec.rows.n_out)


def _whole_spec(p: Planner, node: Node) -> Whole:
    c, h, w = p.graph.shapes[node.inputs[0]]
    return Whole(node.options["kind"], c, h * w)


def whole(p: Planner, node: Node) -> None:
    """Forward."""
    p.call(_whole_spec(p, node), p.values[node.inputs[0]], p.new_value(node.output))


def whole_back(p: Planner, node: Node) -> None:
    """Back."""
    dy, _ = p.taken(node.output)
    if node.inputs[0] not in p.wanted:
        return
    dx, add = p.contribute(node.inputs[0])
    spec = WholeBack(_whole_spec(p, node), add)
    p.call(spec, dy, dx, p.values[node.inputs[0]], p.values[node.output])
