"""Randomness has an address: the same address, the same draw; another address, another."""

import torch

from hubel.data.order import derive_seed, epoch_order, generator


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
