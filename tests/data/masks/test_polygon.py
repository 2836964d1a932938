"""Filled polygons: by hand, by other libraries' tests of points, and beside pycocotools."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path
from scipy import ndimage

from hubel.data.masks.polygon import fill

number = st.floats(-5, 25, allow_nan=False)
points = st.lists(st.tuples(number, number), min_size=3, max_size=3)


def drawn(*corners, size=(5, 7)):
    inside = fill(np.array(corners, float), *size)
    return ["".join(".#"[int(v)] for v in row) for row in inside]


def test_a_square_on_the_grid_is_its_pixels():
    assert drawn((1, 1), (4, 1), (4, 3), (1, 3)) == [
        ".......",
        ".###...",
        ".###...",
        ".......",
        ".......",
    ]


def test_centres_decide():
    """Half a pixel further, centres lie on the edges: left and upper ones belong to the inside."""
    assert drawn((1.5, 1.5), (4.5, 1.5), (4.5, 3.5), (1.5, 3.5)) == [
        ".......",
        ".###...",
        ".###...",
        ".......",
        ".......",
    ]
    assert drawn((1.6, 1), (4, 1), (4, 3), (1.6, 3))[1] == "..##..."


def test_a_triangle_and_what_lies_outside_of_the_image():
    assert drawn((-10, -10), (20, -10), (-10, 20), size=(4, 12)) == [
        "#########...",
        "########....",
        "#######.....",
        "######......",
    ]
    assert not fill(np.array([(30, 1), (40, 1), (40, 9)], float), 5, 7).any()
    assert fill(np.array([(-9, -9), (99, -9), (99, 99), (-9, 99)], float), 5, 7).all()


def test_a_bow_tie_is_by_the_even_odd_rule():
    twice = [(0, 0), (6, 0), (6, 4), (0, 4)] * 2
    assert not fill(np.array(twice, float), 5, 7).any()


def clear_of(corners, y, x):
    """Centres that lie on no edge: there the two rules may differ."""
    clear = np.ones(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
        along = np.clip(
            ((x - ax) * (bx - ax) + (y - ay) * (by - ay))
            / max((bx - ax) ** 2 + (by - ay) ** 2, 1e-9),
            0,
            1,
        )
        clear &= np.hypot(ax + along * (bx - ax) - x, ay + along * (by - ay) - y) > 1e-6
    return clear


@given(points)
@settings(deadline=None)
def test_triangles_hold_the_centres_that_matplotlib_finds(corners):
    y, x = np.mgrid[:19, :23] + 0.5
    expected = Path(corners).contains_points(np.stack([x.ravel(), y.ravel()], 1)).reshape(19, 23)
    clear = clear_of(corners, y, x)
    assert np.array_equal(fill(np.array(corners), 19, 23)[clear], expected[clear])


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_stars_hold_the_centres_that_matplotlib_finds(seed):
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 40))
    radius = rng.uniform(3, 25, 40)
    star = np.stack([20 + radius * np.cos(angle), 18 + radius * np.sin(angle)], 1)
    y, x = np.mgrid[:37, :41] + 0.5
    expected = Path(star).contains_points(np.stack([x.ravel(), y.ravel()], 1)).reshape(37, 41)
    assert np.array_equal(fill(star, 37, 41), expected)


def test_two_halves_share_no_pixel_and_leave_none_out():
    left = fill(np.array([(0, 0), (3, 0), (9, 11), (0, 11)], float), 11, 13)
    right = fill(np.array([(3, 0), (13, 0), (13, 11), (9, 11)], float), 11, 13)
    assert not (left & right).any()
    assert (left | right).all()


def test_pycocotools_differs_at_the_outline_alone():
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for _ in range(20):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 12))
        radius = rng.uniform(25, 45, 12)
        star = np.stack([50 + radius * np.cos(angle), 48 + radius * np.sin(angle)], 1)
        (code,) = coco.frPyObjects([star.ravel().tolist()], 97, 101)
        theirs = coco.decode(code).astype(bool)
        ours = fill(star, 97, 101)
        outline = ndimage.binary_dilation(ours, np.ones((3, 3))) & ~ndimage.binary_erosion(
            ours, np.ones((3, 3))
        )
        assert not ((ours != theirs) & ~outline).any()
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.93
