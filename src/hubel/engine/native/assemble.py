"""From a plan to one module of machine code: `step`, which every thread runs from end to end.

`step(board, thread)` reads what it works on from the board, an array of 8-byte fields (`Board`):

    begin with zeros in the thread's sums
    for every phase:  its tiles through the kernels; all meet; what is done once; all meet
    the threads' gradients added up, each thread a part of every parameter; all meet
    unless something is not finite: the optimiser's step, each thread a part

Threads meet at a counter: the last to come lets all go.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hubel.engine.native.emit import F32, F64, I64, PTR, Function, Registers, Value
from hubel.engine.native.kernels.move import Fill, Pack
from hubel.engine.native.kernels.update import FIGURES, Update
from hubel.engine.native.kernels.writers import WRITERS
from hubel.engine.native.machine import Machine
from hubel.engine.native.plan import (
    Argument,
    At,
    Buffer,
    Call,
    Gradient,
    Mine,
    Now,
    Phase,
    Plan,
    Shared,
    Weight,
)

FIELDS = (
    "n", "images", "labels", "logits", "threads", "tiles", "mine", "shared", "scale", "seed",
    "clip", "figures", "loss", "hits", "norm", "sound",
)  # fmt: skip
"""The board's first fields. `tiles`, `mine` and `shared` are the three memories; `clip` the largest
gradient norm, 0 for none (f64, as `scale`); `figures` a table of the update's, a row a part; loss,
hits and norm are answers (f64); `sound` says whether the step was taken."""
TOLD = struct.Struct("=8qdqd")  # the first of them, from `n` to `clip`, which every run is told
ANSWERED = struct.Struct("=3dq")  # the last of them, from `loss` to `sound`

METER = 128  # bytes into the board where the threads' counter stands, on a cache line of its own
TABLE = 256  # bytes into the board where pointers begin


@dataclass(frozen=True)
class Board:
    """Where each pointer stands on the board, in 8-byte fields."""

    weights: dict[str, int]
    gradients: dict[str, int]
    orders: dict[str, int]
    states: dict[str, tuple[int, int]]
    size: int

    @classmethod
    def of(cls, plan: Plan, weights: Sequence[str]) -> Board:
        place = TABLE // 8
        tables: list[dict[str, int]] = []
        for names in (weights, [p.name for p in plan.parts], [p.name for p in plan.parts]):
            tables.append({name: place + i for i, name in enumerate(names)})
            place += len(names)
        states = {
            part.name: (place + 2 * i, place + 2 * i + 1) for i, part in enumerate(plan.parts)
        }
        return cls(tables[0], tables[1], tables[2], states, place + 2 * len(plan.parts))


class Assembler:
    """Writes the module: the kernels, each once, a function for each phase, and `step`."""

    def __init__(self, plan: Plan, board: Board, machine: Machine, update: Update | None) -> None:
        self.plan, self.board, self.machine, self.update = plan, board, machine, update
        self.kernels: dict[Any, Function] = {}
        self.functions: list[Function] = []

    def module(self) -> list[Function]:
        step = Function(
            "step", [("board", PTR), ("thread", I64)], self.machine.lanes, internal=False
        )
        self._step(step)
        return [*self.kernels.values(), *self.functions, step]

    def _kernel(self, spec: Any) -> Function:
        if spec not in self.kernels:
            name = f"{type(spec).__name__.lower()}{len(self.kernels)}"
            self.kernels[spec] = WRITERS[type(spec)](name, spec, self.machine)
        return self.kernels[spec]

    # ---- the step

    def _step(self, f: Function) -> None:
        board, thread = f.arg("board"), f.arg("thread")
        mine = field(f, "mine", PTR).at(thread * self.plan.thread_bytes)
        self._run(f, Fill(), [mine, self.plan.sums])
        for number, phase in enumerate(self.plan.phases):
            if phase.calls:
                self._tiles(f, number, phase, mine)
            if phase.after:
                self._meet(f)
                for call in phase.after:
                    spec = call.spec(self.plan.tile_bytes, 1) if callable(call.spec) else call.spec
                    self._run(f, spec, [self._once(f, a, mine) for a in call.arguments])
                self._meet(f)
        self._meet(f)
        for part in self.plan.parts:
            if part.spec.kind != "counted":
                self._reduce(f, part, mine)
        self._meet(f)
        sound, clip = self._answers(f)
        if self.update is None:
            return
        with f.when(sound):
            for number, part in enumerate(self.plan.parts):
                v, s = self.board.states[part.name]
                low, high = _share(f, part.count)
                figures = field(f, "figures", PTR).at(4 * len(FIGURES) * number)
                self._run(f, self.update, [
                    _pointer(f, board, self.board.weights[part.name]),
                    _pointer(f, board, self.board.gradients[part.name]),
                    _pointer(f, board, v), _pointer(f, board, s), figures, clip, low, high,
                ])  # fmt: skip

    def _tiles(self, f: Function, number: int, phase: Phase, mine: Value) -> None:
        """Take this thread's tiles through a phase, several together where the plan has it so."""
        n, lanes = field(f, "n", I64), self.machine.lanes
        tiles = (n + (lanes - 1)) // lanes
        low, high = _share(f, tiles)
        base = field(f, "tiles", PTR)
        names = {}
        for many in {self.plan.tiles, 1}:
            names[many] = self._phase(f"phase{number}_{many}", phase, many)
        whole = low + (high - low) // self.plan.tiles * self.plan.tiles

        def place(tile: Value) -> Value:
            if self.plan.reused:
                return base.at(f.arg("thread") * (self.plan.tiles * self.plan.tile_bytes))
            return base.at(tile * self.plan.tile_bytes)

        if self.plan.tiles > 1:
            with f.loop(low, whole, self.plan.tiles) as tile:
                f.run(names[self.plan.tiles], f.arg("board"), mine, place(tile), tile * lanes)
        with f.loop(whole if self.plan.tiles > 1 else low, high) as tile:
            f.run(names[1], f.arg("board"), mine, place(tile), tile * lanes)

    def _phase(self, name: str, phase: Phase, many: int) -> str:
        arguments = [("board", PTR), ("mine", PTR), ("tile", PTR), ("first", I64)]
        f = Function(name, arguments, self.machine.lanes)
        waiting: list[Call] = []
        for call in [*phase.calls, None]:
            if call is not None and not call.together:
                waiting.append(call)
                continue
            if waiting:
                with f.loop(0, many) as m:
                    self._one_tile(f, waiting, m)
                waiting = []
            if call is not None:
                spec = call.spec(self.plan.tile_bytes, many)
                self._call(f, spec, call.arguments, f.arg("tile"), f.arg("first"), None)
        self.functions.append(f)
        return name

    def _one_tile(self, f: Function, calls: list[Call], m: Value) -> None:
        tile = f.arg("tile").at(m * self.plan.tile_bytes)
        first = f.arg("first") + m * self.machine.lanes
        there = field(f, "n", I64) - first
        present = f.select(f.first(there), f.constant(1.0), 0.0)
        f.store(present, f.arg("mine").at(self.plan.present.offset))
        for call in calls:
            spec = call.spec(self.plan.tile_bytes, 1) if call.together else call.spec
            self._call(f, spec, call.arguments, tile, first, m)

    def _call(
        self, f: Function, spec: Any, arguments: Sequence[Argument], tile: Value, first: Value,
        m: Value | None,
    ) -> None:  # fmt: skip
        self._run(f, spec, [self._value(f, a, tile, first, m) for a in arguments])

    def _run(self, f: Function, spec: Any, given: Sequence[Value | int]) -> None:
        kernel = self._kernel(spec)
        f.run(kernel.name, *(
            value if isinstance(value, Value) else _constant(f, value, kind)
            for value, (_, kind) in zip(given, kernel.arguments, strict=True)
        ))  # fmt: skip

    # ---- arguments

    def _value(
        self, f: Function, a: Argument, tile: Value, first: Value, m: Value | None
    ) -> Value | int:
        if isinstance(a, Buffer):
            return (tile if a.lasting else f.arg("mine")).at(a.offset)
        if isinstance(a, At):
            place = self._value(f, a.buffer, tile, first, m)
            return place.at(a.offset)  # type: ignore[union-attr]
        if isinstance(a, Mine):
            place = f.arg("mine").at(a.offset)
            return place.at(m * a.by_tile) if a.by_tile and m is not None else place
        if isinstance(a, Now):
            return self._now(f, a, first)
        return self._shared(f, a)

    def _shared(self, f: Function, a: Argument) -> Value | int:
        if isinstance(a, Weight):
            return _pointer(f, f.arg("board"), self.board.weights[a.name])
        if isinstance(a, Gradient):
            return _pointer(f, f.arg("board"), self.board.gradients[a.name])
        if isinstance(a, Shared):
            return field(f, "shared", PTR).at(a.offset)
        assert isinstance(a, int), a
        return a

    def _now(self, f: Function, a: Now, first: Value) -> Value:
        if a.what == "first":
            return first
        if a.what == "there":
            return field(f, "n", I64) - first
        if a.what == "seed":
            return field(f, "seed", I64)
        if a.what == "scale":
            return f.convert("fptrunc", field(f, "scale", F64), F32)
        step = {"images": self._image_bytes(), "labels": 8, "shares": 4 * a.of, "logits": 0}
        if a.what == "logits":
            step["logits"] = 4 * math.prod(self.plan.answer)
        word = "labels" if a.what == "shares" else a.what
        return field(f, word, PTR).at(first * step[a.what])

    def _image_bytes(self) -> int:
        specs = [c.spec for phase in self.plan.phases for c in phase.calls]
        return 4 * next(s for s in specs if isinstance(s, Pack)).floats

    def _once(self, f: Function, a: Argument, mine: Value) -> Value | int:
        """An argument of what is done once: the first thread's memory stands for all."""
        if isinstance(a, Now):
            if a.what in ("low", "high"):
                return _share(f, a.of)[a.what == "high"]
            if a.what == "norm":
                return mine.at(self.plan.norm.offset)
            return self.plan.thread_bytes if a.what == "apart" else field(f, a.what, I64)
        if isinstance(a, Mine):
            return field(f, "mine", PTR).at(a.offset)
        if isinstance(a, Buffer):
            return field(f, "tiles", PTR).at(a.offset)
        return self._shared(f, a)

    # ---- the end

    def _reduce(self, f: Function, part: Any, mine: Value) -> None:
        low, high = _share(f, part.spec.turns(part.count, self.machine))
        board = f.arg("board")
        self._run(f, part.spec, [
            field(f, "mine", PTR).at(part.offset), self.plan.thread_bytes, field(f, "threads", I64),
            _pointer(f, board, self.board.orders[part.name]),
            _pointer(f, board, self.board.gradients[part.name]),
            mine.at(self.plan.norm.offset), low, high,
        ])  # fmt: skip

    def _answers(self, f: Function) -> tuple[Value, Value]:
        """Loss, hits and norm over all threads; whether they are finite; and how far to clip."""
        base = field(f, "mine", PTR)
        zero = f.constant(0.0, F64)
        state = Registers([zero, zero, zero])
        with f.loop(0, field(f, "threads", I64), carry=state) as t:
            theirs = base.at(t * self.plan.thread_bytes)
            for half in (0, 1):
                at = theirs.at(self.plan.totals.offset + half * self.machine.vector)
                total = f.lane_sum(f.load(at))
                state[half] = state[half] + f.convert("fpext", total, F64)
            state[2] = state[2] + f.load(theirs.at(self.plan.norm.offset), F64, 8)
        loss, hits, squared = state
        norm = f.root(squared)
        for word, value in (("loss", loss), ("hits", hits), ("norm", norm)):
            f.store(value, _field_place(f, word), 8)
        doubt = loss * 0.0 + norm * 0.0  # NaN where either is not finite
        sound = doubt.equals(0.0)
        f.store(f.convert("zext", sound, I64), _field_place(f, "sound"), 8)
        most = field(f, "clip", F64)
        over = (most > 0.0) & (norm > most)
        clip = f.select(over, most / norm, f.constant(1.0, F64))
        return sound, f.convert("fptrunc", clip, F32)

    def _meet(self, f: Function) -> None:
        f.run("meet", f.arg("board").at(METER), field(f, "threads", I64))


def _constant(f: Function, number: int, kind: str) -> Value:
    return Value(f, PTR, "null") if kind == PTR else f.constant(number, kind)


def _field_place(f: Function, word: str) -> Value:
    return f.arg("board").at(8 * FIELDS.index(word))


def field(f: Function, word: str, kind: str) -> Value:
    """One of the board's fields."""
    return f.load(_field_place(f, word), kind, 8)


def _pointer(f: Function, board: Value, place: int) -> Value:
    return f.load(board.at(8 * place), PTR, 8)


def _share(f: Function, of: Value | int) -> tuple[Value, Value]:
    """This thread's part of a range: (from, to)."""
    threads, thread = field(f, "threads", I64), f.arg("thread")
    return thread * of // threads, (thread + 1) * of // threads
