"""Groups of functions that work on each number by itself, batch norm among them."""

from __future__ import annotations

from typing import Any

from hubel.engine.native.graph import Node
from hubel.engine.native.kernels.norm import NormBack
from hubel.engine.native.kernels.pointwise import Pointwise, PointwiseBack, gradient_lines
from hubel.engine.native.plan import Argument, Buffer, Now
from hubel.engine.native.planner import Planner


def _shape_of_group(p: Planner, node: Node) -> Pointwise:
    c, h, w = p.graph.shapes[node.output]
    return Pointwise(c, h, w, node.options["program"])


def _leaf_arguments(p: Planner, node: Node) -> list[Argument]:
    found: list[Argument] = []
    for value, norm in zip(node.inputs, node.options["norms"], strict=True):
        found.append(p.values[value])
        if norm is not None:
            found.append(p.figures_of(norm))
    return found


def group(p: Planner, node: Node) -> None:
    """Forward, once the figures of its norms stand."""
    for norm in node.options["norms"]:
        if norm is not None:
            p.need_figures(norm)
    spec = _shape_of_group(p, node)
    arguments = _leaf_arguments(p, node)
    p.call(spec, p.new_value(node.output), Now("seed"), Now("first"), *arguments, 0, spec.rows)


def group_back(p: Planner, node: Node) -> None:
    """Back to every map read; behind norms in a phase of its own."""
    spec = _shape_of_group(p, node)
    norms = node.options["norms"]
    holders = gradient_lines(spec.program)
    dy, own = p.taken(node.output)
    leaf_lines = [n for n, line in enumerate(spec.program) if line[0] in ("leaf", "norm")]
    by_holder: dict[int, Buffer] = {}
    outputs: list[int] = []
    buffers: list[Argument] = []
    for line, value, norm in zip(leaf_lines, node.inputs, norms, strict=True):
        holder = holders[line]
        learns = norm is not None and set(norm.weights.values()) & p.learns
        if holder in by_holder or not (value in p.wanted or learns):
            continue
        buffer = dy if own and dy not in buffers else Buffer(dy.elements)
        by_holder[holder] = buffer
        outputs.append(holder)
        buffers.append(buffer)
    sums = [p.sum_space(4 * spec.channels * p.machine.vector) for norm in norms if norm is not None]
    p.call(
        PointwiseBack(spec, tuple(outputs)), dy, Now("seed"), Now("first"),
        *_leaf_arguments(p, node), *buffers, *sums, 0, spec.rows,
    )  # fmt: skip
    found = iter(sums)
    pending: list[tuple[int, Buffer, Any]] = []
    for line, value, norm in zip(leaf_lines, node.inputs, norms, strict=True):
        there = by_holder.get(holders[line])
        if norm is not None:
            mine = next(found)
            if there is not None:
                pending.append((value, there, p.norm_back(norm, mine)))
        elif value in p.wanted and there is not None:
            p.contribute_buffer(value, there)
    if pending:
        p.cut()
    for value, _, _ in pending:  # what one writes, none of the others may still have to read
        stands = p.gradients.get(value)
        shared = any(stands is buffer for _, buffer, _ in pending)
        if len(pending) > 1 and stands is not None and shared:
            p.own_copy(value, stands)
    for value, buffer, figures in pending:
        if value not in p.wanted:
            continue
        dx, add = p.contribute(value)
        p.call(
            NormBack(spec.channels, spec.rows, spec.row, add), buffer, p.values[value], figures, dx,
            p.present, 0, spec.rows,
        )  # fmt: skip
