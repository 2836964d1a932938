"""Cross entropy of a tile against PyTorch in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from native_kernel import array, every_tile, kernel, like, noise, to_tile, to_torch

from hubel.engine.native.kernels.loss import CrossEntropy


def run(z, labels, n, machine, *, smoothing=0.0, shares=False, scale=0.25, backward=True, **more):
    """(loss, hits, dz) of a tile; totals begin with something in them."""
    classes = len(z)
    dz, totals = array(*z.shape), array(2, machine.lanes)
    totals[:] = 1
    spec = CrossEntropy(classes, smoothing, shares, backward, **more)
    kernel(spec, machine)(z, labels, n, scale, dz, totals)
    return float(totals[0].sum()) - machine.lanes, float(totals[1].sum()) - machine.lanes, dz


def labels_of(machine, classes, n):
    labels = array(n, dtype=np.int64)  # no longer than it must be: beyond it stands a rim
    labels[:] = np.random.default_rng(classes).integers(0, classes, n)
    return labels


@every_tile
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("classes", [1, 2, 10, 37])
def test_labels_full_and_unfilled_tiles(classes, smoothing, machine):
    z = like(noise(classes, machine.lanes) * 5)
    for n in (1, machine.lanes - 1, machine.lanes, machine.lanes + 20):
        there = min(n, machine.lanes)
        labels = labels_of(machine, classes, there)
        exact = to_torch(z)[:there].requires_grad_()
        theirs = F.cross_entropy(
            exact, torch.tensor(labels), label_smoothing=smoothing, reduction="sum"
        )
        (theirs * 0.25).backward()
        loss, hits, dz = run(z, labels, n, machine, smoothing=smoothing)
        assert loss == pytest.approx(theirs.item() * 0.25, rel=2e-6, abs=2e-6 * machine.lanes)
        assert hits == int((exact.argmax(1).numpy() == labels).sum())
        np.testing.assert_allclose(dz[:, :there], to_tile(exact.grad), atol=1e-7)
        assert not dz[:, there:].any()


@every_tile
def test_the_loss_of_an_auxiliary_head(machine):
    z, labels = like(noise(6, machine.lanes)), labels_of(machine, 6, machine.lanes)
    whole, _, slope = run(z, labels, machine.lanes, machine)
    part, hits, dz = run(z, labels, machine.lanes, machine, weight=0.3, judged=False)
    assert part == pytest.approx(0.3 * whole, rel=1e-5)
    assert hits == 0
    np.testing.assert_allclose(dz, 0.3 * slope, atol=1e-8)


@every_tile
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_shares(smoothing, machine):
    classes, n = 7, machine.lanes - 1
    z = like(noise(classes, machine.lanes) * 3)
    shares = array(classes, machine.lanes)
    shares[:] = np.random.default_rng(1).dirichlet(np.ones(classes), machine.lanes).T
    exact = to_torch(z)[:n].requires_grad_()
    t = to_torch(shares)[:n]
    theirs = F.cross_entropy(exact, t, label_smoothing=smoothing, reduction="sum")
    (theirs * 0.25).backward()
    loss, hits, dz = run(z, shares, n, machine, smoothing=smoothing, shares=True)
    assert loss == pytest.approx(theirs.item() * 0.25, rel=3e-6)
    assert hits == int((exact.argmax(1) == t.argmax(1)).sum())
    np.testing.assert_allclose(dz[:, :n], to_tile(exact.grad), atol=1e-7)


@every_tile
def test_shares_that_do_not_add_up_to_one(machine):
    z, n = noise(3, machine.lanes), machine.lanes
    shares = like(np.abs(noise(3, machine.lanes, seed=1)))
    exact = to_torch(z).requires_grad_()
    theirs = F.cross_entropy(exact, to_torch(shares), reduction="sum")
    theirs.backward()
    loss, _, dz = run(z, shares, n, machine, shares=True, scale=1.0)
    assert loss == pytest.approx(theirs.item(), rel=3e-6)
    np.testing.assert_allclose(dz, to_tile(exact.grad), atol=1e-6)


@every_tile
def test_large_logits_neither_overflow_nor_vanish(machine):
    z = array(3, machine.lanes)
    z[:] = np.array([1e4, -1e4, 0.0])[:, None]
    labels = array(machine.lanes, dtype=np.int64)
    loss, hits, dz = run(z, labels, machine.lanes, machine, scale=1.0)
    assert loss == pytest.approx(0, abs=1e-5)
    assert hits == machine.lanes
    assert np.abs(dz).max() == 0
    labels[:] = 1
    loss, hits, dz = run(z, labels, machine.lanes, machine, scale=1.0)
    assert loss == pytest.approx(2e4 * machine.lanes)
    assert hits == 0
    np.testing.assert_array_equal(dz[:, 0], [1, -1, 0])


@every_tile
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_shows_in_the_loss(bad, machine):
    z = noise(4, machine.lanes)
    z[2, 1] = bad
    loss, _, _ = run(z, labels_of(machine, 4, machine.lanes), machine.lanes, machine)
    assert not np.isfinite(loss)
    z[2, 1], z[2, machine.lanes - 1] = 0, bad  # an absent image's numbers count for nothing
    labels = labels_of(machine, 4, machine.lanes)
    loss, _, dz = run(z, labels, machine.lanes - 1, machine)
    assert np.isfinite(loss)
    assert np.isfinite(dz).all()


@every_tile
def test_equal_logits_count_as_the_first_class(machine):
    z = array(3, machine.lanes)
    labels = array(machine.lanes, dtype=np.int64)
    labels[1] = 1
    _, hits, _ = run(z, labels, machine.lanes, machine)
    assert hits == machine.lanes - 1
