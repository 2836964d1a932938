"""Convolutions in bfloat16 on a processor with matrices in registers: which of their kernels go
through those, and what these read.

Maps stay float32 where they are kept. What a kernel reads is made right before it; weights are put
into matrices once, at the step's start.
"""

from __future__ import annotations

import math
from dataclasses import replace

from hubel.engine.native.graph import Node
from hubel.engine.native.kernels.amx import SIDE, evenly
from hubel.engine.native.kernels.amx_correlate import HELD, AmxCorrelate, AmxMap, AmxWeights
from hubel.engine.native.kernels.amx_gradient import AmxGradient, AmxSlopes, AmxTurned, order_of
from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.kernels.correlate import Correlate
from hubel.engine.native.kernels.weight_gradient import WeightGradient
from hubel.engine.native.lower.halves import Worth
from hubel.engine.native.plan import Argument, Buffer, Now, Shared, Weight
from hubel.engine.native.planner import Planner

# Cycles, roughly: the matrices win by far or not at all.
FLOAT = 1.3  # multiply-adds of vectors of float32 in one
PRODUCT = 20.0  # of two matrices, their loads included
PAIR = 8.0  # a vector of pairs made
TURN = 50.0  # a pixel of 16 channels turned
GAIN = 0.9  # at most so much of the plain kernel's time


def worth_matrices(p: Planner, node: Node) -> Worth:
    """Which of a convolution's kernels are faster with them, by an estimate of their cycles at a
    pixel."""
    o = node.options
    square = node.kind == "conv" and len(set(p.weights[node.weights["weight"]][2:])) == 1
    if not (p.half and p.machine.amx and square) or o["groups"] != 1 or set(o["dilation"]) != {1}:
        return Worth()
    out, inside, kernel, _ = p.weights[node.weights["weight"]]
    plain = GAIN * out * inside * kernel**2 / FLOAT
    apart = o["stride"][0] * o["stride"][1]
    still = apart == 1 and max(o["padding"]) < kernel
    blocks = math.prod(evenly(c)[0] for c in (out, inside))
    gradient = PRODUCT * blocks * kernel**2 / 2 + TURN * evenly(inside)[0] + PAIR * out / 2
    return Worth(
        _passing(inside, out, kernel, apart) < plain,
        still and _passing(out, inside, kernel, 1) < plain,
        still and gradient < plain,
    )


def _passing(read: int, written: int, kernel: int, apart: int) -> float:
    """Forward, or back to the input: cycles at a pixel that is written."""
    pairs = -(-read // 2)
    return PRODUCT * kernel * evenly(kernel * pairs)[0] * evenly(written)[0] + PAIR * pairs * apart


def matrices_of_weights(p: Planner, node: Node, forward: bool, back: bool) -> None:
    """At the step's start: a convolution's weights as matrices, for the ways that read such."""
    out, inside, kernel, _ = p.weights[node.weights["weight"]]
    for word, wanted in (("forward", forward), ("back", back)):
        if not wanted:
            continue
        spec = AmxWeights(out, inside, kernel, word == "back")
        place = p.share(spec.floats)
        weight = Weight(node.weights["weight"])
        p.later(spec, weight, place, Now("low", spec.outer), Now("high", spec.outer))
        p.kept[node.output, f"matrices {word}"] = (spec, place)


def matrices_of(p: Planner, node: Node, word: str) -> tuple[AmxWeights, Shared] | None:
    """What `matrices_of_weights` made for a node, "forward" or "back"."""
    found: tuple[AmxWeights, Shared] | None = p.kept.get((node.output, f"matrices {word}"))
    return found


def pass_matrices(
    p: Planner, weights: tuple[AmxWeights, Shared], plain: Correlate, x: Buffer, y: Buffer,
    bias: Argument = 0, extra: Argument = 0, shift: Argument = 0,
) -> None:  # fmt: skip
    """Run the kernel in place of `plain`."""
    spec, place = weights
    if plain.rows.transposed:
        plain = replace(plain, rows=_turned(plain.rows), columns=_turned(plain.columns))
    as_pairs = AmxMap(plain.cin, plain.rows, plain.columns)
    pairs, scratch = Buffer(as_pairs.vectors), Buffer(HELD * SIDE)
    p.call(as_pairs, x, pairs)
    rows = plain.rows.n_out // (2 if plain.pool else 1)
    p.call(
        AmxCorrelate(plain, spec), pairs, place, bias, y, extra, shift, p.present, scratch, 0, rows
    )


def _turned(axis: Axis) -> Axis:
    """The way back without stride, as a convolution with the kernel turned around."""
    return Axis(axis.n_in, axis.n_out, axis.kernel, padding=axis.kernel - 1 - axis.padding)


def gradient_by_matrices(
    p: Planner, name: str, plain: WeightGradient, x: Buffer, dy: Buffer
) -> None:
    """Run the weight gradient's kernel in place of `plain`."""
    spec = AmxGradient(plain.cin, plain.cout, plain.rows, plain.columns)
    turned = AmxTurned(plain.cin, plain.rows, plain.columns)
    slopes = AmxSlopes(plain.cout, plain.rows.n_out, plain.columns.n_out)
    x_turned, dy_told = Buffer(turned.vectors), Buffer(slopes.vectors(p.machine))
    p.call(turned, x, x_turned)
    p.call(slopes, dy, dy_told)
    g = p.packed_part(name, order_of(spec), spec.floats)
    p.call(spec, x_turned, dy_told, g, 0, spec.rows.n_out)
