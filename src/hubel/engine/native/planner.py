"""Builds a plan node by node: who runs when, which gradients meet where, who waits for whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hubel.engine.native.graph import Graph, Node
from hubel.engine.native.kernels.move import Copy, Fill
from hubel.engine.native.kernels.norm import Figures, FiguresBack, FixedFigures, Sums
from hubel.engine.native.kernels.update import Reduce
from hubel.engine.native.machine import Machine
from hubel.engine.native.plan import (
    ZEROS,
    Argument,
    At,
    Buffer,
    Call,
    Gradient,
    LateSpec,
    Mine,
    Now,
    Part,
    Phase,
    Shared,
    Spec,
    Weight,
)


class Planner:
    """Builds a plan, node by node. `lower/` holds what each kind of node asks of it."""

    def __init__(
        self, graph: Graph, weights: dict[str, tuple[int, ...]], learns: set[str], machine: Machine
    ) -> None:
        self.graph, self.weights, self.learns, self.machine = graph, weights, learns, machine
        self.phases: list[Phase] = []
        self.calls: list[Call] = []
        self.after: list[Call] = []
        self.parts: list[Part] = []
        self.sums = 0  # bytes of the thread's sums
        self.scratch = 0
        self.shared = 64
        self.values: dict[int, Buffer] = {}
        self.kept: dict[tuple[int, str], Any] = {}  # what a node's way back will want
        self.gradients: dict[int, Buffer] = {}
        self.sharers: dict[Buffer, set[int]] = {}
        self.reading: Buffer | None = None  # the gradient that the node at its turn still reads
        self.wanted = self._wanted()
        self.totals = self.sum_space(2 * machine.vector)
        self.norm = self.sum_space(64)
        self.present = self.sum_space(machine.vector)
        self.half = False  # whether convolutions multiply in bfloat16
        self.widest = 0  # elements of the longest row of zeros that is asked for

    def _wanted(self) -> set[int]:
        """Values that a gradient has to reach: those with something that learns before them."""
        found: set[int] = set()
        for node in self.graph.nodes:
            names = set(node.weights.values())
            for norm in node.options.get("norms", ()):
                names |= set(norm.weights.values()) if norm else set()
            if names & self.learns or any(v in found for v in node.inputs):
                found.add(node.output)
        return found

    # ---- memory

    def sum_space(self, size: int) -> Mine:
        """Bytes of the thread's that each step begins with zeros."""
        place = self.sums
        self.sums += -(-size // 64) * 64
        return Mine(place)

    def share(self, floats: int) -> Shared:
        place = self.shared
        self.shared += -(-floats * 4 // 64) * 64
        return Shared(place)

    def size(self, value: int) -> int:
        c, h, w = self.graph.shapes[value]
        return c * h * w

    # ---- what runs

    def call(self, spec: Spec | LateSpec, *arguments: Argument, together: bool = False) -> None:
        """Run a kernel on every tile."""
        self.calls.append(Call(spec, arguments, together))

    def later(self, spec: Spec | LateSpec, *arguments: Argument) -> None:
        """Run a kernel once, when all tiles are through; its channels are shared among threads. A
        buffer among its arguments is the first tile's; its spec is told where the next one is."""
        self.after.append(Call(spec, arguments))

    def copy(self, x: Buffer | At, y: Buffer | At, elements: int, add: bool) -> None:
        """y (+)= x, so many elements that stand side by side."""
        v = self.machine.vector
        self.call(Copy(1, 1, elements, 0, 0, v, 0, 0, v, add), x, y)

    def clear(self, buffer: Buffer) -> None:
        """Zeros into a buffer."""
        self.call(Fill(), buffer, buffer.size(self.machine))

    def cut(self) -> None:
        """End the phase, if there is something to be done at its end."""
        if self.after:
            self.phases.append(Phase(self.calls, self.after))
            self.calls, self.after = [], []

    # ---- values and gradients

    def new_value(self, value: int) -> Buffer:
        buffer = self.values[value] = Buffer(self.size(value))
        return buffer

    def contribute(self, value: int) -> tuple[Buffer, bool]:
        """Where a part of a value's gradient goes, and whether it is added to what stands there."""
        buffer = self.gradients.get(value)
        if buffer is None:
            buffer = self.gradients[value] = Buffer(self.size(value))
            self.sharers[buffer] = {value}
            return buffer, False
        others = self.sharers[buffer] - {value}
        if others or buffer is self.reading:
            buffer = self.own_copy(value, buffer)
        return buffer, True

    def own_copy(self, value: int, shared: Buffer) -> Buffer:
        """A value's gradient moved out of a buffer that others read too."""
        self.sharers[shared].discard(value)
        mine = self.gradients[value] = Buffer(shared.elements)
        self.sharers[mine] = {value}
        self.copy(shared, mine, shared.elements, add=False)
        return mine

    def contribute_buffer(self, value: int, buffer: Buffer) -> None:
        """The gradient that stands in `buffer` belongs to this value too."""
        if value not in self.gradients:
            self.gradients[value] = buffer
            self.sharers.setdefault(buffer, set()).add(value)
            return
        mine, _ = self.contribute(value)
        self.copy(buffer, mine, buffer.elements, add=True)

    def taken(self, value: int) -> tuple[Buffer, bool]:
        """A value's whole gradient, at its producer's turn, and whether it may be written over."""
        buffer = self.reading = self.gradients.pop(value)
        self.sharers[buffer].discard(value)
        return buffer, not self.sharers[buffer]

    # ---- batch norm

    def note_value(self, value: int, summed: bool = False) -> None:
        """A value stands. If norms read it, see to their sums (unless its kernel has: `summed`)."""
        c, h, w = self.graph.shapes[value]
        for number, norm in enumerate(self.norms_of(value)):
            if not self.batch_statistics(norm):
                continue
            sums = self.sums_of(norm)
            if not (summed and number == 0):
                self.call(
                    Sums(c, h * w), self.values[value], self.shift_of(norm), sums, self.present
                )
            o, names = norm.options, norm.weights
            spec = Figures(
                c, h * w, o["eps"], o["momentum"], "weight" in names, "bias" in names,
                "running_mean" in names,
            )  # fmt: skip
            self.later(
                spec, sums, Now("apart"), Now("threads"), Now("n"), self.shift_of(norm),
                *self._weights(norm, "weight", "bias", "running_mean", "running_var"),
                self.figures_of(norm), Now("low", c), Now("high", c),
            )  # fmt: skip
            self.kept[norm.output, "pending"] = True

    def norms_of(self, value: int) -> list[Node]:
        """The norms that read a value."""
        return [
            norm
            for node in self.graph.nodes
            for read, norm in zip(node.inputs, node.options.get("norms", ()), strict=False)
            if norm is not None and read == value
        ]

    def batch_statistics(self, norm: Node) -> bool:
        """Whether it norms by the batch and not by its running statistics."""
        return bool(norm.options["training"]) or "running_mean" not in norm.weights

    def sums_of(self, norm: Node) -> Mine:
        """Where a thread's two sums a channel stand."""
        size = 4 * self.channels(norm) * self.machine.vector
        return self._once(norm, "sums", lambda: self.sum_space(size))

    def figures_of(self, norm: Node) -> Shared:
        """Where its four rows of figures stand."""
        return self._once(norm, "figures", lambda: self.share(4 * self.channels(norm)))

    def channels(self, norm: Node) -> int:
        return self.graph.shapes[norm.inputs[0]][0]

    def shift_of(self, norm: Node) -> Argument:
        """What its sums are counted from: the running mean, as it stood before this step."""
        if "running_mean" in norm.weights:
            return Weight(norm.weights["running_mean"])
        self.widest = max(self.widest, self.channels(norm) // self.machine.lanes + 1)
        return ZEROS

    def _once(self, norm: Node, word: str, make: Callable[[], Any]) -> Any:
        key = (norm.output, word)
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def _weights(self, node: Node, *roles: str) -> list[Argument]:
        return [Weight(node.weights[r]) if r in node.weights else 0 for r in roles]

    def need_figures(self, norm: Node) -> None:
        """Its scale and shift are about to be read."""
        if self.kept.pop((norm.output, "pending"), False):
            self.cut()

    def fix_figures(self) -> None:
        """At the very start: the figures of norms that use their running statistics."""
        for value in self.graph.shapes:
            for norm in self.norms_of(value):
                if self.batch_statistics(norm):
                    continue
                names, c = norm.weights, self.channels(norm)
                self.later(
                    FixedFigures(c, norm.options["eps"], "weight" in names, "bias" in names),
                    *self._weights(norm, "weight", "bias", "running_mean", "running_var"),
                    self.figures_of(norm), Now("low", c), Now("high", c),
                )  # fmt: skip
        self.cut()

    def norm_back(self, norm: Node, sums: Mine) -> Shared:
        """After the sums of its way back: its figures, in the next phase."""
        c, h, w = self.graph.shapes[norm.inputs[0]]
        figures = self.share(4 * c)
        learns = {r: norm.weights.get(r) in self.learns for r in ("weight", "bias")}
        fixed = not self.batch_statistics(norm)
        self.later(
            FiguresBack(c, h * w, learns["weight"], learns["bias"], fixed),
            sums, Now("apart"), Now("threads"), Now("n"), self.figures_of(norm),
            *[Gradient(norm.weights[r]) if learns[r] else 0 for r in ("weight", "bias")],
            figures, Now("low", c), Now("high", c),
        )  # fmt: skip
        for role, there in learns.items():
            if there:
                self.parts.append(Part(norm.weights[role], Reduce("ready", c, c), 0, c))
        return figures

    # ---- gradients of weights

    def lane_part(self, name: str, count: int) -> Mine:
        """Room for a gradient kept as a vector for each weight."""
        place = self.sum_space(count * self.machine.vector)
        self.parts.append(Part(name, Reduce("lanes"), place.offset, count))
        return place

    def packed_part(self, name: str, order: tuple[int, ...], floats: int) -> Mine:
        place = self.sum_space(floats * 4)
        self.parts.append(Part(name, Reduce("packed"), place.offset, len(order), order))
        return place

    def row_part(self, name: str, rows: int, row: int, padded: int) -> Mine:
        place = self.sum_space(rows * padded * 4)
        self.parts.append(Part(name, Reduce("rows", row, padded), place.offset, rows * row))
        return place
