"""Convolutions and transposed convolutions, with the ReLU and pooling they took in."""

from __future__ import annotations

import math
from dataclasses import replace

from hubel.engine.native.graph import Node
from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.kernels.correlate import Correlate
from hubel.engine.native.kernels.dense import BiasGradient
from hubel.engine.native.kernels.pointwise import Pointwise, PointwiseBack
from hubel.engine.native.kernels.pool import Pool, PoolBack, covers_once
from hubel.engine.native.kernels.weight_gradient import WeightGradient, packed_floats, packing
from hubel.engine.native.lower.amx import (
    gradient_by_matrices,
    matrices_of,
    matrices_of_weights,
    pass_matrices,
    worth_matrices,
)
from hubel.engine.native.lower.halves import (
    half_channels,
    half_gradient,
    halved,
    halves_of,
    pair_weights,
    worth_pairing,
)
from hubel.engine.native.lower.winograd import (
    conv_out,
    pass_through,
    transform_weights,
    ways_of,
    weight_gradient,
)
from hubel.engine.native.plan import ZEROS, Argument, Buffer, Now, Weight
from hubel.engine.native.planner import Planner

LANE_WEIGHTS = 4096  # up to so many weights each keeps a vector of partial sums


def _axes(p: Planner, node: Node) -> tuple[Axis, Axis]:
    o = node.options
    shape_in = p.graph.shapes[node.inputs[0]]
    kernel = p.weights[node.weights["weight"]][2:]
    outs = conv_out(p, node)
    if node.kind == "conv_transposed":
        shape_in, outs = (0, *outs), shape_in[1:]
    return tuple(
        Axis(shape_in[a + 1], outs[a], kernel[a], o["stride"][a], o["padding"][a], o["dilation"][a])
        for a in (0, 1)
    )  # type: ignore[return-value]


def prepare_weights(p: Planner) -> None:
    """At the step's start: what becomes of the weights that kernels do not read as they stand."""
    for node in p.graph.nodes:
        if node.kind == "conv":
            matrices, pairs = worth_matrices(p, node), worth_pairing(p, node)
            reached = node.inputs[0] in p.wanted
            ways = transform_weights(p, node, pairs, matrices)
            matrices_of_weights(p, node, matrices.forward, matrices.back and reached)
            back = pairs.back and ways.back is None and reached
            pair_weights(p, node, pairs.forward and ways.forward is None, back)


def conv(p: Planner, node: Node) -> bool:
    """Forward: one kernel, tail and the sums of a norm behind it included. True where it sums."""
    norms = [n for n in p.norms_of(node.output) if p.batch_statistics(n)]
    pool, relu = (bool(node.options.get(word)) for word in ("pool", "relu"))
    summed = bool(norms) and not (pool or relu)  # the kernel sums before its tail
    tail = {"bias": "bias" in node.weights, "relu": relu, "sums": summed, "pool": pool}
    x, y = p.values[node.inputs[0]], p.new_value(node.output)
    extra: Argument = 0
    if pool:
        extra = p.kept[node.output, "which"] = Buffer(y.elements, bytes_=True)
    elif summed:
        extra = p.sums_of(norms[0])
    given = (bias(node), extra, p.shift_of(norms[0]) if summed else 0)
    way = ways_of(p, node).forward
    if way is not None:
        pass_through(p, way, x, y, tail, *given)
    else:
        _pass_directly(p, node, x, y, tail, *given)
    return summed


def _pass_directly(
    p: Planner, node: Node, x: Buffer, y: Buffer, tail: dict[str, bool], bias: Argument,
    extra: Argument, shift: Argument,
) -> None:  # fmt: skip
    v, groups = p.machine.vector, node.options["groups"]
    (cin, _, wi), (cout, h, w) = p.graph.shapes[node.inputs[0]], p.graph.shapes[node.output]
    rows, columns = _axes(p, node)
    taps = rows.kernel * columns.kernel
    if node.kind == "conv_transposed":
        rows, columns = rows.back(), columns.back()
        strides = (taps, cout // groups * taps)
    else:
        strides = (cin // groups * taps, taps)
    spec = Correlate(
        cin // groups, cout // groups, groups, rows, columns, *strides,
        rows.n_in * wi * v, wi * v, v, h * w * v, w * v, v, **tail,
    )  # fmt: skip
    matrices = matrices_of(p, node, "forward")
    if matrices is not None:
        pass_matrices(p, matrices, spec, x, y, bias, extra, shift)
        return
    p.widest = max(p.widest, columns.n_in)
    weight: Argument = Weight(node.weights["weight"])
    paired = halves_of(p, node).forward
    if paired is not None:
        spec = halved(replace(spec, w_out=cin // 2 * taps))
        x, weight = half_channels(p, x, cin, rows.n_in * wi), paired
    p.call(spec, x, weight, bias, y, extra, shift, p.present, ZEROS, 0, h)


def bias(node: Node) -> Argument:
    """The bias's tensor, or nothing."""
    return Weight(node.weights["bias"]) if "bias" in node.weights else 0


def conv_back(p: Planner, node: Node) -> None:
    """Back through the tail, then the gradients of bias, weight and input."""
    cout = p.graph.shapes[node.output][0]
    ho, wo = conv_out(p, node)
    dy = through_tail(p, node, cout, ho, wo)
    bias_back(p, node, dy, cout, ho * wo)
    name, x, ways = node.weights["weight"], p.values[node.inputs[0]], ways_of(p, node)
    if ways.gradient is not None:
        weight_gradient(p, name, ways.gradient, x, dy)
    elif name in p.learns:
        _weight_directly(p, node, x, dy)
    if node.inputs[0] not in p.wanted:
        return
    dx, add = p.contribute(node.inputs[0])
    if ways.back is not None:
        pass_through(p, ways.back, dy, dx, {"add": add})
    else:
        _back_directly(p, node, dy, dx, add)


def _weight_directly(p: Planner, node: Node, x: Buffer, dy: Buffer) -> None:
    v, groups, name = p.machine.vector, node.options["groups"], node.weights["weight"]
    cin, hi, wi = p.graph.shapes[node.inputs[0]]
    cout, (ho, wo) = p.graph.shapes[node.output][0], conv_out(p, node)
    rows, columns = _axes(p, node)
    read, written, given = (cin, hi, wi), (cout, ho, wo), (x, dy)
    if node.kind == "conv_transposed":  # its weight stands as its adjoint's, which reads y
        read, written, given = written, read, (dy, x)
    spec = WeightGradient(
        read[0] // groups, written[0] // groups, groups, rows, columns,
        read[1] * read[2] * v, read[2] * v, written[1] * written[2] * v, written[2] * v,
        packed=math.prod(p.weights[name]) > LANE_WEIGHTS,
    )  # fmt: skip
    if worth_matrices(p, node).gradient:
        gradient_by_matrices(p, name, spec, x, dy)
        return
    if worth_pairing(p, node).gradient:
        spec, given = half_gradient(p, spec, x, dy)
    if spec.packed:
        g = p.packed_part(name, packing(spec, p.machine), packed_floats(spec, p.machine))
    else:
        g = p.lane_part(name, math.prod(p.weights[name]))
    p.call(spec, *given, g, 0, spec.rows.n_out)


def _back_directly(p: Planner, node: Node, dy: Buffer, dx: Buffer, add: bool) -> None:
    v, groups = p.machine.vector, node.options["groups"]
    cin, hi, wi = p.graph.shapes[node.inputs[0]]
    cout, (ho, wo) = p.graph.shapes[node.output][0], conv_out(p, node)
    rows, columns = _axes(p, node)
    taps = rows.kernel * columns.kernel
    if node.kind == "conv_transposed":
        strides = (cout // groups * taps, taps)
    else:
        rows, columns = rows.back(), columns.back()
        strides = (taps, cin // groups * taps)
    spec = Correlate(
        cout // groups, cin // groups, groups, rows, columns, *strides,
        ho * wo * v, wo * v, v, hi * wi * v, wi * v, v, add=add,
    )  # fmt: skip
    matrices = matrices_of(p, node, "back")
    if matrices is not None:
        pass_matrices(p, matrices, spec, dy, dx)
        return
    weight: Argument = Weight(node.weights["weight"])
    paired = halves_of(p, node).back
    if paired is not None:
        spec, weight = halved(replace(spec, w_in=cin * taps)), paired
        dy = half_channels(p, dy, cout, ho * wo)
    p.call(spec, dy, weight, 0, dx, 0, 0, 0, ZEROS, 0, hi)


def through_tail(p: Planner, node: Node, c: int, h: int, w: int) -> Buffer:
    """The gradient of what the convolution itself gives, before its pooling and its ReLU."""
    dy, own = p.taken(node.output)
    if node.options.get("pool"):
        full = Buffer(c * h * w)
        pool = Pool("max", c, Axis(h, h // 2, 2, 2), Axis(w, w // 2, 2, 2))
        back = PoolBack(pool, add=False)
        if not covers_once(pool):
            p.clear(full)
        p.call(back, dy, full, p.kept[node.output, "which"], 0, h // 2)
        return full
    if node.options.get("relu"):
        masked = dy if own else Buffer(dy.elements)
        shape = Pointwise(c, h, w, (("leaf", 0), ("relu", 0)))
        p.call(
            PointwiseBack(shape, (0,)), dy, Now("seed"), Now("first"),
            p.values[node.output], masked, 0, h,
        )  # fmt: skip
        return masked
    return dy


def bias_back(p: Planner, node: Node, dy: Buffer, channels: int, size: int) -> None:
    """The bias's gradient: the sum over the map."""
    name = node.weights.get("bias")
    if name in p.learns:
        p.call(BiasGradient(channels, size), dy, p.lane_part(str(name), channels))
