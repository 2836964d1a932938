"""From the engine's tape to a graph: each record becomes a node, or nothing runs natively.

`read_graph` runs the net once; a record that no node can stand for raises `NotCovered` with its
name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hubel.engine.native.graph import Graph, Node, NotCovered, Shape
from hubel.engine.native.kernels.functions import UNARY
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
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise NotCovered(f"a net that answers with {_kind(output)}")
    return _Reader(model, tape, len(images)).graph(images, output)


def _kind(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"shape {tuple(output.shape)} instead of (N, classes)"
    return f"a {type(output).__name__}"


class _Reader:
    def __init__(self, model: nn.Module, tape: Tape, batch: int) -> None:
        self.tape, self.batch = tape, batch
        number = tape.values.number
        self.names = {number(p): name for name, p in model.named_parameters()}
        self.names |= {number(b): name for name, b in model.named_buffers()}
        self.alias: dict[int, int] = {}
        self.shapes: dict[int, Shape] = {}

    def graph(self, images: Tensor, output: Tensor) -> Graph:
        image = self.tape.values.number(images)
        self.shapes[image] = self._shape(tuple(images.shape), "the images")
        nodes = []
        for record in self.tape.records:
            nodes.extend(self._node(record))
        logits = self._value(self.tape.values.number(output))
        return _renumbered(Graph(_needed(nodes, logits), self.shapes, image, logits))

    def _value(self, number: int | None) -> int:
        if number is None:
            raise NotCovered("a number where a map is wanted")
        while number in self.alias:
            number = self.alias[number]
        return number

    def _shape(self, shape: tuple[int, ...] | None, what: str) -> Shape:
        if shape is None or not shape or shape[0] != self.batch or len(shape) not in (2, 3, 4):
            raise NotCovered(f"{what} of shape {shape}")
        rest = shape[1:]
        return (*rest, *[1] * (3 - len(rest)))  # type: ignore[return-value]

    def _node(self, record: Record) -> list[Node]:
        where = f" in {record.path}" if record.path else ""
        what = f"{record.op.name}{where}"
        make = _READERS.get(record.op.name)
        if make is None and record.op.name not in UNARY and record.op.name != "relu6":
            raise NotCovered(what)
        for dtype in record.dtypes:
            if dtype not in (None, torch.float32, torch.bool, torch.int64):
                raise NotCovered(f"{what} in {dtype}")
        try:
            node = (make or _unary)(self, record)
        except NotCovered as error:
            raise NotCovered(f"{what}: {error}") from None
        if node is None:
            return []
        self.shapes[node.output] = self._shape(record.shapes.outputs[0], what)
        return [replace(node, path=record.path)]

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

    def data(self, record: Record, place: int = 0) -> int:
        """The map at this argument."""
        value = self._value(record.inputs[place])
        if value not in self.shapes:
            raise NotCovered("a value that does not come from the images")
        return value


def _needed(nodes: list[Node], logits: int) -> list[Node]:
    """Without what nothing comes of."""
    wanted, kept = {logits}, []
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
    return Graph(nodes, shapes, 0, order[graph.logits])


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
    return Node("norm", (r.data(record),), record.outputs[0], weights, dict(record.options))


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
        if (o["scale"], o["input_scale"]) != (1, 1):
            raise NotCovered("with a scale")
        figures = (o["alpha"],)
    elif name == "gelu" and o["approximate"] != "none":
        raise NotCovered("by its tanh form")
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
    a, b = r.data(record, 0), r.data(record, 1)
    if r.shapes[a] != r.shapes[b]:
        raise NotCovered(f"of maps of different shape, {r.shapes[a]} and {r.shapes[b]}")
    verb = {"add": "add", "subtract": "sub", "multiply": "mul"}[name]
    return Node("binary", (a, b), record.outputs[0], {}, {"verb": verb})


def _negative(r: _Reader, record: Record) -> Node:
    return _function(r, record, 0, "linear", (-1.0, 0.0))


def _dropout(r: _Reader, record: Record) -> Node | None:
    p = float(record.options["p"])
    if record.spelling.startswith("aten.feature_dropout"):
        raise NotCovered("of whole maps")
    if p == 0:
        r.alias[record.outputs[0]] = r.data(record)
        return None
    return Node("dropout", (r.data(record),), record.outputs[0], {}, {"p": p})


def _pool(r: _Reader, record: Record) -> Node:
    o = dict(record.options)
    if len(o["kernel"]) != 2:
        raise NotCovered("not two-dimensional")
    kind = "max" if record.op.name == "max_pool" else "mean"
    if kind == "mean" and (o["divisor"] is not None or o["ceil_mode"]):
        raise NotCovered("with ceil_mode or a divisor of its own")
    if o.get("indices") and any(n in _read_values(r) for n in record.outputs[1:]):
        raise NotCovered("whose places are asked for")
    options = {
        "kind": kind, "kernel": o["kernel"], "stride": o["stride"], "padding": o["padding"],
        "dilation": o.get("dilation", (1, 1)), "padding_counts": o.get("count_padding", True),
    }  # fmt: skip
    return Node("pool", (r.data(record),), record.outputs[0], {}, options)


def _read_values(r: _Reader) -> set[int]:
    return {n for record in r.tape.records for n in record.inputs if n is not None}


def _adaptive(r: _Reader, record: Record) -> Node | None:
    value = r.data(record)
    shape, size = r.shapes[value], tuple(record.options["size"])
    if size == shape[1:]:
        r.alias[record.outputs[0]] = value
        return None
    if size != (1, 1):
        raise NotCovered(f"from {shape[1:]} to {size}")
    return Node("whole", (value,), record.outputs[0], {}, {"kind": "mean"})


def _over_maps(kind: str) -> Callable[[_Reader, Record], Node]:
    def read(r: _Reader, record: Record) -> Node:
        shape = record.shapes.inputs[0]
        axes = record.options.get("axes")
        axes = axes if isinstance(axes, (tuple, list)) else (axes,)
        if (
            shape is None
            or len(shape) != 4
            or sorted(a % 4 for a in axes if a is not None) != [2, 3]
        ):
            raise NotCovered("over other axes than rows and columns")
        if record.options.get("sign", 1) != 1 or record.options.get("dtype") is not None:
            raise NotCovered("of another kind")
        return Node("whole", (r.data(record),), record.outputs[0], {}, {"kind": kind})

    return read


def _reshape(r: _Reader, record: Record) -> None:
    value = r.data(record)
    inside, outside = record.shapes.inputs[0], record.shapes.outputs[0]
    if inside is None or outside[0] != inside[0] or len(outside) not in (2, 4):
        raise NotCovered(f"from {inside} to {outside}")
    c, h, w = r.shapes[value]
    if len(outside) == 4 and tuple(outside[1:]) != (c, h, w):
        raise NotCovered(f"from {inside} to {outside}")
    r.alias[record.outputs[0]] = value


def _concat(r: _Reader, record: Record) -> Node:
    if record.options["axis"] not in (1, -3):
        raise NotCovered("along another axis than the channels")
    inputs = tuple(r.data(record, place) for place in range(len(record.inputs)))
    return Node("concat", inputs, record.outputs[0])


def _slice(r: _Reader, record: Record) -> Node | None:
    """Every second row or column, as ResNet's option A takes them; two in a row are joined."""
    o, value = record.options, r.data(record)
    shape = record.shapes.inputs[0]
    axis = o["axis"] % 4 if shape is not None and len(shape) == 4 else -1
    if axis < 1:
        raise NotCovered("of the batch")
    if shape is not None and o["length"] == shape[axis] and o["step"] == 1:
        r.alias[record.outputs[0]] = value
        return None
    start, step = [0, 0, 0], [1, 1, 1]
    start[axis - 1], step[axis - 1] = o["start"], o["step"]
    options = {"start": tuple(start), "step": tuple(step), "into": 0}
    return Node("thin", (value,), record.outputs[0], {}, options)


def _pad(r: _Reader, record: Record) -> Node:
    """Channels of zeros around the others."""
    sides = tuple(record.options["sides"])
    if record.options["mode"] != "constant" or record.options["value"] or any(sides[:4]):
        raise NotCovered("other than with channels of zeros")
    if len(sides) != 6 or min(sides) < 0:
        raise NotCovered("of another form")
    options = {"start": (0, 0, 0), "step": (1, 1, 1), "into": sides[4]}
    return Node("thin", (r.data(record),), record.outputs[0], {}, options)


def _upsample(r: _Reader, record: Record) -> Node:
    value, o = r.data(record), record.options
    _, h, w = r.shapes[value]
    tall, wide = o["size"]
    if o["kind"] != "nearest" or tall % h or wide % w:
        raise NotCovered(f"{o['kind']} from {(h, w)} to {(tall, wide)}")
    return Node("upsample", (value,), record.outputs[0], {}, {"factor": (tall // h, wide // w)})


_READERS: dict[str, Callable[[_Reader, Record], Node | None]] = {
    "conv": _conv,
    "conv_transposed": _conv_transposed,
    "linear": _linear,
    "batch_norm": _norm,
    "dropout": _dropout,
    "max_pool": _pool,
    "average_pool": _pool,
    "adaptive_average_pool": _adaptive,
    "mean": _over_maps("mean"),
    "extreme": _over_maps("max"),
    "reshape": _reshape,
    "concat": _concat,
    "slice": _slice,
    "pad": _pad,
    "upsample": _upsample,
    "neg": _negative,
    **dict.fromkeys(("add", "subtract", "multiply", "divide"), _arithmetic),
}
