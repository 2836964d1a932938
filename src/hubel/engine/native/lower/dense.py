"""Fully connected layers: convolutions of kernel 1 over a row of tiles."""

from __future__ import annotations

from hubel.engine.native.graph import Node
from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.kernels.correlate import Correlate
from hubel.engine.native.kernels.dense import DenseGradient, row_floats
from hubel.engine.native.kernels.move import Unpack
from hubel.engine.native.lower.convolution import bias, bias_back, through_tail
from hubel.engine.native.plan import SCRATCH, ZEROS, Mine, Now, Weight
from hubel.engine.native.planner import Planner


def linear(p: Planner, node: Node) -> None:
    """Forward."""
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
