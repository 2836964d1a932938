"""Small graphs, node by node: the lectures' f = (x + y) z, forward and backward.

>>> print(expression("(x + y) * z", x=-2, y=5, z=-4))  # doctest: +NORMALIZE_WHITESPACE
node  operation    value  d f / d node
x                     -2            -4
y                      5            -4
z                     -4             3
a     x + y            3            -4
f     a * z          -12             1
"""

from __future__ import annotations

import ast
import io
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hubel.engine.ops import OPS
from hubel.engine.ops.base import Op, Saved
from hubel.errors import OptionError, unknown

SIGNS = {
    ast.Add: ("add", "+"), ast.Sub: ("subtract", "-"), ast.Mult: ("multiply", "*"),
    ast.Div: ("divide", "/"), ast.Pow: ("power", "**"),
}  # fmt: skip
FUNCTIONS = {
    name: name
    for name in ("exp", "log", "sqrt", "sin", "cos", "tanh", "sigmoid", "relu", "abs", "softplus")
} | {"max": "maximum", "min": "minimum"}


@dataclass
class Node:
    """One value of the graph and d f / d value."""

    name: str
    words: str
    value: float
    gradient: float = 0.0
    inputs: tuple[Any, ...] = ()  # nodes, or plain numbers
    op: type[Op] | None = None
    saved: Saved = field(default=(), repr=False)


class Expression:
    """A computed graph: `nodes` in the order of computing, the last one is f."""

    def __init__(self, text: str, nodes: list[Node]) -> None:
        self.text, self.nodes = text, nodes

    def __getitem__(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise OptionError(unknown("node", name, [node.name for node in self.nodes]))

    @property
    def value(self) -> float:
        """f."""
        return self.nodes[-1].value

    @property
    def grads(self) -> dict[str, float]:
        """d f / d x for every variable."""
        return {node.name: node.gradient for node in self.nodes if node.op is None}

    def __repr__(self) -> str:
        rows = [("node", "operation", "value", "d f / d node")]
        rows += [(n.name, n.words, f"{n.value:.6g}", f"{n.gradient:.6g}") for n in self.nodes]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        return "\n".join(
            f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}"
            for a, b, c, d in rows
        )

    def svg(self) -> str:
        """The graph as a picture: values above the nodes in green, gradients below in red."""
        page = io.StringIO()
        self.figure().savefig(page, format="svg")
        return page.getvalue()

    def figure(self) -> Any:
        """The same as a Matplotlib figure."""
        from matplotlib.figure import Figure

        places = _places(self.nodes)
        width = max(x for x, _ in places.values()) + 1
        height = max(y for _, y in places.values()) + 1
        figure = Figure(figsize=(1.9 * width + 0.6, 1.05 * height + 0.4), dpi=120)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.axis("off")
        axes.set_xlim(-0.6, width - 0.2)
        axes.set_ylim(-0.6, height - 0.4)
        boxes = {node.name: _draw_node(axes, node, places[node.name]) for node in self.nodes}
        for node in self.nodes:
            _draw_arrows(axes, node, places, boxes)
        return figure

    def _repr_svg_(self) -> str:
        return self.svg()


def expression(text: str, **values: float) -> Expression:
    """Compute a formula of numbers and all its gradients, one operator of the engine per node.

        hubel.expression("(x + y) * z", x=-2, y=5, z=-4)

    Args:
        text: + - * / ** and exp, log, sqrt, sin, cos, tanh, sigmoid, relu, abs, softplus, max, min.
        values: one number for every variable.

    Raises `OptionError` for a formula that is something else, or a variable without a value.
    """
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise OptionError(f"cannot read the formula {text!r}: {error.msg}") from None
    maker = _Maker(values)
    last = maker.make(tree)
    if not isinstance(last, Node):
        raise OptionError(f"the formula {text!r} has no variable")
    nodes = maker.nodes
    if last.op is not None:
        last.name = "f"
    last.gradient = 1.0
    for node in reversed(nodes):
        _send_back(node)
    return Expression(text, nodes)


def _send_back(node: Node) -> None:
    """Chain rule at one node: its gradient, times its slopes, to its inputs."""
    if node.op is None:
        return
    dy = torch.tensor(node.gradient, dtype=torch.float64)
    for given, gradient in zip(node.inputs, node.op.backward(dy, node.saved), strict=True):
        if isinstance(given, Node) and gradient is not None:
            given.gradient += float(gradient)


class _Maker:
    """From the formula's tree to nodes, computed on the way."""

    def __init__(self, values: dict[str, float]) -> None:
        self.values = values
        self.nodes: list[Node] = [Node(name, "", float(value)) for name, value in values.items()]
        self._fresh = (c for c in "abcdeghijklmnopqrstuvwxyz" if c not in values)

    def make(self, tree: ast.AST) -> Any:
        if isinstance(tree, ast.Constant) and isinstance(tree.value, (int, float)):
            return float(tree.value)
        if isinstance(tree, ast.Name):
            return self._variable(tree.id)
        if isinstance(tree, ast.BinOp) and type(tree.op) in SIGNS:
            name, sign = SIGNS[type(tree.op)]
            one, two = self.make(tree.left), self.make(tree.right)
            return self._node(name, f"{_named(one)} {sign} {_named(two)}", one, two)
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
            inner = self.make(tree.operand)
            return (
                -inner
                if not isinstance(inner, Node)
                else self._node("neg", f"-{_named(inner)}", inner)
            )
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.keywords:
            return self._call(tree.func.id, [self.make(a) for a in tree.args])
        raise OptionError(
            f"cannot compute {ast.unparse(tree)!r}: allowed are + - * / ** and "
            + ", ".join(FUNCTIONS)
        )

    def _variable(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        given = ", ".join(self.values) or "none"
        raise OptionError(f"the variable {name!r} has no value: given {given}")

    def _call(self, name: str, inputs: list[Any]) -> Any:
        if name not in FUNCTIONS:
            raise OptionError(unknown("function", name, FUNCTIONS))
        wanted = 2 if name in ("max", "min") else 1
        if len(inputs) != wanted:
            raise OptionError(f"{name} takes {wanted} arguments, given {len(inputs)}")
        return self._node(FUNCTIONS[name], f"{name}({', '.join(map(_named, inputs))})", *inputs)

    def _node(self, name: str, words: str, *inputs: Any) -> Any:
        tensors = [
            torch.tensor(i.value, dtype=torch.float64) if isinstance(i, Node) else i for i in inputs
        ]
        if not any(isinstance(i, Node) for i in inputs):
            tensors = [torch.tensor(i, dtype=torch.float64) for i in inputs]
        op = OPS[name]
        if name in ("maximum", "minimum"):
            tensors = [torch.as_tensor(t, dtype=torch.float64) for t in tensors]
        y, saved = op.forward(*tensors)
        assert isinstance(y, Tensor)
        if not any(isinstance(i, Node) for i in inputs):
            return float(y)
        node = Node(next(self._fresh), words, float(y), inputs=inputs, op=op, saved=saved)
        self.nodes.append(node)
        return node


def _named(value: Any) -> str:
    return value.name if isinstance(value, Node) else f"{value:g}"


def _places(nodes: list[Node]) -> dict[str, tuple[float, float]]:
    """Columns by distance from the variables, rows from the top."""
    depth: dict[str, int] = {}
    for node in nodes:
        below = [depth[i.name] for i in node.inputs if isinstance(i, Node)]
        depth[node.name] = 1 + max(below) if below else 0
    places: dict[str, tuple[float, float]] = {}
    variables = [n for n in nodes if n.op is None]
    for row, node in enumerate(variables):
        places[node.name] = (0.0, float(len(variables) - 1 - row))
    for node in nodes:
        if node.op is not None:
            rows = [places[i.name][1] for i in node.inputs if isinstance(i, Node)]
            places[node.name] = (float(depth[node.name]), sum(rows) / len(rows))
    return places


def _draw_node(axes: Any, node: Node, place: tuple[float, float]) -> Any:
    """Its box, with the value above and the gradient below; returns the box."""
    x, y = place
    label = node.name if node.op is None else f"{node.name} = {node.words}"
    box = {"boxstyle": "round,pad=0.35", "fc": "#f3f6fa", "ec": "#44546a"}
    text = axes.text(x, y, label, ha="center", va="center", fontsize=11, bbox=box, zorder=3)
    axes.text(x, y + 0.21, f"{node.value:.4g}", ha="center", color="#1a7f37", fontsize=10)
    axes.text(x, y - 0.33, f"{node.gradient:.4g}", ha="center", color="#c0392b", fontsize=10)
    return text.get_bbox_patch()


def _draw_arrows(axes: Any, node: Node, places: dict[str, Any], boxes: dict[str, Any]) -> None:
    for given in node.inputs:
        if isinstance(given, Node):
            arrow = {
                "arrowstyle": "->", "color": "#7f8c9a", "patchA": boxes[given.name],
                "patchB": boxes[node.name], "shrinkA": 2, "shrinkB": 2,
            }  # fmt: skip
            axes.annotate("", places[node.name], places[given.name], arrowprops=arrow)
