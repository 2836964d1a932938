"""Which input place each output place of a convolution reads, along one axis."""

from __future__ import annotations

from dataclasses import dataclass

from hubel.engine.native.emit import Function, Number, Value

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
class Run:
    """Blocks of output columns that read alike: `count` of them, `width` wide, from `start` on.

    `reads[j][k]` is the column that output j of the block reads with tap k, counted from the
    block's own base, or None; from block to block the base moves by `step`.
    """

    start: int
    count: int
    width: int
    base: int
    step: int
    reads: tuple[tuple[int | None, ...], ...]


def runs(axis: Axis, width: int, n_out: int | None = None) -> list[Run]:
    """The output columns cut into blocks of `width` (the last may be narrower), alike ones joined.

    Taps that would read padding are left out: no time is spent on zeros, and no buffer has a rim.
    """
    n = axis.n_out if n_out is None else n_out
    found: list[Run] = []
    for start in range(0, n, width):
        size = min(width, n - start)
        places = [[axis.source(start + j, k) for k in range(axis.kernel)] for j in range(size)]
        known = [p for row in places for p in row if p is not None]
        base = min(known, default=0)
        reads = tuple(tuple(None if p is None else p - base for p in row) for row in places)
        last = found[-1] if found else None
        if last and (last.width, last.reads) == (size, reads):
            step = base - (last.base + (last.count - 1) * last.step)
            if last.count == 1 or step == last.step:
                found[-1] = Run(last.start, last.count + 1, size, last.base, step, reads)
                continue
        found.append(Run(start, 1, size, base, 0, reads))
    return found
