"""Cross entropy of a tile against PyTorch in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from native_kernel import MACHINES, array, every_tile, kernel, like, noise, to_tile, to_torch

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


# ---- a label for every pixel


def run_map(z, told, n, machine, *, smoothing=0.0, scale=0.25, **more):
    """(loss, hits, dz) of a tile of maps (classes, rows, columns, lanes)."""
    dz, totals = array(*z.shape), array(2, machine.lanes)
    spec = CrossEntropy(len(z), smoothing, False, True, map=z.shape[1:3], **more)
    kernel(spec, machine)(z, told, n, scale, dz, totals)
    return float(totals[0].sum()), float(totals[1].sum()), dz


def told_of(machine, classes, rows, columns):
    """Labels, one in four missing, and weights: (2, rows, columns, lanes)."""
    draw = np.random.default_rng(rows)
    told = array(2, rows, columns, machine.lanes)
    told[0] = draw.integers(0, classes, told[0].shape)
    told[0][draw.random(told[0].shape) < 0.25] = -1
    told[1] = draw.random(told[1].shape) * 2
    return told


@every_tile
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("classes", "rows", "columns"), [(2, 1, 1), (3, 5, 4), (21, 2, 7)])
def test_pixels_with_labels_and_weights(classes, rows, columns, smoothing, machine):
    z = like(noise(classes, rows, columns, machine.lanes) * 4)
    told = told_of(machine, classes, rows, columns)
    for n in (1, machine.lanes, machine.lanes + 3):
        there = min(n, machine.lanes)
        exact = torch.tensor(z.transpose(3, 0, 1, 2)[:there].astype(np.float64), requires_grad=True)
        labels = torch.tensor(told[0].transpose(2, 0, 1)[:there]).long()
        weights = torch.tensor(told[1].transpose(2, 0, 1)[:there]).double()
        known = labels >= 0
        each = F.cross_entropy(
            exact, labels.where(known, 0), label_smoothing=smoothing, reduction="none"
        )
        theirs = 0.25 * (each * weights)[known].sum()
        theirs.backward()
        loss, hits, dz = run_map(z, told, n, machine, smoothing=smoothing)
        assert loss == pytest.approx(theirs.item(), rel=3e-6, abs=1e-6)
        assert hits == int((exact.argmax(1) == labels).sum())
        np.testing.assert_allclose(dz.transpose(3, 0, 1, 2)[:there], exact.grad.numpy(), atol=3e-7)
        assert not dz[..., there:].any()


@every_tile
def test_pixels_without_a_label_count_for_nothing_whatever_stands_there(machine):
    z, told = noise(3, 2, 2, machine.lanes), told_of(machine, 3, 2, 2)
    told[0, 1, 0] = -1
    before = run_map(z, told, machine.lanes, machine)
    z[:, 1, 0] = np.nan
    after = run_map(z, told, machine.lanes, machine)
    assert before[:2] == after[:2]
    np.testing.assert_array_equal(before[2], after[2])
    told[0, 1, 0, 0] = 2
    assert np.isnan(run_map(z, told, machine.lanes, machine)[0])


@every_tile
def test_a_pixels_label_that_is_no_class_makes_the_loss_nan(machine):
    z, told = noise(3, 2, 2, machine.lanes), told_of(machine, 3, 2, 2)
    told[0, 1, 1, machine.lanes - 1] = 3
    assert np.isnan(run_map(z, told, machine.lanes, machine)[0])
    assert np.isfinite(run_map(z, told, machine.lanes - 1, machine)[0])


def test_many_pixels_are_added_up_as_exactly_as_few():
    machine = MACHINES[0]
    z, told = array(2, 300, 300, machine.lanes), array(2, 300, 300, machine.lanes)
    told[1] = 1
    loss, hits, _ = run_map(z, told, machine.lanes, machine, scale=1.0)
    assert loss == pytest.approx(90_000 * machine.lanes * np.log(2), rel=1e-6)
    assert hits == 90_000 * machine.lanes
