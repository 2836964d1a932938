"""Which convolutions go through Winograd's form, with which patches, and their transformed weights.

Winograd's kernel takes the place of the plain one where it is the faster, by an estimate in
multiply-adds that was fitted to measurements. On the way forward patches are small: what is lost to
rounding there goes through every layer that follows. With patches of 2 that is less than the plain
sums lose; with patches of 4 the gradients of a net of 20 layers come out three times as far off. On
the way back patches of 4 leave them within 1e-5 (benchmarks/rounding.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from hubel.engine.native.graph import Node
from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.kernels.update import Reduce
from hubel.engine.native.kernels.winograd import POINTS, Form, WinogradWeights
from hubel.engine.native.kernels.winograd_correlate import WinogradCorrelate, block_of
from hubel.engine.native.kernels.winograd_gradient import (
    WinogradGradient,
    matrix_floats,
    pairs_of,
    together,
)
from hubel.engine.native.lower.halves import Worth
from hubel.engine.native.plan import ZEROS, Argument, Buffer, Now, Part, Shared, Weight
from hubel.engine.native.planner import Planner

KERNELS = (3, 5)
GAIN = 0.95  # at most so much of the plain kernel's time
SHARED = 0.77  # of that, where the transforms' sums take the units that multiply
PAIRED = 0.7  # what a kernel on pairs of bfloat16 takes, next to the plain one
PRODUCT = 1.25  # what one of Winograd's products takes, next to one of the plain kernels'
READ = 1.0  # the transforms of one of x's numbers, times n
WRITTEN, SLOPE = 0.75, 1.5  # those of one of y's, and of dy's, times m
FOLD = 2.0  # adding up a vector's lanes
ONCE = 0.5  # a weight's transform, once a step, with some tiles to share in it
FORWARD = 2  # the largest patches on the way forward, in float32
LARGEST = 12 << 20  # bytes of a convolution's transformed weights: they are read for every patch


@dataclass(frozen=True)
class Way:
    """One of the ways through a convolution, in Winograd's form: what it reads and writes."""

    form: Form
    cin: int
    cout: int
    rows: Axis
    columns: Axis
    weights: Shared | None = None


@dataclass(frozen=True)
class Ways:
    """Those that gain by it."""

    forward: Way | None = None
    back: Way | None = None
    gradient: Way | None = None


def transform_weights(p: Planner, node: Node, paired: Worth, taken: Worth) -> Ways:
    """At the step's start: a convolution's transformed weights, for the ways that gain by them.
    `paired`: which ways would go through pairs of bfloat16 instead; `taken`: those for which there
    is something better."""
    axes = _axes(p, node)
    if axes is None:
        return Ways()
    cout, cin, _, _ = p.weights[node.weights["weight"]]
    most = None if p.half else FORWARD
    forward = back = gradient = None
    if not taken.forward:
        best = _best(cin, cout, *axes, _passing, paired.forward, p.machine.adders, most)
        forward = _weighted(p, node, best, back=False)
    if node.inputs[0] in p.wanted and not taken.back:
        rows, columns = (_back(axis) for axis in axes)
        best = _best(cout, cin, rows, columns, _passing, paired.back, p.machine.adders)
        back = _weighted(p, node, best, back=True)
    if node.weights["weight"] in p.learns and not taken.gradient:
        gradient = _best(cin, cout, *axes, _gradient, paired.gradient, p.machine.adders)
    ways = p.kept[node.output, "winograd"] = Ways(forward, back, gradient)
    return ways


def ways_of(p: Planner, node: Node) -> Ways:
    """What `transform_weights` found for a node."""
    found = p.kept.get((node.output, "winograd"))
    return found if isinstance(found, Ways) else Ways()


def conv_out(p: Planner, node: Node) -> tuple[int, int]:
    """Rows and columns that a convolution gives, before pooling."""
    return p.graph.shapes[node.options.get("inner", node.output)][1:]


def _axes(p: Planner, node: Node) -> tuple[Axis, Axis] | None:
    """Those of a convolution that has such a form: square, without stride, dilation or groups."""
    if node.kind != "conv" or p.machine.wide > 1:
        return None
    o, (_, _, tall, wide) = node.options, p.weights[node.weights["weight"]]
    plain = tuple(o["stride"]) == tuple(o["dilation"]) == (1, 1) and o["groups"] == 1
    if not plain or tall != wide or tall not in KERNELS or max(o["padding"]) >= tall:
        return None
    shape_in, outs = p.graph.shapes[node.inputs[0]], conv_out(p, node)
    rows, columns = (Axis(shape_in[a + 1], outs[a], tall, padding=o["padding"][a]) for a in (0, 1))
    return rows, columns


def _back(axis: Axis) -> Axis:
    return Axis(axis.n_out, axis.n_in, axis.kernel, padding=axis.kernel - 1 - axis.padding)


# ---- which form


def _best(
    cin: int, cout: int, rows: Axis, columns: Axis, cost: Callable[[Way], float], paired: bool,
    adders: bool, most: int | None = None,
) -> Way | None:  # fmt: skip
    """With the patches, up to `most`, that take the least, if that is less than the plain kernel
    takes, or the `paired` one."""
    patches = [n + 1 - rows.kernel for n in POINTS]
    forms = [Form(m, rows.kernel) for m in patches if 1 < m <= (most or m)]
    fitting = [form for form in forms if 4 * cin * cout * form.n**2 <= LARGEST]
    ways = [Way(form, cin, cout, rows, columns) for form in fitting]
    best = min(ways, key=cost, default=None)
    plain = cin * cout * rows.taken * columns.taken
    most_of = GAIN * (PAIRED if paired else 1) * (1 if adders else SHARED)
    return best if best and cost(best) < most_of * plain else None


def _passing(way: Way) -> float:
    """Forward, or back to the input."""
    form = way.form
    each = PRODUCT * way.cin * way.cout
    each += READ * form.n * way.cin + WRITTEN * form.patch * way.cout
    once = ONCE * way.cin * way.cout
    return form.n**2 * (math.prod(form.patches(way.rows, way.columns)) * each + once)


def _gradient(way: Way) -> float:
    """Of the weight."""
    form, pairs = way.form, way.cin * way.cout
    tall, wide = form.patches(way.rows, way.columns)
    each = PRODUCT * pairs + READ * form.n * way.cin + SLOPE * form.patch * way.cout
    folds = -(-tall // together(tall, wide))
    return form.n**2 * (tall * wide * each + (folds * FOLD + ONCE) * pairs)


# ---- what runs


def _weighted(p: Planner, node: Node, way: Way | None, back: bool) -> Way | None:
    if way is None:
        return None
    block, _ = _block(p, way)
    cout, cin, _, _ = p.weights[node.weights["weight"]]
    spec = WinogradWeights(way.form, cout, cin, back, block)
    place = p.share(spec.floats)
    low, high = Now("low", way.cout), Now("high", way.cout)
    p.later(spec, Weight(node.weights["weight"]), place, low, high)
    return replace(way, weights=place)


def _block(p: Planner, way: Way) -> tuple[int, int]:
    return block_of(way.form, way.cin, way.cout, way.columns.n_out, p.machine)


def pass_through(
    p: Planner, way: Way, x: Buffer, y: Buffer, tail: dict[str, bool], bias: Argument = 0,
    extra: Argument = 0, shift: Argument = 0,
) -> None:  # fmt: skip
    """Run the kernel, forward or back; `tail` as in `Correlate`."""
    assert way.weights is not None
    rows, columns = way.rows, way.columns
    if tail.get("pool", False):
        rows, columns = (replace(axis, n_out=axis.n_out // 2 * 2) for axis in (rows, columns))
    spec = WinogradCorrelate(way.form, way.cin, way.cout, rows, columns, _block(p, way), **tail)
    p.widest = max(p.widest, columns.n_in)
    p.call(
        spec, x, way.weights, bias, y, extra, shift, p.present, ZEROS, _scratch(p, spec),
        0, spec.patches[0],
    )  # fmt: skip


def _scratch(p: Planner, spec: WinogradCorrelate | WinogradGradient) -> Buffer:
    """Room for the transforms, for this one call."""
    return Buffer(spec.scratch(p.machine) // p.machine.vector)


def weight_gradient(p: Planner, name: str, way: Way, x: Buffer, dy: Buffer) -> None:
    """Run the weight gradient's kernel."""
    spec = WinogradGradient(way.form, way.cin, way.cout, way.rows, way.columns)
    p.widest = max(p.widest, spec.columns.n_in, spec.columns.n_out)
    floats = matrix_floats(spec, p.machine)
    room = p.sum_space(way.form.n**2 * floats * 4)
    part = Reduce("winograd", way.form.kernel**2, floats, way.form)
    count = math.prod(p.weights[name])
    p.parts.append(Part(name, part, room.offset, count, pairs_of(spec, p.machine)))
    p.call(spec, x, dy, room, ZEROS, _scratch(p, spec))
