"""Fewer nodes for the same graph.

A convolution takes in the zeros put around its map, and the ReLU and the 2 x 2 pooling behind it;
what works on each number by itself is joined into groups, each of which one kernel runs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hubel.engine.native.graph import Graph, Node
from hubel.engine.native.kernels.pointwise import Line


def joined(graph: Graph) -> Graph:
    """The same graph with fewer nodes: see the module's text."""
    return _with_groups(_with_tails(_with_borders(graph)))


def _only(graph: Graph, value: int) -> Node | None:
    """The one node that reads a value, if there is just one and it is not a result."""
    readers = graph.consumers(value)
    return readers[0] if len(readers) == 1 and value not in graph.results else None


def _with_borders(graph: Graph) -> Graph:
    """Zeros around a map that only a convolution reads become the convolution's own padding.

    In front they are added to it; behind, the number of outputs says enough.
    """
    made = {node.output: node for node in graph.nodes}
    nodes, gone = [], set()
    for node in graph.nodes:
        before = made.get(node.inputs[0]) if node.kind == "conv" else None
        if before and _only(graph, before.output) and _is_border(before, graph):
            _, top, left = before.options["into"]
            padding = node.options["padding"]
            options = {**node.options, "padding": (padding[0] + top, padding[1] + left)}
            nodes.append(replace(node, inputs=before.inputs, options=options))
            gone.add(before.output)
        else:
            nodes.append(node)
    return replace(graph, nodes=[node for node in nodes if node.output not in gone])


def _is_border(node: Node, graph: Graph) -> bool:
    o = node.options
    ins, outs = graph.shapes[node.inputs[0]], graph.shapes[node.output]
    return (
        node.kind == "thin" and o["start"] == (0, 0, 0) and o["step"] == (1, 1, 1)
        and o["into"][0] == 0 and ins[0] == outs[0]
        and all(o["into"][a] + ins[a] <= outs[a] for a in (1, 2))
    )  # fmt: skip


def _with_tails(graph: Graph) -> Graph:
    """ReLU, and 2 x 2 max pooling, taken into the convolution or the linear layer before."""
    nodes, gone = [], set()
    for node in graph.nodes:
        if node.output in gone:
            continue
        taken = node
        if node.kind in ("conv", "linear"):
            behind = _only(graph, taken.output)
            if behind and behind.kind == "unary" and behind.options["name"] == "relu":
                taken = _ended(taken, behind, "relu")
                gone.add(behind.output)
                behind = _only(graph, taken.output)
            if node.kind == "conv" and behind and _halves(behind, graph):
                taken = _ended(taken, behind, "pool")
                gone.add(behind.output)
        nodes.append(taken)
    return replace(graph, nodes=nodes)


def _ended(node: Node, behind: Node, word: str) -> Node:
    before = {"inner": node.output} if word == "pool" else {}
    return replace(node, output=behind.output, options={**node.options, word: True, **before})


def _halves(node: Node, graph: Graph) -> bool:
    o = node.options
    return (
        node.kind == "pool" and o["kind"] == "max" and o["kernel"] == o["stride"] == (2, 2)
        and o["padding"] == (0, 0) and o["dilation"] == (1, 1)
        and graph.shapes[node.output][1:] == tuple(s // 2 for s in graph.shapes[node.inputs[0]][1:])
    )  # fmt: skip


_ALONE = ("unary", "binary", "dropout", "norm")


def _with_groups(graph: Graph) -> Graph:
    made = {node.output: node for node in graph.nodes}
    inside = set()
    for node in graph.nodes:
        reader = _only(graph, node.output)
        if node.kind in _ALONE and reader and reader.kind in _ALONE[:3]:
            same = graph.shapes[node.output] == graph.shapes[reader.output]
            if same and reader.inputs.count(node.output) == 1:
                inside.add(node.output)
    nodes = [
        _group(node, made, inside, graph) if node.kind in _ALONE else node
        for node in graph.nodes
        if node.output not in inside
    ]
    return replace(graph, nodes=nodes)


def _group(root: Node, made: dict[int, Node], inside: set[int], graph: Graph) -> Node:
    program: list[Line] = []
    inputs: list[int] = []
    norms: list[Node | None] = []

    def leaf(value: int, norm: Node | None) -> int:
        inputs.append(value)
        norms.append(norm)
        program.append(("norm" if norm else "leaf", len(inputs) - 1))
        return len(program) - 1

    def line(value: int) -> int:
        node = made.get(value)
        if node is None or (value not in inside and node is not root):
            return leaf(value, None)
        if node.kind == "norm":
            return leaf(node.inputs[0], node)
        operands = tuple(line(v) for v in node.inputs)
        if node.kind == "binary":
            program.append((node.options["verb"], *operands))
        elif node.kind == "dropout":
            word = "map_dropout" if node.options.get("maps") else "dropout"
            program.append((word, *operands, node.options["p"], node.output))
        else:
            program.append((node.options["name"], *operands, *node.options["figures"]))
        return len(program) - 1

    line(root.output)
    options: dict[str, Any] = {"program": tuple(program), "norms": tuple(norms)}
    return Node("group", tuple(inputs), root.output, {}, options, root.path)
