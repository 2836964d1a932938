"""Which input place each output place of a convolution reads, along one axis."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hubel.engine.native.emit import Function, Number, Some, Value

LIFT = 1 << 24  # added before a division and taken off after it, which then sees no number below 0


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution, or of its transpose.

    forward      place = out S - P + k D
    transposed   place = (out + P - k D) / S where that divides, else nothing

    Attributes:
        n_in, n_out: places read, places written.
        kernel, stride, padding, dilation: K, S, P, D.
        transposed: whether this is the way back of such a convolution.
    """

    n_in: int
    n_out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    transposed: bool = False

    def source(self, out: int, k: int) -> int | None:
        """The input place that tap k of output `out` reads; None outside or between."""
        if not self.transposed:
            place = out * self.stride - self.padding + k * self.dilation
        else:
            place, rest = divmod(out + self.padding - k * self.dilation, self.stride)
            if rest:
                return None
        return place if 0 <= place < self.n_in else None

    def back(self) -> Axis:
        """The axis that carries gradients from the outputs to the inputs."""
        return Axis(
            self.n_out, self.n_in, self.kernel, self.stride, self.padding, self.dilation, True
        )

    @property
    def inside(self) -> bool:
        """Whether no tap of any output, read forward, reads outside."""
        last = (self.n_out - 1) * self.stride + (self.kernel - 1) * self.dilation
        return not self.padding and last < self.n_in

    @property
    def taken(self) -> int:
        """How many (output, tap) pairs read a place."""
        return sum(
            self.source(out, k) is not None for out in range(self.n_out) for k in range(self.kernel)
        )

    @property
    def phases(self) -> int:
        """How many kinds of output places there are: those that differ in which taps they have."""
        return self.stride if self.transposed else 1

    def taps(self, phase: int) -> list[int]:
        """The taps that outputs `out` with out % phases == phase may have."""
        if not self.transposed:
            return list(range(self.kernel))
        return [
            k for k in range(self.kernel)
            if (phase + self.padding - k * self.dilation) % self.stride == 0
        ]  # fmt: skip


def taps_inside(f: Function, axis: Axis, base: Value) -> tuple[Number, Number]:
    """From which tap to which an output reads inside, if its first tap reads place `base`."""
    if axis.inside:
        return 0, axis.kernel
    d = axis.dilation
    low = f.larger(0, ((0 - base) + (d - 1) + LIFT * d) // d - LIFT)
    high = f.smaller(axis.kernel, ((axis.n_in - base) + (d - 1) + LIFT * d) // d - LIFT)
    return low, high


@dataclass(frozen=True)
class Read:
    """What a vector of outputs reads with one tap: from which column on, counted from the block's
    own base, and which of its columns are there."""

    place: int
    there: Some


@dataclass(frozen=True)
class Run:
    """Blocks of output columns that read alike: `count` of them, `width` vectors wide, from column
    `start` on.

    `reads[j][k]` is what vector j of the block reads with tap k, None where nothing is there; from
    block to block the base moves by `step`. `outputs[j]` are the columns of vector j that exist.
    """

    start: int
    count: int
    width: int
    base: int
    step: int
    reads: tuple[tuple[Read | None, ...], ...]
    outputs: tuple[Some, ...]

    @property
    def places(self) -> tuple[int | None, ...]:
        """Of a block of one column: the columns that it reads."""
        (reads,) = self.reads
        return tuple(None if read is None else read.place for read in reads)


def runs(axis: Axis, width: int, n_out: int | None = None, wide: int = 1) -> list[Run]:
    """The output columns cut into blocks of `width` vectors (the last may be narrower), alike ones
    joined. A vector holds `wide` columns; more than one only where the next output reads the next
    input, that is without stride.

    Taps that would read padding are left out: no time is spent on zeros, and no buffer has a rim.
    """
    n = axis.n_out if n_out is None else n_out
    found: list[Run] = []
    for start in range(0, n, width * wide):
        firsts = range(start, min(start + width * wide, n), wide)
        vectors = [_vector(axis, first, wide, n) for first in firsts]
        base = min((r.place for reads, _ in vectors for r in reads if r is not None), default=0)
        reads = tuple(
            tuple(None if r is None else Read(r.place - base, r.there) for r in row)
            for row, _ in vectors
        )
        outputs = tuple(there for _, there in vectors)
        last = found[-1] if found else None
        if last and (last.reads, last.outputs) == (reads, outputs):
            step = base - (last.base + (last.count - 1) * last.step)
            if last.count == 1 or step == last.step:
                found[-1] = replace(last, count=last.count + 1, step=step)
                continue
        found.append(Run(start, 1, len(vectors), base, 0, reads, outputs))
    return found


def _vector(axis: Axis, first: int, wide: int, n: int) -> tuple[list[Read | None], Some]:
    """What the outputs from `first` on read with every tap, and which of them there are."""
    outs = range(first, first + wide)
    found: list[Read | None] = []
    for k in range(axis.kernel):
        places = [axis.source(out, k) if out < n else None for out in outs]
        known = [(place, i) for i, place in enumerate(places) if place is not None]
        start = known[0][0] - known[0][1] if known else 0
        found.append(Read(start, tuple(p is not None for p in places)) if known else None)
    return found, tuple(out < n for out in outs)
