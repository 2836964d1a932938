"""A net as a list of nodes: what `read.py` makes and `join.py` shortens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, int, int]


class NotCovered(Exception):
    """The net has something that the native step cannot do; the message names it."""


@dataclass(frozen=True)
class Node:
    """One thing that is computed.

    Attributes:
        kind: conv, conv_transposed, linear, norm, unary, binary, dropout, pool, whole, concat,
            thin, upsample, view, resample, response, broadcast, group.
        inputs, output: values by number.
        weights: parameters and buffers by what they are to the node: {"weight": "conv1.weight"}.
        options: the rest.
        path: the module it belongs to.
    """

    kind: str
    inputs: tuple[int, ...]
    output: int
    weights: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    path: str = ""


@dataclass
class Graph:
    """Nodes in the order they run; `shapes` of the values for one image, always (C, H, W).

    Attributes:
        image, logits: the value that comes in, and the one that the net answers with.
        also: further logits, of auxiliary heads, each with a loss of its own.
        answers: the shapes of these for one image, the logits' first: (classes,), or
            (classes, H, W) where every pixel has some. The values may be folded otherwise.
    """

    nodes: list[Node]
    shapes: dict[int, Shape]
    image: int
    logits: int
    also: tuple[int, ...] = ()
    answers: tuple[tuple[int, ...], ...] = ()

    @property
    def answer(self) -> tuple[int, ...]:
        """The shape of an image's logits."""
        return self.answers[0]

    @property
    def results(self) -> tuple[int, ...]:
        """The values that must come out, whoever else reads them."""
        return self.logits, *self.also

    def consumers(self, value: int) -> list[Node]:
        return [node for node in self.nodes if value in node.inputs]
