"""The weight gradient of a fully connected layer, and the bias gradient of any.

    dw[o][i] = sum over images of dy[o] x[i]

Lanes are inputs here: x comes as rows, one an image (`Unpack`), and every dy is spread over them.
"""

from __future__ import annotations

from dataclasses import dataclass

from hubel.engine.native.emit import F32, PTR, Function, Registers
from hubel.engine.native.kernels.blocks import best_block, in_blocks, unrolled
from hubel.engine.native.machine import Machine


@dataclass(frozen=True)
class Dense:
    """A fully connected layer, any way through it; `inputs`, `outputs`: features."""

    inputs: int
    outputs: int

    @property
    def macs(self) -> int:
        """Multiply-adds for one image."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class DenseGradient(Dense):
    """The gradient of its weights.

    Attributes:
        tiles: tiles at work together.
        tile: bytes from one tile's dy to the next.
    """

    tiles: int
    tile: int


def row_floats(inputs: int, machine: Machine) -> int:
    """Floats of a padded row of features: of x by image and of g."""
    return -(-inputs // machine.floats) * machine.floats


def write_dense_gradient(name: str, spec: DenseGradient, machine: Machine) -> Function:
    """void (rows of x (tiles lanes, padded), dy, g (outputs, padded))."""
    f = Function(name, [("x", PTR), ("dy", PTR), ("g", PTR)], machine.floats)
    lanes, row = machine.lanes, row_floats(spec.inputs, machine) * 4
    vector = 4 * machine.floats
    vectors = row // vector
    ob, vb = best_block(spec.outputs, vectors, machine.accumulators)
    for first, outs in in_blocks(f, spec.outputs, ob):
        for start, wide in in_blocks(f, vectors, vb):
            column = start * vector
            g = f.arg("g").at(first * row + column)
            sums = Registers(
                f.load(g.at(o * row + v * vector)) for o in range(outs) for v in range(wide)
            )
            for tile in range(spec.tiles):
                x = f.arg("x").at(column + tile * lanes * row)
                dy = f.arg("dy").at(first * machine.vector + tile * spec.tile)
                with f.loop(0, lanes, carry=sums) as image:
                    here = x.at(image * row)
                    xs = [f.load(here.at(v * vector)) for v in range(wide)]
                    for o in range(outs):
                        d = f.spread(f.load(dy.at(image * 4 + o * machine.vector), F32))
                        for v in range(wide):
                            sums[o * wide + v] = f.fma(d, xs[v], sums[o * wide + v])
            for o in range(outs):
                for v in range(wide):
                    f.store(sums[o * wide + v], g.at(o * row + v * vector))
    return f


@dataclass(frozen=True)
class BiasGradient:
    """g[c] += sum of dy[c] over the map; lanes stay apart. `size` elements a channel."""

    channels: int
    size: int


def write_bias_gradient(name: str, spec: BiasGradient, machine: Machine) -> Function:
    """void (dy, g (channels, lanes))."""
    f = Function(name, [("dy", PTR), ("g", PTR)], machine.lanes)
    with f.loop(0, spec.channels) as c:
        at = f.arg("g").at(c * machine.vector)
        unroll = unrolled(spec.size)
        sums = Registers([f.load(at), *[f.constant(0.0)] * (unroll - 1)])
        with f.loop(0, spec.size, unroll, sums) as k:
            for u in range(unroll):
                place = f.arg("dy").at((c * spec.size + k + u) * machine.vector)
                sums[u] = sums[u] + f.load(place)
        total = sums[0]
        for other in sums[1:]:
            total = total + other
        f.store(total, at)
    return f
