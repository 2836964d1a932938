"""Winograd's convolution: the same sums with fewer products (Lavin & Gray 2016).

A patch of m x m outputs of an r x r convolution reads n x n inputs, n = m + r - 1. Summed as they
are defined, these outputs take m m r r products for each pair of channels; as

    y = A' [ (G w G') * (B' x B) ] A          * number by number

they take n n: 36 instead of 144 for patches of 4 and a kernel of 3. What it costs instead are the
transforms of the maps, B' x B once for each input channel and A' [.] A once for each output
channel: sums of a few numbers. Weights are transformed once a step. The gradients follow by the
chain rule, from the same matrices:

    dx: as y, of dy, with the weight turned around      dw = G' [ (A dy A') * (B' x B) ] G

The matrices are Toom and Cook's, turned around: a product of two polynomials is known once it is
known at n points, one of them infinity. Which points they are decides how much is lost to
rounding: with 0, +-3/4 and +-3/2 patches of 4 lose twice what float32 loses in the plain sum, with
the usual 0, +-1 and +-2 four times (benchmarks/rounding.py). Patches of 2 lose less than the plain
sum. A number that is not finite reaches the whole of each patch that reads it, and as NaN.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from hubel.engine.native.emit import F32, I64, PTR, Function, Value
from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.machine import Machine

Matrix = tuple[tuple[float, ...], ...]
Maybe = Value | None  # None stands for zeros

POINTS = {
    4: tuple(map(Fraction, (0, 1, -1))),
    6: tuple(Fraction(k, 4) for k in (0, 3, -3, 6, -6)),
}
"""The points for n, but for infinity."""


@dataclass(frozen=True)
class Form:
    """Patches of m x m outputs of an r x r convolution."""

    patch: int
    kernel: int

    @property
    def n(self) -> int:
        """Inputs along a side, and products."""
        return self.patch + self.kernel - 1

    @property
    def input(self) -> Matrix:
        """B', n x n."""
        return toom_cook(POINTS[self.n], self.patch, self.kernel)[0]

    @property
    def weight(self) -> Matrix:
        """G, n x r."""
        return toom_cook(POINTS[self.n], self.patch, self.kernel)[1]

    @property
    def output(self) -> Matrix:
        """A', m x n."""
        return toom_cook(POINTS[self.n], self.patch, self.kernel)[2]

    def patches(self, rows: Axis, columns: Axis) -> tuple[int, int]:
        """How many cover the outputs, along the rows and along the columns."""
        return -(-rows.n_out // self.patch), -(-columns.n_out // self.patch)


@functools.cache
def toom_cook(
    points: tuple[Fraction, ...], patch: int, kernel: int
) -> tuple[Matrix, Matrix, Matrix]:
    """B', G and A' for patch + kernel - 2 points and infinity."""
    n = len(points) + 1
    inputs, weights = [], []
    for i, point in enumerate(points):
        others = [other for j, other in enumerate(points) if j != i]
        inputs.append([*_with_roots(others), Fraction(0)])
        scale = _product(point - other for other in others)
        weights.append([point**k / scale for k in range(kernel)])
    inputs.append(_with_roots(points))
    weights.append([Fraction(k == kernel - 1) for k in range(kernel)])
    outputs = [[*(point**k for point in points), Fraction(k == patch - 1)] for k in range(patch)]
    assert all(len(row) == n for row in (*inputs, *outputs))
    exact = (inputs, weights, outputs)
    found = [tuple(tuple(map(float, row)) for row in matrix) for matrix in exact]
    return found[0], found[1], found[2]


def _with_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """The coefficients of the product of (x - root), the constant first."""
    none, found = Fraction(0), [Fraction(1)]
    for root in roots:
        found = [a - root * b for a, b in zip([none, *found], [*found, none], strict=True)]
    return found


def _product(factors: Iterable[Fraction]) -> Fraction:
    found = Fraction(1)
    for factor in factors:
        found *= factor
    return found


def turned(matrix: Matrix) -> Matrix:
    """The matrix with rows and columns exchanged."""
    return tuple(zip(*matrix, strict=True))


def combined(f: Function, row: Sequence[float], values: Sequence[Maybe]) -> Maybe:
    """The sum of row[j] values[j]."""
    terms = [(c, v) for c, v in zip(row, values, strict=True) if c and v is not None]
    total: Maybe = None
    for factor, value in sorted(terms, key=lambda term: term[0] != 1):  # first one without product
        if total is None:
            total = value if factor == 1 else value * factor
        elif abs(factor) == 1:
            total = total + value if factor == 1 else total - value
        else:
            total = f.fma(value, factor, total)
    return total


def applied(f: Function, matrix: Matrix, values: Sequence[Maybe]) -> list[Maybe]:
    """matrix values. What rows or columns of opposite points have in common is added up once."""
    matrix, values = _columns_paired(f, matrix, values)
    found: dict[int, Maybe] = {}
    for i, row in enumerate(matrix):
        if i in found:
            continue
        twin = next((j for j in range(i + 1, len(matrix)) if _opposite(row, matrix[j])), None)
        if twin is None:
            found[i] = combined(f, row, values)
            continue
        same = [a if a == b else 0.0 for a, b in zip(row, matrix[twin], strict=True)]
        rest = [a if a != b else 0.0 for a, b in zip(row, matrix[twin], strict=True)]
        even, odd = combined(f, same, values), combined(f, rest, values)
        found[i] = combined(f, (1, 1), (even, odd))
        found[twin] = combined(f, (1, -1), (even, odd))
    return [found[i] for i in range(len(matrix))]


def _columns_paired(
    f: Function, matrix: Matrix, values: Sequence[Maybe]
) -> tuple[Matrix, list[Maybe]]:
    """The same product with sums and differences in the place of values whose columns agree but
    for signs, where more than one row gains by it."""
    columns, values = [list(c) for c in turned(matrix)], list(values)
    for i, column in enumerate(columns):
        for j in range(i + 1, len(columns)):
            gains = _opposite(column, columns[j]) and len(matrix) > 2
            if not gains or values[i] is None or values[j] is None:
                continue
            total = combined(f, (1, 1), (values[i], values[j]))
            apart = combined(f, (1, -1), (values[i], values[j]))
            pairs = list(zip(column, columns[j], strict=True))
            columns[i] = [a if a == b else 0.0 for a, b in pairs]
            columns[j] = [a if a != b else 0.0 for a, b in pairs]
            values[i], values[j] = total, apart
            break
    return turned(tuple(map(tuple, columns))), values


def _opposite(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two rows agree but for signs, with some numbers of either kind."""
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x or y]
    same = sum(x == y for x, y in pairs)
    return all(abs(x) == abs(y) for x, y in pairs) and 0 < same < len(pairs)


def both_sides(f: Function, matrix: Matrix, values: Sequence[Sequence[Maybe]]) -> list[list[Maybe]]:
    """matrix values matrix'."""
    columns = [applied(f, matrix, column) for column in zip(*values, strict=True)]
    return [applied(f, matrix, row) for row in zip(*columns, strict=True)]


@dataclass(frozen=True)
class Stretch:
    """Blocks of patches that lie side by side: `count` of them, `width` patches wide, from patch
    `start` on.

    Attributes:
        reads: of the columns that a block reads, from the first patch's first on, which are there:
            in all blocks, in none, or (None) in some.
        writes: which of the columns that it writes are there.
    """

    start: int
    count: int
    width: int
    reads: tuple[bool | None, ...]
    writes: tuple[bool, ...]


def stretches(form: Form, axis: Axis, width: int, patches: int) -> list[Stretch]:
    """So many patches along an axis, cut into blocks of `width` (the last may be narrower)."""
    found: list[Stretch] = []
    for start in range(0, patches, width):
        here = min(width, patches - start)
        first = form.patch * start - axis.padding
        read = form.patch * here + form.kernel - 1
        reads = tuple(0 <= first + c < axis.n_in for c in range(read))
        writes = tuple(form.patch * start + c < axis.n_out for c in range(form.patch * here))
        last = found[-1] if found else None
        if last and last.writes == writes:
            both = tuple(a if a == b else None for a, b in zip(last.reads, reads, strict=True))
            found[-1] = replace(last, count=last.count + 1, reads=both)
        else:
            found.append(Stretch(start, 1, here, reads, writes))
    return found


@dataclass(frozen=True)
class Line:
    """A row of x: whether it is there, where it begins in a plane, and what it counts, if not 1."""

    inside: Value
    offset: Value
    factor: Value | None = None


class Window:
    """The rows of x that one row of patches reads, and how they combine in the rows of B' x."""

    def __init__(
        self, f: Function, form: Form, rows: Axis, columns: Axis, patch: Value, v: int
    ) -> None:
        """`patch`: the number of the row of patches; `v`: bytes of an element."""
        self.f, self.form, self.columns, self.v = f, form, columns, v
        self.lines = []
        for j in range(form.n):
            row = patch * form.patch + (j - rows.padding)
            inside = (row > -1) & (row < rows.n_in)
            self.lines.append(Line(inside, row * (columns.n_in * v)))

    def rows(self, k: Value) -> list[tuple[Value, list[Line]]]:
        """Row k of B' x, as two cases: (whether it is this one, what is added up).

        The polynomials behind B' see to it: those of 0 and of infinity have the same coefficients,
        one place apart; those of the points between begin with x and end with 1 x^(n - 2).
        """
        f, matrix, n = self.f, self.form.input, self.form.n
        first = k.equals(0)
        ends = []
        for j in range(n - 1):
            if matrix[0][j]:
                a, b = self.lines[j], self.lines[j + 1]
                inside, offset = (
                    f.select(first, a.inside, b.inside),
                    f.select(first, a.offset, b.offset),
                )
                factor = None if matrix[0][j] == 1 else f.constant(matrix[0][j])
                ends.append(Line(inside, offset, factor))
        between = [self.lines[n - 2]]
        for j in range(1, n - 2):
            between.append(replace(self.lines[j], factor=chosen(f, k, [row[j] for row in matrix])))
        return [(first | k.equals(n - 1), ends), ((k > 0) & (k < n - 1), between)]


class Block:
    """A block of patches of a window: its columns, read and transformed."""

    def __init__(self, window: Window, stretch: Stretch, first: Value) -> None:
        """`first`: the first column that it reads."""
        self.window, self.stretch, self.first = window, stretch, first
        self.there: list[Value | None] = []
        for c, there in enumerate(stretch.reads):
            column = first + c
            known = there is not None
            self.there.append(None if known else (column > -1) & (column < window.columns.n_in))

    def transformed(self, lines: list[Line], plane: Value) -> list[list[Value]]:
        """One row of B' x B for each patch."""
        window = self.window
        f, form = window.f, window.form
        places = [
            f.select(line.inside, plane.at(line.offset), f.arg("zeros")).at(self.first * window.v)
            for line in lines
        ]
        columns = [self._column(c, lines, places) for c in range(len(self.stretch.reads))]
        found = []
        for t in range(self.stretch.width):
            mine = applied(f, form.input, columns[form.patch * t :][: form.n])
            found.append([f.constant(0.0) if one is None else one for one in mine])
        return found

    def _column(self, c: int, lines: list[Line], places: list[Value]) -> Maybe:
        if self.stretch.reads[c] is False:
            return None
        f, there = self.window.f, self.there[c]
        values = []
        for place in places:
            at = place.at(c * self.window.v)
            values.append(f.load(at if there is None else f.select(there, at, f.arg("zeros"))))
        return added(f, values, [line.factor for line in lines])


def added(f: Function, values: Sequence[Value], factors: Sequence[Value | None]) -> Value:
    """The sum of the values, each times its factor; None for 1. One has none."""
    (total,) = (value for value, factor in zip(values, factors, strict=True) if factor is None)
    for value, factor in zip(values, factors, strict=True):
        if factor is not None:
            total = f.fma(value, factor, total)
    return total


def chosen(f: Function, k: Value, numbers: Sequence[float]) -> Value:
    """numbers[k] in every lane."""
    found = f.constant(numbers[0], F32)
    for i, number in enumerate(numbers[1:], start=1):
        found = f.select(k.equals(i), f.constant(number, F32), found)
    return f.spread(found)


@dataclass(frozen=True)
class WinogradWeights:
    """G w G' of a convolution's weight (out, inside, r, r): what `WinogradCorrelate` reads.

    Attributes:
        form: the patches and the kernel.
        out, inside: the weight's channels.
        back: for the way back: the weight turned around, its axes exchanged.
        block: channels that the reader writes together.
    """

    form: Form
    out: int
    inside: int
    back: bool
    block: int

    @property
    def floats(self) -> int:
        """Numbers that come of it."""
        return self.out * self.inside * self.form.n**2


def write_winograd_weights(name: str, spec: WinogradWeights, machine: Machine) -> Function:
    """void (w, u, first channel written by the reader, past the last).

    u: for each block of channels, (n, channels read, n, channels of the block).
    """
    f = Function(name, [("w", PTR), ("u", PTR), ("i0", I64), ("i1", I64)], machine.lanes)
    r, n = spec.form.kernel, spec.form.n
    write, read = (spec.inside, spec.out) if spec.back else (spec.out, spec.inside)
    full = write // spec.block * spec.block
    with f.loop(f.arg("i0"), f.arg("i1")) as o:
        for size, there in ((spec.block, o < full), (write - full, o > full - 1)):
            if not size:
                continue
            with f.when(there):
                first = o // spec.block * spec.block
                u = f.arg("u").at(first * (read * n * n * 4) + (o - first) * 4)
                with f.loop(0, read) as i:
                    pair = i * spec.inside + o if spec.back else o * spec.inside + i
                    _one_weight(f, spec, f.arg("w").at(pair * (r * r * 4)), u, i, size, read)
    return f


def _one_weight(
    f: Function, spec: WinogradWeights, w: Value, u: Value, i: Value, size: int, read: int
) -> None:
    r, n = spec.form.kernel, spec.form.n
    taps: list[list[Maybe]] = [
        [f.load(w.at(4 * (a * r + b)), F32) for b in range(r)] for a in range(r)
    ]
    if spec.back:
        taps = [line[::-1] for line in taps[::-1]]
    for a, line in enumerate(both_sides(f, spec.form.weight, taps)):
        for b, value in enumerate(line):
            assert value is not None
            f.store(value, u.at(i * (n * size * 4) + 4 * size * (a * read * n + b)))


def gradient_of_weight(f: Function, form: Form, found: list[Value]) -> list[Value]:
    """G' u G: the r r gradients that n n sums of `WinogradGradient` stand for."""
    n = form.n
    rows = [found[n * a : n * a + n] for a in range(n)]
    slopes = both_sides(f, turned(form.weight), rows)
    return [value for line in slopes for value in line if value is not None]
