"""The permutohedral lattice against the exact Gaussian, and against itself place by place."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hubel.engine.ops import lattice as module
from hubel.engine.ops.lattice import Lattice
from hubel.errors import ModelError


def cloud(n, d, spread=1.5, seed=0, dtype=torch.float64):
    chance = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(n, d, generator=chance, dtype=torch.float64)).to(dtype)


def photo_like(h, w, alpha, beta, seed=0):
    """Pixels of smooth colours with an edge, as points (h w, 5)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((h, w))
    colours = np.stack([80 * (columns > w / 2) + 2 * rows, 3 * columns, 120 - rows])
    colours = colours + rng.normal(0, 6, colours.shape)
    points = np.concatenate([np.stack([rows, columns]) / alpha, colours / beta])
    return torch.from_numpy(points.reshape(5, -1).T.copy())


def gaussian(points):
    p = points.numpy()
    return np.exp(-0.5 * ((p[:, None] - p[None]) ** 2).sum(-1))


# The paper's algorithm in plain loops ------------------------------------------------------------


def lifted(point):
    """Adams et al., section 3.1: an orthonormal basis of the plane, times (d + 1) sqrt(2/3)."""
    d = len(point)
    out = np.zeros(d + 1)
    for k in range(d):
        axis = np.array([1.0] * (k + 1) + [-(k + 1.0)] + [0.0] * (d - k - 1))
        out += point[k] * axis / np.linalg.norm(axis)
    return out * (d + 1) * math.sqrt(2 / 3)


def step(axis, d):
    return np.array([1 - (d + 1) * (i == axis) for i in range(d + 1)])


def around(x):
    """{corner: barycentric weight}: of all simplices near x, the one that holds it."""
    d = len(x) - 1
    best, found = -np.inf, {}
    for shift in itertools.product((-1, 0, 1), repeat=d):
        cell = np.round(x[:-1] / (d + 1)).astype(int) + shift
        origin = (d + 1) * np.append(cell, -cell.sum())
        if np.abs(origin - x).max() > 2 * (d + 1):
            continue
        for order in itertools.permutations(range(d + 1)):
            corners = [origin]
            for axis in order[:d]:
                corners.append(corners[-1] + step(axis, d))
            system = np.vstack([np.array(corners).T, np.ones(d + 1)])
            weights = np.linalg.lstsq(system, np.append(x, 1), rcond=None)[0]
            if weights.min() > best:
                best = weights.min()
                found = dict(zip(map(tuple, corners), weights, strict=True))
    assert best > -1e-9
    return found


def by_loops(points, values, bridges):
    """S B S^T x with a dictionary of places."""
    d = points.shape[1]
    held = [around(lifted(p)) for p in points]
    table = {corner: np.zeros(values.shape[1]) for corners in held for corner in corners}
    ways = [sign * step(axis, d) for axis in range(d + 1) for sign in (1, -1)]
    if bridges:
        touched = [tuple(np.array(c) + w) for c in table for w in ways]
        extra = {c for c in touched if touched.count(c) > 1} - table.keys()
        table |= {corner: np.zeros(values.shape[1]) for corner in extra}
    for i, corners in enumerate(held):
        for corner, weight in corners.items():
            table[corner] = table[corner] + weight * values[i]
    for axis in range(d + 1):
        blurred = {}
        for corner, value in table.items():
            sides = [tuple(np.array(corner) + sign * step(axis, d)) for sign in (1, -1)]
            blurred[corner] = value + 0.5 * sum(table.get(side, 0) for side in sides)
        table = blurred
    return np.array([sum(w * table[c] for c, w in corners.items()) for corners in held])


@pytest.mark.parametrize("bridges", [False, True])
@pytest.mark.parametrize(("d", "n"), [(1, 17), (2, 13), (3, 7)])
def test_place_by_place(d, n, bridges):
    points, x = cloud(n, d, 0.7, seed=d), cloud(n, 2, seed=9)
    lattice = Lattice(points, bridges=bridges)
    expected = by_loops(points.numpy(), x.numpy(), bridges)
    assert np.allclose((lattice.filter(x) / lattice.gain).numpy(), expected, atol=1e-12)


# The exact Gaussian ------------------------------------------------------------------------------


def norm_error(got, expected):
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(("alpha", "beta"), [(80, 13), (50, 3), (30, 8), (6, 20), (3, 40)])
def test_near_the_gaussian_on_a_picture(alpha, beta):
    points = photo_like(23, 29, alpha, beta)
    kernel, x = gaussian(points), cloud(len(points), 3).abs()
    lattice, ones = Lattice(points), torch.ones(len(points), 1, dtype=torch.float64)
    got, sums = lattice.filter(x).numpy(), lattice.filter(ones).numpy()
    assert norm_error(got, kernel @ x.numpy()) < 0.16
    exact = kernel.sum(1, keepdims=True)
    assert norm_error(got / sums, kernel @ x.numpy() / exact) < 0.04
    root, exact_root = np.sqrt(sums), np.sqrt(exact)
    symmetric = lattice.filter(x / torch.from_numpy(root)).numpy() / root
    assert norm_error(symmetric, kernel @ (x.numpy() / exact_root) / exact_root) < 0.05


def test_bridges_bring_it_nearer_and_more_symmetric():
    points = photo_like(23, 29, 50, 3)
    x = cloud(len(points), 1, seed=1).abs()
    expected = gaussian(points) @ x.numpy() / gaussian(points).sum(1, keepdims=True)
    errors, gaps = [], []
    for bridges in (False, True):
        lattice = Lattice(points, bridges=bridges)
        got = lattice.filter(x) / lattice.filter(torch.ones_like(x))
        errors.append(norm_error(got.numpy(), expected))
        matrix = lattice.filter(torch.eye(len(points), dtype=torch.float64)).numpy()
        gaps.append(norm_error(matrix, matrix.T))
    assert errors[1] < 0.7 * errors[0]
    assert gaps[1] < 0.7 * gaps[0]


def test_the_weight_of_a_point_on_itself():
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    points = torch.stack([rows, columns], -1).view(-1, 2).double() / 5.3  # dense: nothing missing
    lattice = Lattice(points)
    own = lattice.filter(torch.eye(len(points), dtype=torch.float64)).diagonal()
    inner = torch.zeros(24, 24, dtype=torch.bool)
    inner[6:-6, 6:-6] = True
    assert torch.allclose(own[inner.flatten()], lattice.diagonal()[inner.flatten()], atol=1e-12)
    for d in (1, 2, 3, 5, 7):
        assert abs(float(Lattice(cloud(20_000, d, 9.0)).diagonal().mean()) - 1) < 0.02


def test_points_far_apart_see_themselves_alone():
    points = 1e4 * cloud(50, 5, seed=3)
    lattice = Lattice(points)
    x = cloud(50, 2, seed=4)
    assert torch.allclose(lattice.filter(x), lattice.diagonal()[:, None] * x, rtol=0.15)


# Properties --------------------------------------------------------------------------------------

clouds = st.builds(
    cloud,
    st.integers(1, 60),
    st.integers(1, 6),
    st.floats(0.01, 30),
    st.integers(0, 10_000),
)
seeds = st.integers(0, 10_000)
some = settings(max_examples=40, deadline=None)


@some
@given(clouds)
def test_weights_are_shares_that_sum_to_one(points):
    weights = Lattice(points).weights
    assert float(weights.min()) > -1e-9
    assert torch.allclose(weights.sum(1), torch.ones(len(points), dtype=torch.float64))


@some
@given(clouds)
def test_splat_loses_nothing(points):
    x = cloud(len(points), 2, seed=1)
    assert torch.allclose(Lattice(points).splat(x).sum(0), x.sum(0))


@some
@given(clouds, st.floats(-9, 9))
def test_a_constant_stays_one_after_normalising(points, value):
    lattice = Lattice(points)
    ones = torch.ones(len(points), 1, dtype=torch.float64)
    sums = lattice.filter(ones)
    assert float(sums.min()) > 0
    assert torch.allclose(lattice.filter(value * ones) / sums, value * ones)


@some
@given(clouds, seeds, st.booleans())
def test_back_is_the_transpose(points, seed, bridges):
    lattice = Lattice(points, bridges=bridges)
    x, y = cloud(len(points), 2, seed=seed), cloud(len(points), 2, seed=seed + 1)
    there, back = (x * lattice.filter(y)).sum(), (lattice.filter(x, back=True) * y).sum()
    assert torch.allclose(there, back, atol=1e-9)


@some
@given(clouds, seeds)
def test_the_order_of_points_does_not_matter(points, seed):
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
    x = cloud(len(points), 2, seed=seed)
    expected = Lattice(points).filter(x)[order]
    assert torch.allclose(Lattice(points[order]).filter(x[order]), expected)


@some
@given(clouds)
def test_values_stay_positive(points):
    assert bool((Lattice(points).filter(cloud(len(points), 2).abs()) >= 0).all())


# The rest ----------------------------------------------------------------------------------------


def test_codes_by_chance_find_the_same_places(monkeypatch):
    points, x = cloud(200, 5), cloud(200, 3, seed=2)
    packed = Lattice(points)
    monkeypatch.setattr(module, "ROOM", 1)
    by_chance = Lattice(points)
    assert by_chance.size == packed.size
    assert torch.allclose(by_chance.filter(x), packed.filter(x))


def test_single_precision():
    points, x = cloud(300, 5), cloud(300, 4, seed=1)
    got = Lattice(points.float()).filter(x.float())
    assert got.dtype == torch.float32
    assert torch.allclose(got.double(), Lattice(points).filter(x), rtol=1e-4, atol=1e-4)


def test_one_point_on_a_corner_by_hand():
    """On a line both axes are the same, so (1, 2, 1) / 2 acts twice: (1, 4, 6, 4, 1) / 4."""
    lattice = Lattice(torch.zeros(1, 1, dtype=torch.float64))
    assert lattice.weights.tolist() == [[1, 0]]
    assert (lattice.gain, lattice.size) == (3 / 4, 4)
    x = torch.ones(1, 1, dtype=torch.float64)
    assert sorted(lattice.blur(lattice.splat(x)).flatten().tolist()) == [0, 0.25, 1, 1, 1.5]
    assert lattice.filter(x).item() == 3 / 4 * 6 / 4


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (torch.zeros(3), r"\(P, d\), at least one; given torch.float32 \(3,\)"),
        (torch.zeros(0, 2), r"given torch.float32 \(0, 2\)"),
        (torch.zeros(3, 2, dtype=torch.int64), "given torch.int64"),
        (torch.tensor([[0.0, math.nan]]), "infinite or NaN"),
    ],
)
def test_what_is_no_cloud_is_refused(points, words):
    with pytest.raises(ModelError, match=words):
        Lattice(points)


def test_it_says_how_large_it_is():
    assert repr(Lattice(torch.zeros(4, 1))) == "Lattice(4 points, 1 axes, 4 places)"
