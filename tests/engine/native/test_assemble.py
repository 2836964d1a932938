"""Whole steps: any number of images and threads, frozen parameters and norms, shares, sizes."""

import itertools

import pytest
import torch
from native_kernel import MACHINES, every_machine
from native_nets import assert_agrees, batch, conv, pooled, seeded
from torch import nn


def dense():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(192, 33), nn.Tanh(), nn.Linear(33, 18), nn.Sigmoid(),
        nn.Linear(18, 5),
    )  # fmt: skip


class Two(nn.Module):
    """Two branches, each with a norm, and their sum."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.a, self.b = conv(), conv(k=1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.end = pooled()

    def forward(self, x):
        return self.end(self.a(self.one(x)) + self.b(self.two(x)))


def small_net():
    return nn.Sequential(
        conv(stride=2, bias=False), nn.BatchNorm2d(4), nn.Tanh(), conv(4, 6), nn.Tanh(),
        nn.Flatten(), nn.Linear(96, 9), nn.Tanh(), nn.Linear(9, 5),
    )  # fmt: skip


@pytest.mark.parametrize("n", [2, 3, 15, 16, 17, 31, 32, 33, 100])
def test_any_number_of_images(n):
    machine = MACHINES[n % len(MACHINES)]
    threads = (1, 2, 5)[n % 3]  # five are more than there are tiles
    assert_agrees(seeded(small_net), *batch(n, 3, 8, 8), machine=machine, threads=threads)


@every_machine
@pytest.mark.parametrize("n", [1, 5, 70])
def test_without_norms_several_tiles_go_together(n, machine):
    threads = {1: 2, 5: 1, 70: 5}[n]
    assert_agrees(seeded(dense), *batch(n, 3, 8, 8), machine=machine, threads=threads)


def test_norms_that_keep_their_statistics_while_the_net_learns():
    for number, which in enumerate(itertools.product([True, False], repeat=2)):
        machine = MACHINES[number % len(MACHINES)]
        model = seeded(Two)
        model.a.train(which[0])
        model.b.train(which[1])
        assert_agrees(model, *batch(21, 3, 8, 8), machine=machine, threads=2)


def names(make):
    return [name for name, _ in seeded(make).named_parameters()]


@pytest.mark.parametrize("make", [small_net, Two])
def test_frozen_parameters_get_no_gradient_and_cost_the_others_none(make):
    everything = names(make)
    for number, frozen in enumerate(
        [everything[:1], everything[:-1], everything[1::2], everything]
    ):
        model = seeded(make)
        for word, p in model.named_parameters():
            p.requires_grad_(word not in frozen)
        step = assert_agrees(
            model, *batch(19, 3, 8, 8), machine=MACHINES[number % len(MACHINES)], threads=2
        )
        assert set(step.gradients) == set(everything) - set(frozen)


def test_shares_smoothing_and_scale():
    images, labels = batch(29, 3, 8, 8)
    shares = torch.softmax(
        torch.randn(len(images), 5, generator=torch.Generator().manual_seed(2)), 1
    )
    for number, (target, smoothing) in enumerate(itertools.product((labels, shares), (0.0, 0.2))):
        assert_agrees(
            seeded(small_net), images, target, machine=MACHINES[number % len(MACHINES)],
            threads=2, smoothing=smoothing, scale=0.01,
        )  # fmt: skip


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (13, 6)])
def test_maps_of_any_size(size):
    model = seeded(lambda: nn.Sequential(conv(1, 4), nn.Tanh(), conv(4, 4, 5), pooled()))
    machine = MACHINES[sum(size) % len(MACHINES)]
    assert_agrees(model, *batch(6, 1, *size), machine=machine, threads=1)
