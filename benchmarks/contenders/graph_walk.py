"""What nets in JAX, TensorFlow and tinygrad share: the way through a graph, the update's sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hubel.engine.native.graph import Graph, Node

Weights = dict[str, Any]
# Called with a node, the weights, the output's shape (maps, height, width), and the inputs.
Kind = Callable[..., Any]

RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4


def outputs(graph: Graph, kinds: Mapping[str, Kind], weights: Weights, images: Any) -> Any:
    """The graph's logits for images laid out as `kinds` want them."""
    values = {graph.image: images}
    for node in graph.nodes:
        given = [values[v] for v in node.inputs]
        values[node.output] = kinds[node.kind](node, weights, graph.shapes[node.output], *given)
    return values[graph.logits]


def binary(node: Node, weights: Weights, shape: Any, a: Any, b: Any) -> Any:
    """Sum, difference or product: every one of these tensors has Python's signs."""
    return {"add": a + b, "sub": a - b, "mul": a * b}[node.options["verb"]]
