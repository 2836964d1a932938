"""Fully connected layers: convolutions of kernel 1 over a row of tiles; of small tiles, kernels of
their own."""

from __future__ import annotations

from hubel.engine.native.graph import Node
from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.kernels.correlate import Correlate
from hubel.engine.native.kernels.dense import DenseGradient, row_floats
from hubel.engine.native.kernels.dense_small import DenseRows, DenseRowsBack, DenseWhole
from hubel.engine.native.kernels.move import Unpack
from hubel.engine.native.kernels.update import Reduce
from hubel.engine.native.lower.convolution import bias, bias_back, through_tail
from hubel.engine.native.plan import SCRATCH, ZEROS, Buffer, Gradient, Mine, Now, Part, Weight
from hubel.engine.native.planner import Planner


def linear(p: Planner, node: Node) -> None:
    """Forward."""
    if p.machine.wide > 1:
        _small(p, node)
        return
    v, (inputs, outputs) = p.machine.vector, (p.size(node.inputs[0]), p.size(node.output))

    def spec(tile: int, tiles: int) -> Correlate:
        one, across = Axis(1, 1, 1), Axis(tiles, tiles, 1)
        return Correlate(
            inputs, outputs, 1, one, across, inputs, 1, v, 0, tile, v, 0, tile,
            bias="bias" in node.weights, relu=node.options.get("relu", False),
        )  # fmt: skip

    p.call(
        spec, p.values[node.inputs[0]], Weight(node.weights["weight"]), bias(node),
        p.new_value(node.output), 0, 0, 0, ZEROS, 0, 1, together=True,
    )  # fmt: skip


def linear_back(p: Planner, node: Node) -> None:
    """Back: bias, weight, input."""
    v, (inputs, outputs) = p.machine.vector, (p.size(node.inputs[0]), p.size(node.output))
    dy = through_tail(p, node, outputs, 1, 1)
    bias_back(p, node, dy, outputs, 1)
    name, x = node.weights["weight"], p.values[node.inputs[0]]
    if p.machine.wide > 1:
        _small_back(p, node, dy)
        return
    if name in p.learns:
        padded = row_floats(inputs, p.machine)
        rows = p.machine.lanes * padded * 4
        p.scratch = max(p.scratch, 4 * rows)
        p.call(Unpack(inputs, padded, padded=True), x, Now("there"), Mine(SCRATCH, rows))

        def gradient(tile: int, tiles: int) -> DenseGradient:
            return DenseGradient(inputs, outputs, tiles, tile)

        g = p.row_part(name, outputs, inputs, padded)
        p.call(gradient, Mine(SCRATCH), dy, g, together=True)
    if node.inputs[0] not in p.wanted:
        return
    dx, add = p.contribute(node.inputs[0])

    def back(tile: int, tiles: int) -> Correlate:
        one, across = Axis(1, 1, 1), Axis(tiles, tiles, 1)
        return Correlate(
            outputs, inputs, 1, one, across, 1, inputs, v, 0, tile, v, 0, tile, add=add
        )

    p.call(back, dy, Weight(name), 0, dx, 0, 0, 0, ZEROS, 0, 1, together=True)


def _small(p: Planner, node: Node) -> None:
    inputs, outputs = p.size(node.inputs[0]), p.size(node.output)
    padded = row_floats(inputs, p.machine)
    rows = p.kept[node.output, "rows"] = Buffer(padded)
    p.call(Unpack(inputs, padded, padded=True), p.values[node.inputs[0]], Now("there"), rows)
    spec = DenseRows(inputs, outputs, "bias" in node.weights, node.options.get("relu", False))
    p.call(spec, rows, Weight(node.weights["weight"]), bias(node), p.new_value(node.output))


def _small_back(p: Planner, node: Node, dy: Buffer) -> None:
    name = node.weights["weight"]
    outputs, inputs = p.weights[name]
    if name in p.learns:
        _whole_gradient(p, name, p.kept[node.output, "rows"], dy)
    if node.inputs[0] in p.wanted:
        dx, add = p.contribute(node.inputs[0])
        p.call(DenseRowsBack(inputs, outputs, add), dy, Weight(name), dx)


def _whole_gradient(p: Planner, name: str, rows: Buffer, dy: Buffer) -> None:
    """The weight's gradient when all tiles are through, by all threads together."""
    outputs, inputs = p.weights[name]
    if p.sharers.get(dy):  # others may write over it before
        mine = Buffer(outputs)
        p.copy(dy, mine, outputs, add=False)
        dy = mine

    def spec(tile: int, tiles: int) -> DenseWhole:
        return DenseWhole(inputs, outputs, tile)

    low, high = Now("low", outputs), Now("high", outputs)
    p.later(spec, rows, dy, Gradient(name), Now("n"), low, high, Now("norm"))
    p.parts.append(Part(name, Reduce("counted"), 0, outputs * inputs))
