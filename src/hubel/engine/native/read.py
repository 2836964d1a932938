"""From the engine's tape to a graph: each record becomes a node, or nothing runs natively.

`read_graph` runs the net once; a record that no node can stand for raises `NotCovered` with its
name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hubel.engine.native.graph import Graph, Node, NotCovered, Shape
from hubel.engine.native.kernels.functions import UNARY
from hubel.engine.native.read_maps import BROADCASTS, MAPS, broadcast
from hubel.engine.record import Record
from hubel.engine.tape import Tape


def read_graph(model: nn.Module, images: Tensor) -> Graph:
    """The graph of `model` as it stands (training or not), for images like these (N, C, H, W).

    The model's buffers are left as they were. Raises `NotCovered`.
    """
    kept = [buffer.clone() for buffer in model.buffers()]
    try:
        with Tape(model, watch={"images": images}) as tape, torch.random.fork_rng(devices=[]):
            output = model(images)
    finally:
        with torch.no_grad():
            for buffer, before in zip(model.buffers(), kept, strict=True):
                buffer.copy_(before)
    return _Reader(model, tape, len(images)).graph(images, _answers(output))


def _answers(output: Any) -> list[Tensor]:
    """What the net answers with: the logits (N, classes) or (N, classes, H, W), then those of
    auxiliary heads ("aux1", "aux2", ...) in their order."""
    given = dict(output) if isinstance(output, Mapping) else {"logits": output}
    heads = sorted(name for name in given if str(name).startswith("aux"))
    found = {name: given.pop(name, None) for name in ("logits", *heads)}
    wanted = list(FORMS)
    for name, z in found.items():
        if not isinstance(z, Tensor) or z.ndim not in wanted:
            where = "" if name == "logits" else f" as {name}"
            raise NotCovered(f"a net that answers with {_kind(z, wanted)}{where}")
        wanted = [z.ndim]  # the heads' as the logits'
    if given:
        raise NotCovered(f"a net that answers with {', '.join(map(repr, given))} too")
    return list(found.values())


FORMS = {2: "(N, classes)", 4: "(N, classes, H, W)"}  # of answers, by their number of axes


def _kind(output: Any, wanted: list[int]) -> str:
    if isinstance(output, Tensor):
        forms = " or ".join(FORMS[axes] for axes in wanted)
        return f"shape {tuple(output.shape)} instead of {forms}"
    return f"a {type(output).__name__}"


class _Reader:
    def __init__(self, model: nn.Module, tape: Tape, batch: int) -> None:
        self.tape, self.batch, self.model = tape, batch, model
        number = tape.values.number
        self.names = {number(p): name for name, p in model.named_parameters()}
        self.names |= {number(b): name for name, b in model.named_buffers()}
        self.alias: dict[int, int] = {}
        self.views: dict[int, int] = {}  # a parameter under another shape: its own number
        self.unfolded: list[Node] = []  # views that the record at hand asks for
        self.moved: set[str] = set()  # running statistics that a step changes
        self.shapes: dict[int, Shape] = {}

    def graph(self, images: Tensor, answers: list[Tensor]) -> Graph:
        image = self.tape.values.number(images)
        self.shapes[image] = self._shape(tuple(images.shape), "the images")
        nodes = []
        for record in self.tape.records:
            nodes.extend(self._node(record))
        logits, *also = (self._value(self.tape.values.number(z)) for z in answers)
        if len({logits, *also}) <= len(also):
            raise NotCovered("a net that answers with the same twice")
        graph = Graph(
            nodes,
            self.shapes,
            image,
            logits,
            tuple(also),
            tuple(tuple(z.shape[1:]) for z in answers),
        )
        return _renumbered(replace(graph, nodes=_needed(nodes, graph.results)))

    def _value(self, number: int | None) -> int:
        if number is None:
            raise NotCovered("a number where a map is wanted")
        while number in self.alias:
            number = self.alias[number]
        return number

    def _shape(self, shape: tuple[int, ...] | None, what: str) -> Shape:
        if shape is None or not shape or shape[0] != self.batch or len(shape) not in (2, 3, 4):
            raise NotCovered(f"{what} of shape {shape}")
        return _three(shape)

    def _node(self, record: Record) -> list[Node]:
        where = f" in {record.path}" if record.path else ""
        what = f"{record.op.name}{where}"
        make = _READERS.get(record.op.name)
        if make is None and record.op.name not in UNARY and record.op.name not in _KIN:
            raise NotCovered(what)
        for dtype in record.dtypes:
            if dtype not in (None, torch.float32, torch.bool, torch.int64):
                raise NotCovered(f"{what} in {dtype}")
        try:
            node = (make or _unary)(self, record)
        except NotCovered as error:
            raise NotCovered(f"{what}: {error}") from None
        views, self.unfolded = self.unfolded, []
        if node is None:
            return views
        self.shapes[node.output] = self._shape(record.shapes.outputs[0], what)
        return [*views, replace(node, path=record.path)]

    def weight(self, record: Record, **places: int) -> dict[str, str]:
        """The parameters and buffers at these arguments, those that are there."""
        found = {}
        for role, place in places.items():
            number = record.inputs[place] if place < len(record.inputs) else None
            if number is None:
                continue
            if number not in self.names:
                raise NotCovered(f"a {role} that is itself computed")
            found[role] = self.names[number]
        return found

    def parameter(self, record: Record, place: int) -> str | None:
        """The name of a parameter that stands here as it is or under another shape."""
        number = record.inputs[place]
        return self.names.get(self.views.get(number, number)) if number is not None else None

    def averages(self, path: str) -> bool:
        """Whether the batch norm there has a momentum that changes from batch to batch."""
        return getattr(self.model.get_submodule(path), "momentum", 0) is None

    def data(self, record: Record, place: int = 0) -> int:
        """The map at this argument; where it was folded since it was made, a view of it."""
        number = record.inputs[place]
        value = self._value(number)
        if value not in self.shapes:
            raise NotCovered("a value that does not come from the images")
        seen = record.shapes.inputs[place]
        if number is None or seen is None or record.op.name in _INDIFFERENT:
            return value
        if _three(seen) != self.shapes[value]:
            del self.alias[number]
            self.shapes[number] = _three(seen)
            self.unfolded.append(Node("view", (value,), number))
            return number
        return value


_INDIFFERENT = ("linear", "dropout", "reshape")  # to how their input is folded


def _three(shape: tuple[int, ...]) -> Shape:
    rest = shape[1:]
    return (*rest, *[1] * (3 - len(rest)))  # type: ignore[return-value]


def _needed(nodes: list[Node], results: Sequence[int]) -> list[Node]:
    """Without what nothing comes of."""
    wanted, kept = set(results), []
    for node in reversed(nodes):
        if node.output in wanted:
            wanted.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def _renumbered(graph: Graph) -> Graph:
    """The same with values counted from 0, so that equal nets have equal graphs."""
    order = {graph.image: 0}
    for node in graph.nodes:
        order[node.output] = len(order)
    nodes = [
        replace(node, inputs=tuple(order[v] for v in node.inputs), output=order[node.output])
        for node in graph.nodes
    ]
    shapes = {new: graph.shapes[old] for old, new in order.items()}
    also = tuple(order[value] for value in graph.also)
    return Graph(nodes, shapes, 0, order[graph.logits], also, graph.answers)


# ---- one record, one node


def _conv(r: _Reader, record: Record) -> Node:
    if len(record.options["stride"]) != 2:
        raise NotCovered("not two-dimensional")
    weights = r.weight(record, weight=1, bias=2)
    return Node("conv", (r.data(record),), record.outputs[0], weights, dict(record.options))


def _conv_transposed(r: _Reader, record: Record) -> Node:
    node = _conv(r, record)
    return replace(node, kind="conv_transposed")


def _linear(r: _Reader, record: Record) -> Node:
    shape = record.shapes.inputs[0]
    if shape is None or len(shape) != 2:
        raise NotCovered(f"an input of shape {shape}")
    weights = r.weight(record, weight=1, bias=2)
    return Node("linear", (r.data(record),), record.outputs[0], weights)


def _norm(r: _Reader, record: Record) -> Node:
    weights = r.weight(record, weight=1, bias=2, running_mean=3, running_var=4)
    inside = record.shapes.inputs[0]
    if inside is None or r.shapes[r.data(record)] != r._shape(tuple(inside), "the input"):
        raise NotCovered(f"of a map seen as {inside}")
    if record.options["training"] and "running_mean" in weights:
        if r.averages(record.path):
            raise NotCovered("whose running statistics average all batches (momentum None)")
        if weights["running_mean"] in r.moved:
            raise NotCovered("used in several places")
        r.moved.add(weights["running_mean"])
    return Node("norm", (r.data(record),), record.outputs[0], weights, dict(record.options))


_KIN = ("relu6", "celu", "selu")  # functions that are others with figures of their own
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017


def _unary(r: _Reader, record: Record) -> Node:
    name, o = record.op.name, record.options
    figures: tuple[float, ...] = ()
    if name == "leaky_relu":
        figures = (o["negative_slope"],)
    elif name == "hardtanh":
        figures = (o["min_val"], o["max_val"])
    elif name == "relu6":
        name, figures = "hardtanh", (0.0, 6.0)
    elif name == "elu":
        figures = (o["alpha"], o["scale"], o["input_scale"])
    elif name == "celu":
        alpha = o.get("alpha", 1.0)
        name, figures = "elu", (alpha, 1.0, 1 / alpha)
    elif name == "selu":
        name, figures = "elu", (SELU_ALPHA, SELU_SCALE, 1.0)
    elif name == "softplus":
        figures = (o["beta"], o["threshold"])
    elif name == "clamp":
        low, high = o["min"], o["max"]
        figures = (-math.inf if low is None else low, math.inf if high is None else high)
    elif name == "gelu" and o["approximate"] != "none":
        name = "gelu_tanh"
    return _function(r, record, 0, name, figures)


def _function(
    r: _Reader, record: Record, place: int, name: str, figures: tuple[float, ...]
) -> Node:
    options = {"name": name, "figures": tuple(float(x) for x in figures)}
    return Node("unary", (r.data(record, place),), record.outputs[0], {}, options)


def _arithmetic(r: _Reader, record: Record) -> Node:
    name, literals = record.op.name, record.literals
    factor = float(record.options.get("alpha", 1))
    if isinstance(literals[1], (int, float)):
        c = float(literals[1])
        figures = {
            "add": (1.0, factor * c), "subtract": (1.0, -factor * c),
            "multiply": (c, 0.0), "divide": (1 / c if c else float("inf"), 0.0),
        }[name]  # fmt: skip
        return _function(r, record, 0, "linear", figures)
    if isinstance(literals[0], (int, float)):
        c = float(literals[0])
        if name == "divide":
            raise NotCovered("a number over a map")
        figures = {"add": (factor, c), "subtract": (-factor, c), "multiply": (c, 0.0)}[name]
        return _function(r, record, 1, "linear", figures)
    if name == "divide" or factor != 1:
        raise NotCovered("of two maps")
    verb = BROADCASTS[name]
    if r.parameter(record, 0) or r.parameter(record, 1):
        return broadcast(r, record, verb)
    a, b = r.data(record, 0), r.data(record, 1)
    if r.shapes[a] != r.shapes[b]:
        return broadcast(r, record, verb)
    return Node("binary", (a, b), record.outputs[0], {}, {"verb": verb})


def _negative(r: _Reader, record: Record) -> Node:
    return _function(r, record, 0, "linear", (-1.0, 0.0))


def _dropout(r: _Reader, record: Record) -> Node | None:
    p = float(record.options["p"])
    if p == 0 and record.inputs[1] is not None:
        p = 1.0  # the tape has a mask of zeros, and nothing to make up for it
    if p == 0:
        r.alias[record.outputs[0]] = r.data(record)
        return None
    shape = record.shapes.inputs[0]
    maps = record.spelling.startswith("aten.feature_dropout") and shape and len(shape) == 4
    options = {"p": p, "maps": True} if maps else {"p": p}
    return Node("dropout", (r.data(record),), record.outputs[0], {}, options)


_READERS: dict[str, Callable[[_Reader, Record], Node | None]] = {
    "conv": _conv,
    "conv_transposed": _conv_transposed,
    "linear": _linear,
    "batch_norm": _norm,
    "dropout": _dropout,
    **MAPS,
    "neg": _negative,
    **dict.fromkeys(("add", "subtract", "multiply", "divide"), _arithmetic),
}
