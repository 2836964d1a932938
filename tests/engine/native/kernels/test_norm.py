"""Batch norm's sums and figures, put together, against PyTorch in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from native_kernel import array, every_machine, kernel, like, noise, to_torch, worst

from hubel.engine.native.kernels.norm import (
    Figures,
    FiguresBack,
    FixedFigures,
    NormBack,
    Sums,
)

SHAPES = [(1, 1, 3), (3, 4, 5), (5, 2, 8)]
EPS = 1e-3


class Norm:
    """One layer, two threads: the second has the last tile, which is not full."""

    def __init__(self, shape, machine, *, affine=True, running=True, offset=0.0):
        self.shape, self.machine = shape, machine
        channels = shape[0]
        self.tiles = [like(noise(*shape, machine.lanes, seed=s) + offset) for s in range(3)]
        self.present = [array(machine.lanes) for _ in self.tiles]
        for number, there in enumerate(self.present):
            there[: machine.lanes if number < 2 else machine.lanes - 3] = 1
        self.images = 3 * machine.lanes - 3
        self.gamma = like(noise(channels, seed=10) + 2) if affine else 0
        self.beta = noise(channels, seed=11) if affine else 0
        self.mean = like(noise(channels, seed=12) * 0.1 + offset) if running else 0
        self.variance = like(np.abs(noise(channels, seed=13)) + 0.5) if running else 0
        self.affine, self.running = affine, running
        self.figures = array(4, channels)
        self.sums = array(2, channels, 2, machine.lanes, dtype=np.float64)  # of two threads
        self.apart = self.sums[0].nbytes

    def torch_images(self):
        tiles = torch.cat([to_torch(t) for t in self.tiles])[: self.images]
        return tiles.requires_grad_()

    def torch_weights(self):
        made = [
            torch.tensor(w, dtype=torch.float64) if isinstance(w, np.ndarray) else None
            for w in (self.mean, self.variance, self.gamma, self.beta)
        ]
        for w in made[2:]:
            if w is not None:
                w.requires_grad_()
        return made

    def forward(self, momentum=0.1):
        channels, rows, row = self.shape
        shift = self.mean if self.running else array(channels)
        if self.running:
            shift = self.mean.copy()
        for number, tile in enumerate(self.tiles):
            kernel(Sums(channels, rows * row), self.machine)(
                tile, like(shift), self.sums[number // 2], self.present[number]
            )
        spec = Figures(channels, rows * row, EPS, momentum, self.affine, self.affine, self.running)
        first = self.mean if self.running else like(shift)
        for c0, c1 in ((0, channels // 2), (channels // 2, channels)):
            kernel(spec, self.machine)(
                self.sums, self.apart, 2, self.images, first, self.gamma, self.beta, self.mean,
                self.variance, self.figures, c0, c1,
            )  # fmt: skip

    def normed(self):
        """scale x + shift, as images."""
        scale, shift = (torch.tensor(self.figures[n]).double()[:, None, None] for n in (0, 1))
        return self.torch_images().detach() * scale + shift


@every_machine
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_over_threads_and_an_unfilled_tile(shape, running, affine, machine):
    norm = Norm(shape, machine, affine=affine, running=running)
    mean, variance, gamma, beta = norm.torch_weights()
    theirs = F.batch_norm(norm.torch_images(), mean, variance, gamma, beta, True, 0.1, EPS)
    norm.forward()
    assert worst(norm.normed(), theirs.detach()) < 3e-6
    if running:
        np.testing.assert_allclose(norm.mean, mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(norm.variance, variance, rtol=1e-5)


@every_machine
def test_a_mean_far_from_zero_does_not_eat_the_variance(machine):
    """Squares counted from the running mean: 1000 +- 1 keeps its variance in float32."""
    norm = Norm((3, 4, 5), machine, offset=1000.0)
    mean, variance, gamma, beta = norm.torch_weights()
    theirs = F.batch_norm(norm.torch_images(), mean, variance, gamma, beta, True, 1.0, EPS)
    norm.forward(momentum=1.0)
    np.testing.assert_allclose(norm.variance, variance, rtol=1e-4)
    assert float((norm.normed() - theirs.detach()).abs().max()) < 1e-3


@every_machine
def test_momentum_0_leaves_the_statistics_and_1_takes_the_batchs(machine):
    for momentum in (0.0, 1.0):
        norm = Norm((3, 4, 5), machine)
        mean, variance, *_ = norm.torch_weights()
        F.batch_norm(norm.torch_images(), mean, variance, None, None, True, momentum, EPS)
        norm.forward(momentum)
        np.testing.assert_allclose(norm.mean, mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(norm.variance, variance, rtol=1e-5)


@every_machine
@pytest.mark.parametrize("affine", [True, False])
def test_fixed_statistics(affine, machine):
    norm = Norm((5, 2, 8), machine, affine=affine)
    mean, variance, gamma, beta = norm.torch_weights()
    theirs = F.batch_norm(norm.torch_images(), mean, variance, gamma, beta, False, 0.1, EPS)
    for c0, c1 in ((0, 2), (2, 5)):
        kernel(FixedFigures(5, EPS, affine, affine), machine)(
            norm.gamma, norm.beta, norm.mean, norm.variance, norm.figures, c0, c1
        )
    assert worst(norm.normed(), theirs.detach()) < 1e-6


@every_machine
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("add", [False, True])
def test_the_way_back(shape, fixed, add, machine):
    channels, rows, row = shape
    norm = Norm(shape, machine)
    mean, variance, gamma, beta = norm.torch_weights()
    images = norm.torch_images()
    y = F.batch_norm(images, mean.clone(), variance.clone(), gamma, beta, not fixed, 0.1, EPS)
    dy = [noise(*shape, machine.lanes, seed=40 + n) for n in range(3)]
    dy[2][..., machine.lanes - 3 :] = 0
    y.backward(torch.cat([to_torch(d) for d in dy])[: norm.images])
    if fixed:
        kernel(FixedFigures(channels, EPS, True, True), machine)(
            norm.gamma, norm.beta, norm.mean, norm.variance, norm.figures, 0, channels
        )
    else:
        norm.forward()
    sums = array(2, channels, 2, machine.lanes, dtype=np.float64)
    for number, (tile, d) in enumerate(zip(norm.tiles, dy, strict=True)):
        moved = tile - norm.figures[2][:, None, None, None]
        sums[number // 2] += np.stack([d.sum((1, 2)), (d * moved).sum((1, 2))], 1)
    dgamma, dbeta, back = array(channels), array(channels), array(4, channels)
    spec = FiguresBack(channels, rows * row, True, True, fixed)
    for c0, c1 in ((0, channels // 2), (channels // 2, channels)):
        kernel(spec, machine)(
            sums, sums[0].nbytes, 2, norm.images, norm.figures, dgamma, dbeta, back, c0, c1
        )
    assert worst(dgamma, gamma.grad) < 1e-5
    assert worst(dbeta, beta.grad) < 1e-5
    found = []
    for number, (tile, d) in enumerate(zip(norm.tiles, dy, strict=True)):
        dx = noise(*shape, machine.lanes, seed=90)
        before = dx.copy() if add else 0
        for r0, r1 in ((0, rows // 2), (rows // 2, rows)):
            kernel(NormBack(channels, rows, row, add), machine)(
                d, tile, back, dx, norm.present[number], r0, r1
            )
        found.append(to_torch(dx - before))
    whole = torch.cat(found)
    assert worst(whole[: norm.images], images.grad) < 2e-5
    assert float(whole[norm.images :].abs().max()) < 1e-6  # absent images get nothing
