"""From a graph to a plan: which kernel runs when, and where its numbers stand.

A tile is as many images as a vector has lanes, of small batches fewer; a map of a tile is (C, H, W,
lanes). Each thread carries its tiles through the kernels one tile at a time, so that what one
kernel writes the next finds in the nearest cache. Only where something is summed over the whole
batch, batch norm's statistics, do all threads wait for each other: there one `Phase` ends and
another begins.

Maps that live within a stretch of kernels stand in the thread's own memory, written over tile
after tile; those that must last stand in the tile's. Whatever is no longer read gives its place
to others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hubel.engine.native.kernels.update import Reduce
from hubel.engine.native.machine import Machine


class Buffer:
    """A map of one tile: so many vectors (or, `bytes`, so many bytes a lane)."""

    def __init__(self, elements: int, bytes_: bool = False) -> None:
        self.elements, self.bytes = elements, bytes_
        self.first: int | None = None  # calls between which it must keep its place
        self.last = -1
        self.runs: set[int] = set()
        self.lasting = False
        self.offset = 0

    def size(self, machine: Machine) -> int:
        """Bytes, in whole cache lines."""
        lane = 1 if self.bytes else 4
        return -(-self.elements * machine.lanes * lane // 64) * 64


# What a kernel is given, beside whole numbers and buffers.


@dataclass(frozen=True)
class At:
    """A place within a buffer, so many bytes on."""

    buffer: Buffer
    offset: int


@dataclass(frozen=True)
class Weight:
    """A parameter or buffer of the net."""

    name: str


@dataclass(frozen=True)
class Gradient:
    """Where a parameter's gradient goes."""

    name: str


@dataclass(frozen=True)
class Mine:
    """A place in the thread's own memory; `by_tile` bytes further for each tile at work."""

    offset: int
    by_tile: int = 0


@dataclass(frozen=True)
class Shared:
    """A place in the memory that all threads share."""

    offset: int


@dataclass(frozen=True)
class Now:
    """What is known only as the step runs.

    images, labels, shares, logits: where the tile's stand; first: its first image's number;
    there: how many images it has; scale: what an image weighs; seed; n: images in all;
    threads, apart: how many, and the bytes between their memories; low, high: the thread's part of
    a range of `of`; norm: where the thread counts squared gradients.
    """

    what: str
    of: int = 0


ZEROS = Mine(-1)  # a row of zeros, placed with everything else
SCRATCH = -2

Argument = Buffer | At | Weight | Gradient | Mine | Shared | Now | int
Spec = Any  # one of the kernels' frozen descriptions
LateSpec = Callable[[int, int], Spec]  # from the bytes between tiles, and tiles at work


@dataclass
class Call:
    """One kernel's run. `together`: once for all tiles at work, its spec made for their number."""

    spec: Spec | LateSpec
    arguments: tuple[Argument, ...]
    together: bool = False


@dataclass
class Phase:
    """What is done to every tile, then, after all threads have met, what is done once."""

    calls: list[Call]
    after: list[Call]


@dataclass(frozen=True)
class Part:
    """A parameter's partial gradients: how they stand in each thread's memory."""

    name: str
    spec: Reduce
    offset: int
    count: int
    order: tuple[int, ...] = ()


@dataclass
class Plan:
    """Everything that the machine code is made from.

    Attributes:
        phases: in order; with `tiles` > 1 there is but one.
        tiles: tiles that a thread has at work together.
        tile_bytes, thread_bytes, shared_bytes: sizes of the three memories.
        answer: shape of an image's logits, (classes,) or (classes, H, W).
        sums: bytes at the start of a thread's memory that each step begins with zeros.
        totals, norm, present: in the thread's memory: loss and hits, squared gradient norm, and 1
        or 0 for each lane of the tile at hand.
        parts: the gradients.
    """

    phases: list[Phase]
    tiles: int
    tile_bytes: int
    thread_bytes: int
    shared_bytes: int
    sums: int
    answer: tuple[int, ...]
    totals: Mine
    norm: Mine
    present: Mine
    parts: list[Part]

    @property
    def macs(self) -> int:
        """Multiply-adds for one image, of the kernels that do little else: those that the layers
        are defined by."""
        return sum(getattr(spec, "macs", 0) for spec in self._specs())

    @property
    def products(self) -> int:
        """Those that are done: fewer, where a convolution is in Winograd's form."""
        return sum(getattr(s, "products", getattr(s, "macs", 0)) for s in self._specs())

    def _specs(self) -> list[Spec]:
        calls = [call for phase in self.phases for call in (*phase.calls, *phase.after)]
        return [call.spec(64, 1) if callable(call.spec) else call.spec for call in calls]

    @property
    def reused(self) -> bool:
        """Whether a thread's tiles follow each other in the same memory: each goes through
        everything before the next, and nothing looks at it afterwards."""
        return is_single(self.phases) and not looks_back(self.phases)


def is_single(phases: list[Phase]) -> bool:
    """Whether the tiles go through but one phase: nothing is summed over the batch on the way."""
    return sum(bool(phase.calls) for phase in phases) == 1


def looks_back(phases: list[Phase]) -> bool:
    """Whether what is done once, after all tiles are through, reads the tiles."""
    after = [a for phase in phases for call in phase.after for a in call.arguments]
    return any(isinstance(a, Buffer) for a in after)


@dataclass(frozen=True)
class Aim:
    """What a step is for: the loss it goes down, or, without `loss`, the outputs alone;
    `auxiliary`: what the losses of auxiliary heads weigh in it; `shares`, `pixels`: whether an
    image has shares of all classes, or every pixel a label and a weight, instead of a label;
    `half`: its convolutions in bfloat16, where the processor multiplies that."""

    loss: bool
    smoothing: float = 0.0
    auxiliary: float = 0.0
    shares: bool = False
    backward: bool = True
    half: bool = False
    pixels: bool = False
