"""Convolutions in bfloat16: which of their kernels are worth it, and the pairs that these read.

Maps stay float32 where they are kept; pairs are made of them right before the kernel, and weights
are paired once, at the step's start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hubel.engine.native.graph import Node
from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.kernels.correlate import Correlate
from hubel.engine.native.kernels.halves import HalfChannels, HalfRows, HalfWeights
from hubel.engine.native.kernels.weight_gradient import WeightGradient
from hubel.engine.native.plan import ZEROS, Buffer, Now, Shared, Weight
from hubel.engine.native.planner import Planner

WORTH = 48  # multiply-adds for each number that has to be paired


@dataclass(frozen=True)
class Halves:
    """A convolution's paired weights, forward and back, where these are worth it."""

    forward: Shared | None
    back: Shared | None


@dataclass(frozen=True)
class Worth:
    """Which of a convolution's kernels are worth pairing for."""

    forward: bool = False
    back: bool = False
    gradient: bool = False


def worth_pairing(p: Planner, node: Node) -> Worth:
    """Where there are enough multiply-adds for each number that has to be paired; nowhere beside
    matrices in registers, since processors with those multiply pairs as slowly as float32."""
    if not p.half or p.machine.amx or node.kind != "conv" or node.options["groups"] != 1:
        return Worth()
    out, inside, tall, wide = p.weights[node.weights["weight"]]
    taps = tall * wide
    return Worth(
        inside % 2 == 0 and taps * out >= WORTH,
        out % 2 == 0 and taps * inside >= WORTH,
        inside * out * taps / (inside + out) >= WORTH,
    )


def pair_weights(p: Planner, node: Node, forward: bool, back: bool) -> None:
    """At the step's start: a convolution's paired weights, for the ways that read such."""
    p.kept[node.output, "halves"] = Halves(
        _paired(p, node, False) if forward else None, _paired(p, node, True) if back else None
    )


def _paired(p: Planner, node: Node, by_out: bool) -> Shared:
    out, inside, tall, wide = p.weights[node.weights["weight"]]
    spec = HalfWeights(out, inside, tall * wide, by_out)
    place = p.share(spec.out * spec.inside * spec.taps // 2)
    outer = out // 2 if by_out else out
    weight = Weight(node.weights["weight"])
    p.later(spec, weight, place, Now("low", outer), Now("high", outer))
    return place


def halves_of(p: Planner, node: Node) -> Halves:
    """What `pair_weights` made for a node."""
    found = p.kept.get((node.output, "halves"))
    return found if isinstance(found, Halves) else Halves(None, None)


def half_channels(p: Planner, x: Buffer, channels: int, size: int) -> Buffer:
    """x in pairs of channels."""
    pairs = Buffer(channels // 2 * size)
    p.call(HalfChannels(channels, size), x, pairs)
    return pairs


def halved(spec: Correlate) -> Correlate:
    """The same kernel over pairs of channels."""
    return replace(spec, cin=spec.cin // 2, half=True)


def half_gradient(
    p: Planner, spec: WeightGradient, x: Buffer, dy: Buffer
) -> tuple[WeightGradient, tuple[Buffer, Buffer]]:
    """The weight gradient's kernel over pairs of rows, and the maps in such pairs."""
    rows, columns, v = spec.rows, spec.columns, p.machine.vector
    tall, pairs = rows.n_in + rows.padding, -(-rows.n_out // 2)
    paired_x, paired_dy = (
        Buffer(spec.cin * tall * columns.n_in),
        Buffer(spec.cout * pairs * columns.n_out),
    )
    p.widest = max(p.widest, columns.n_in, columns.n_out)
    before = HalfRows(spec.cin, rows.n_in, columns.n_in, tall, 1, rows.padding, rows.stride)
    p.call(before, x, paired_x, ZEROS)
    p.call(HalfRows(spec.cout, rows.n_out, columns.n_out, pairs, 2, 0, 1), dy, paired_dy, ZEROS)
    axis = Axis(tall, pairs, rows.kernel, 2 * rows.stride, 0, rows.dilation)
    found = replace(
        spec, rows=axis, half=True,
        x_plane=tall * columns.n_in * v, y_plane=pairs * columns.n_out * v,
    )  # fmt: skip
    return found, (paired_x, paired_dy)
