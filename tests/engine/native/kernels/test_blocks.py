"""Blocks of outputs: worked by hand, and never larger than the registers."""

import pytest

from hubel.engine.native.kernels.blocks import LOAD, best_block, cycles, parts


def test_a_block_waits_for_arithmetic_or_for_its_own_sums_and_a_little_for_loads():
    assert cycles(4, 6) == pytest.approx(12 + 10 * LOAD)  # 24 products, two a cycle; 10 loads
    assert cycles(1, 1) == pytest.approx(4 + 2 * LOAD)  # sums can be added to every fourth cycle
    assert cycles(4, 4) < cycles(2, 8) < cycles(1, 16)


@pytest.mark.parametrize(
    ("total", "size", "expected"),
    [
        (10, 4, [(4, 2), (2, 1)]),
        (8, 4, [(4, 2)]),
        (3, 4, [(3, 1)]),
        (1, 1, [(1, 1)]),
    ],
)
def test_parts_by_hand(total, size, expected):
    assert parts(total, size) == expected


@pytest.mark.parametrize("most", [10, 24])
@pytest.mark.parametrize(("held", "multiple"), [(1, 1), (2, 2), (1, 3), (2, 4)])
def test_a_block_fits_the_registers_and_keeps_its_multiple(most, held, multiple):
    for rows in (1, 2, 5, 16, 33):
        for columns in (1, 3, 7, 12, 28):
            a, b = best_block(rows, columns, most, held, multiple)
            assert b % multiple == 0
            assert 1 <= a <= rows
            assert a * b * held <= most or (a, b) == (1, multiple)


def test_where_all_fits_at_once_one_block_takes_it():
    assert best_block(3, 3, 24) == (3, 3)
    assert best_block(2, 5, 10) == (2, 5)
