"""A net's graph on its way to one that slides over larger images: what stands for each value.

Beside every value of the net stands a map (N, C, h, w) that, at the training size, holds the same
numbers in the same order: flattening changes the value's shape and leaves its map as it is. So a
fully connected layer behind it meets the map, and becomes a convolution with the map's size as its
kernel; whatever pools over places becomes a window that moves. `models/sliding_rules.py` says what
becomes of each kind of call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from torch import fx, nn

from hubel.errors import ModelError

Pair = tuple[int, int]


class Map(NamedTuple):
    """What stands for a value: its shape (N, C, h, w) at the training size, and the pixels of the
    image between neighbouring places, (rows, columns)."""

    shape: tuple[int, ...]
    step: Pair

    @property
    def places(self) -> Pair:
        return self.shape[2], self.shape[3]

    def pooled(self, window: Pair, stride: Pair) -> Map:
        """The map of windows that lie wholly inside."""
        sides = [(n - k) // s + 1 for n, k, s in zip(self.places, window, stride, strict=True)]
        return Map((*self.shape[:2], *sides), scaled(self.step, stride))


class Turning:
    """A graph under way, from a net on images of one size to one that slides.

    Attributes:
        root: the modules the graph calls; layers are exchanged in it.
        maps: what stands for each value so far; constants have none.
        same: calls that only change a shape: their input stands for them.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, size: Pair) -> None:
        self.root, self.graph, self.size = root, graph, size
        self.maps: dict[fx.Node, Map] = {}
        self.same: list[fx.Node] = []
        calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
        self.shared = {path for path in calls if calls.count(path) > 1}

    def layer(self, node: fx.Node) -> Any:
        return self.root.get_submodule(str(node.target))

    def source(self, node: fx.Node) -> fx.Node:
        """The one value that a call works on. Raises `ModelError` where there are others."""
        found = [n for n in node.all_input_nodes if n in self.maps]
        if len(found) != 1 or node.args[:1] != (found[0],):
            self.refuse(node, "it works on several maps, or not on the first thing it is given")
        return found[0]

    def given(self, node: fx.Node, *ranks: int) -> Map:
        """The map a call works on. Raises `ModelError` where the value has another rank."""
        source = self.source(node)
        if ranks and len(shape_of(source)) not in ranks:
            self.refuse(node, f"it works on values of shape {shape_of(source)}")
        return self.maps[source]

    def stands(self, node: fx.Node, found: Map) -> None:
        self.maps[node] = found

    def unchanged(self, node: fx.Node) -> None:
        """The map of the input stands for this value too."""
        self.same.append(node)
        self.maps[node] = self.given(node)

    def put(self, node: fx.Node, layer: nn.Module) -> None:
        """`node` calls `layer` instead, under its own path where nobody else calls that."""
        path = str(node.target)
        if node.op != "call_module" or path in self.shared:
            path = f"sliding_{node.name}"
        owner, _, name = path.rpartition(".")
        setattr(self.root.get_submodule(owner), name, layer.eval())
        node.op, node.target, node.args, node.kwargs = "call_module", path, node.args[:1], {}

    def refuse(self, node: fx.Node, why: str) -> NoReturn:
        """Raise `ModelError`: this call, and why it cannot slide."""
        if node.op == "call_module":
            what = f"{node.target} ({type(self.layer(node)).__name__})"
        else:
            inside = node.meta.get("inside")
            what = f"{name_of(node)} in the forward of {inside or 'the model'}"
        raise ModelError(f"the net cannot slide over larger images: {what}: {why}")


Rule = Callable[[Turning, fx.Node], None]


def name_of(node: fx.Node) -> str:
    """The plain name of a function or method: "add" for `+`, `+=`, `torch.add` and `x.add_`."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "?")
    name = str(name).strip("_")
    return {"iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div"}.get(name, name)


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """The shape of the net's own value, at the training size."""
    return tuple(node.meta["shape"] or ())


def axes_of(map_shape: tuple[int, ...], shape: tuple[int, ...]) -> list[set[int]] | None:
    """For every dimension of `shape`, the axes of a map (N, C, h, w) that it holds in one row.

    None where a dimension holds part of an axis. Axes of length 1 lie nowhere, unless the shape is
    the map's own.
    """
    if shape == map_shape:
        return [{axis} for axis in range(len(shape))]
    left = [(axis, length) for axis, length in enumerate(map_shape) if length > 1]
    found: list[set[int]] = []
    for length in shape:
        held: set[int] = set()
        rest = length
        while rest > 1 and left and rest % left[0][1] == 0:
            axis, of = left.pop(0)
            held.add(axis)
            rest //= of
        if rest != 1:
            return None
        found.append(held)
    return None if left else found


def scaled(step: Pair, stride: Pair) -> Pair:
    """Pixels between places behind a stride."""
    return step[0] * stride[0], step[1] * stride[1]


def pair(value: Any) -> Pair:
    """A number for both axes, or one for each."""
    return (int(value[0]), int(value[-1])) if isinstance(value, tuple | list) else (value, value)


def argument(node: fx.Node, place: int, name: str, default: Any = None) -> Any:
    """An argument of a call, by place or by name."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)
