"""How many outputs a kernel holds in registers at once: the shape of its inner loop.

A block of a x b sums takes a + b loads for a b multiply-adds. The processor starts two of each a
cycle, and a sum can take up its next product only after four; so a block wants to be square enough,
and large enough. What is left at the edges of the map counts as well.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

from hubel.engine.native.emit import Function, Registers, Value

LATENCY = 4  # cycles until a sum can be added to again
PER_CYCLE = 2  # multiply-adds that start in a cycle
LOAD = 0.15  # cycles that a load adds to the multiply-adds that it runs beside


def cycles(a: int, b: int) -> float:
    """Cycles for one tap of a block of a x b sums. Loads are not wholly hidden."""
    return max(a * b / PER_CYCLE, float(LATENCY)) + LOAD * (a + b)


def parts(total: int, size: int) -> list[tuple[int, int]]:
    """(size, how many of it): `total` cut into blocks, the rest as one smaller block."""
    full, rest = divmod(total, size)
    return [(s, n) for s, n in ((size, full), (rest, 1)) if s and n]


def in_blocks(
    f: Function, total: int, size: int, carry: Registers | None = None
) -> Iterator[tuple[Value, int]]:
    """`for first, many in in_blocks(...)`: what is written in the loop is done for each block;
    `carry` goes through them all."""
    before = 0
    for many, count in parts(total, size):
        with f.loop(0, count, carry=carry) as number:
            yield number * many + before, many
        before += many * count


@functools.cache
def best_block(
    rows: int, columns: int, most: int, held: int = 1, multiple: int = 1
) -> tuple[int, int]:
    """The block (a, b) with which rows x columns outputs take the fewest cycles.

    Args:
        rows, columns: outputs along both sides, for instance channels and columns of a map.
        most: sums that fit in registers.
        held: sums held for each output of the block.
        multiple: b must be a multiple of it.
    """

    def cost(block: tuple[int, int]) -> tuple[float, int]:
        a, b = block
        total = sum(
            n * m * cycles(p, q * held) for p, n in parts(rows, a) for q, m in parts(columns, b)
        )
        return total, abs(a - b)

    return min(_blocks(rows, columns, most, held, multiple), key=cost)


def _blocks(
    rows: int, columns: int, most: int, held: int, multiple: int
) -> Iterable[tuple[int, int]]:
    for a in range(1, min(rows, most) + 1):
        for b in range(multiple, max(columns, multiple) + 1, multiple):
            if a * b * held <= most or (a, b) == (1, multiple):
                yield a, b


def unrolled(count: int) -> int:
    """How many of `count` elements a simple loop takes a turn: up to four, with no rest."""
    return next(size for size in (4, 3, 2, 1) if count % size == 0)
