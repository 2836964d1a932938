"""The whole plan of a step: the images in, every node forward, the loss, every node back; and then
a place for every buffer."""

from __future__ import annotations

import math

from hubel.engine.native.graph import Graph, NotCovered
from hubel.engine.native.kernels.loss import CrossEntropy
from hubel.engine.native.kernels.move import Pack, Unpack
from hubel.engine.native.lower import backward, forward
from hubel.engine.native.lower.convolution import prepare_weights
from hubel.engine.native.machine import Machine
from hubel.engine.native.plan import (
    SCRATCH,
    ZEROS,
    Aim,
    Argument,
    At,
    Buffer,
    Call,
    Mine,
    Now,
    Phase,
    Plan,
    is_single,
    looks_back,
)
from hubel.engine.native.planner import Planner


def make_plan(
    graph: Graph,
    weights: dict[str, tuple[int, ...]],
    learns: set[str],
    machine: Machine,
    aim: Aim,
    cache: int,
) -> Plan:
    """The plan of one step.

    Args:
        graph: joined.
        weights: shapes of all parameters and buffers.
        learns: the parameters that get gradients.
        cache: bytes of a core's own cache.

    Raises `NotCovered`.
    """
    p = Planner(graph, weights, learns if aim.backward else set(), machine)
    p.half = aim.half and machine.half
    prepare_weights(p)
    p.fix_figures()
    image = p.new_value(graph.image)
    labels = math.prod(graph.answer[1:]) * 2 if aim.pixels else p.size(graph.logits)
    p.widest = max(p.size(graph.image), p.size(graph.logits), labels) // machine.lanes + 1
    p.call(Pack(p.size(graph.image)), Now("images"), Now("there"), image, ZEROS)
    p.note_value(graph.image)
    for node in graph.nodes:
        forward(p, node)
    floats = p.size(graph.logits)
    logits = p.values[graph.logits]
    p.call(Unpack(floats, floats, padded=False), logits, Now("there"), Now("logits"))
    if aim.loss:
        _losses(p, aim, labels)
    if aim.backward:
        for node in reversed(graph.nodes):
            if node.output in p.gradients:
                backward(p, node)
    p.cut()
    if p.calls:
        p.phases.append(Phase(p.calls, []))
    names = [part.name for part in p.parts]
    for name in names:
        if names.count(name) > 1:
            raise NotCovered(f"{name}, which is used in {names.count(name)} places")
    return _placed(p, cache)


def _losses(p: Planner, aim: Aim, floats: int) -> None:
    """Of the net's answer and of auxiliary heads; `floats` of what is said of an image, where it
    is more than a label."""
    graph = p.graph
    if aim.pixels != (len(graph.answer) == 3):
        raise NotCovered(f"a net that answers with shape {('N', *graph.answer)} to such labels")
    labels: Argument = Now("labels")
    if aim.shares or aim.pixels:
        labels = Buffer(floats)
        p.call(Pack(floats), Now("shares", floats), Now("there"), labels, ZEROS)
    for value, shape in zip(graph.results, graph.answers, strict=True):
        main = value == graph.logits
        weight = 1.0 if main else aim.auxiliary
        if not weight:
            continue
        if shape != graph.answer:
            raise NotCovered("an auxiliary head of another shape")
        spec = CrossEntropy(
            graph.answer[0], aim.smoothing, aim.shares, aim.backward, weight, judged=main,
            map=(graph.answer[1], graph.answer[2]) if aim.pixels else None,
        )  # fmt: skip
        buffer, _ = p.contribute(value)
        p.call(spec, p.values[value], labels, Now("there"), Now("scale"), buffer, p.totals)


# ---- places


def _placed(p: Planner, cache: int) -> Plan:
    single = is_single(p.phases)
    _lifetimes(p, single)
    zero_bytes = -(-(p.widest + 1) * p.machine.vector // 64) * 64
    sums = p.sums
    thread = sums + zero_bytes + p.scratch
    calls = [call for phase in p.phases for call in (*phase.calls, *phase.after)]
    buffers = list(dict.fromkeys(buffer for call in calls for buffer in _buffers(call)))
    brief = [b for b in buffers if not b.lasting]
    thread += _pack(brief, p.machine, thread)
    tile = _pack([b for b in buffers if b.lasting], p.machine, 0)
    for phase in p.phases:
        for call in (*phase.calls, *phase.after):
            call.arguments = tuple(_settled(a, sums, sums + zero_bytes) for a in call.arguments)
    dense = any(call.together for call in calls)
    tiles = 1
    if single and dense and not looks_back(p.phases):
        tiles = next((t for t in (4, 2) if thread + t * tile <= 1.5 * cache), 1)
    return Plan(
        p.phases, tiles, max(tile, 64), -(-thread // 4096) * 4096, p.shared, sums,
        p.graph.answer, p.totals, p.norm, p.present, p.parts,
    )  # fmt: skip


def _settled(argument: Argument, zeros: int, scratch: int) -> Argument:
    """The row of zeros and the scratch, now that it is known where they stand."""
    if argument == ZEROS:
        return Mine(zeros)
    if isinstance(argument, Mine) and argument.offset == SCRATCH:
        return Mine(scratch, argument.by_tile)
    return argument


def _buffers(call: Call) -> list[Buffer]:
    """The buffers that a call reads or writes."""
    found = (a.buffer if isinstance(a, At) else a for a in call.arguments)
    return [buffer for buffer in found if isinstance(buffer, Buffer)]


def _lifetimes(p: Planner, single: bool) -> None:
    """From which call to which a buffer is used, and whether it outlives a stretch of calls.

    A stretch ends with the phase and at every kernel that takes several tiles together.
    """
    number = stretch = 0
    for phase in p.phases:
        stretch += 1
        for call in phase.calls:
            number += 1
            if call.together and single:
                stretch += 1
            for buffer in _buffers(call):
                buffer.first = number if buffer.first is None else buffer.first
                buffer.last = number
                buffer.runs.add(stretch)
                buffer.lasting |= len(buffer.runs) > 1 or (call.together and single)
            if call.together and single:
                stretch += 1
        for buffer in (buffer for call in phase.after for buffer in _buffers(call)):
            buffer.last, buffer.lasting = number + 1, True


def _pack(buffers: list[Buffer], machine: Machine, start: int) -> int:
    """Give each buffer the lowest place where it meets none that lives at the same time."""
    placed: list[Buffer] = []
    end = start
    for buffer in sorted(buffers, key=lambda b: (-b.size(machine), b.first)):
        mine = buffer.size(machine)
        rivals = sorted(
            (b for b in placed if b.first <= buffer.last and buffer.first <= b.last),  # type: ignore[operator]
            key=lambda b: b.offset,
        )
        place = start
        for rival in rivals:
            if place + mine <= rival.offset:
                break
            place = max(place, rival.offset + rival.size(machine))
        buffer.offset = place
        placed.append(buffer)
        end = max(end, place + mine)
    return end - start
