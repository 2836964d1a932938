"""Randomness has an address: the same address, the same draw; another address, another."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from hubel.data.order import derive_seed, epoch_order, generator, uniform


def test_seed_is_a_function_of_its_address():
    assert derive_seed(3, "step", 7) == derive_seed(3, "step", 7)
    addresses = [(3, "step", 7), (4, "step", 7), (3, "order", 7), (3, "step", 8), (3, "step", 7, 0)]
    assert len({derive_seed(*a) for a in addresses}) == len(addresses)


def test_seed_fits_torch():
    seeds = [derive_seed(s, "x") for s in range(1000)]
    assert all(0 <= s < 2**63 for s in seeds)
    torch.Generator().manual_seed(max(seeds))


def test_epoch_order_is_a_permutation_and_changes_with_epoch_and_seed():
    order = epoch_order(1000, seed=0, epoch=0)
    assert order.sort().values.equal(torch.arange(1000))
    assert order.equal(epoch_order(1000, seed=0, epoch=0))
    assert not order.equal(epoch_order(1000, seed=0, epoch=1))
    assert not order.equal(epoch_order(1000, seed=1, epoch=0))


def test_generator_draws_repeat():
    first = torch.rand(5, generator=generator(1, "augment", 2, 3))
    assert first.equal(torch.rand(5, generator=generator(1, "augment", 2, 3)))


@given(
    st.integers(1, 20),
    st.integers(0, 1000),
    st.integers(0, 40),
    st.integers(1, 5),
    st.integers(0, 2**62),
)
def test_a_places_chance_hangs_on_its_number_alone(rows, first, count, step, seed):
    places = range(first, first + count * step, step)
    drawn = uniform(rows, places, seed, "a", 3)
    assert drawn.shape == (rows, count)
    assert drawn.dtype == torch.float32
    alone = [uniform(rows, range(place, place + 1), seed, "a", 3) for place in places]
    assert drawn.equal(torch.cat([torch.zeros(rows, 0), *alone], dim=1))


def test_chance_differs_by_seed_address_place_and_row():
    tables = [
        uniform(10, places, seed, *address)
        for places, seed, address in (
            (range(100), 0, ("a",)),
            (range(100, 200), 0, ("a",)),
            (range(100), 1, ("a",)),
            (range(100), 0, ("b",)),
            (range(100), 0, ("a", 0)),
        )
    ]
    numbers = torch.stack(tables)
    assert len(numbers.unique()) > 0.999 * numbers.numel()


@pytest.mark.parametrize("rows", [1, 8, 10, 19])
def test_chance_is_uniform_and_no_row_goes_with_another(rows):
    drawn = uniform(rows, range(20_000), 4, "test").numpy()
    assert 0 <= drawn.min() < 1e-3
    assert 1 - 1e-3 < drawn.max() < 1
    assert all(kstest(row, "uniform").pvalue > 1e-4 for row in drawn)
    together = np.corrcoef(np.concatenate([drawn, np.roll(drawn, 1, axis=1)]))
    assert np.abs(together - np.eye(2 * rows)).max() < 5 / 20_000**0.5


def test_chance_is_the_same_on_every_machine():
    """A change would change trainings."""
    drawn = uniform(3, range(7, 9), 5, "augment", 1)
    known = [[0.34403205, 0.16030353], [0.13555771, 0.99591041], [0.35435325, 0.08561677]]
    assert drawn.numpy() == pytest.approx(np.array(known), abs=1e-8)
