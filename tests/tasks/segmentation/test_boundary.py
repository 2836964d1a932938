"""Boundary precision and recall by hand, and against SciPy's distance transform."""

import numpy as np
import pytest
from scipy import ndimage

from hubel.data.masks.record import IGNORE
from hubel.tasks.segmentation.boundary import boundary_f, boundary_sums, edges


def by_distance_transform(truth, said, classes):
    """The definition, one distance map for each class and side."""
    reach = 0.0075 * np.hypot(*truth.shape)
    said = np.where(truth == IGNORE, IGNORE, said)
    sums = np.zeros((classes, 4))
    cross = ndimage.generate_binary_structure(2, 1)
    for k in range(classes):
        lines = []
        for labels in (said, truth):
            others = (labels != k) & (labels != IGNORE)
            lines.append((labels == k) & ndimage.binary_dilation(others, cross))
        for place, (a, b) in enumerate((lines, lines[::-1])):
            if a.any():
                away = ndimage.distance_transform_edt(~b) if b.any() else np.full(a.shape, np.inf)
                sums[k, 2 * place : 2 * place + 2] = ((away[a] <= reach).mean(), 1)
    return sums


def blobs(shape, classes, seed, width=6):
    draw = np.random.default_rng(seed)
    noise = [ndimage.gaussian_filter(draw.normal(size=shape), width) for _ in range(classes)]
    return np.argmax(noise, axis=0).astype(np.uint8)


@pytest.mark.parametrize("shape", [(61, 83), (240, 320), (380, 700), (900, 400), (1, 500), (3, 2)])
def test_against_distance_transforms(shape):
    """Reaches of 0.03 to 7.4 pixels: rings alone, and rings with trees."""
    draw = np.random.default_rng(1)
    truth, said = blobs(shape, 5, 0, 8), blobs(shape, 5, 0, 9)
    speckled = draw.random(shape) < 0.01
    said[speckled] = draw.integers(0, 5, speckled.sum())
    truth[draw.random(shape) < 0.02] = IGNORE
    truth[: shape[0] // 8, : shape[1] // 8] = IGNORE
    truth[truth == 4] = 3  # predicted, but never there
    found = boundary_sums(truth, said, 6)  # class 5 is neither
    np.testing.assert_allclose(found, by_distance_transform(truth, said, 6), rtol=1e-12)


def halves(at, shape=(240, 320)):
    mask = np.zeros(shape, np.uint8)
    mask[:, at:] = 1
    return mask


def test_a_shifted_edge_counts_up_to_the_tolerance():
    """240x320 has a diagonal of 400 pixels, of which 0.75 % are 3, the reach included."""
    truth = halves(100)
    assert boundary_sums(truth, halves(103), 2).tolist() == [[1, 1, 1, 1]] * 2
    assert boundary_sums(truth, halves(97), 2).tolist() == [[1, 1, 1, 1]] * 2
    assert boundary_sums(truth, halves(104), 2).tolist() == [[0, 1, 0, 1]] * 2


def test_false_and_missed_boundaries_by_hand():
    """A bar of 10 columns that is true, taken for one of 30: one of its two edges is met."""
    truth, said = np.zeros((240, 320), np.uint8), np.zeros((240, 320), np.uint8)
    truth[:, 100:110] = 1
    said[:, 100:130] = 1
    assert boundary_sums(truth, said, 2).tolist() == [[0.5, 1, 0.5, 1]] * 2
    nothing = np.zeros_like(truth)
    assert boundary_sums(truth, nothing, 2).tolist() == [[0, 0, 0, 1]] * 2
    assert boundary_sums(nothing, said, 2).tolist() == [[0, 1, 0, 0]] * 2


def test_edges_by_hand():
    mask = np.array([[0, 0, 1], [0, 0, IGNORE], [2, IGNORE, 1]], np.uint8)
    assert edges(mask).tolist() == [[False, True, True], [True, False, False], [True, False, False]]


def test_the_unlabelled_has_no_boundary():
    truth, said = halves(100), halves(200)
    truth[:, 90:] = IGNORE
    assert boundary_sums(truth, said, 2).sum() == 0


def test_f_is_of_the_means():
    """Two images: precision 1 and 1/2 of a class, recall 1/4 in the one that has it."""
    sums = np.array([[1.5, 2, 0.25, 1], [0, 1, 0, 0], [0, 0, 0, 0]])
    f = boundary_f(sums)
    assert f[:2].tolist() == pytest.approx([2 * 0.75 * 0.25 / 1.0, 0])
    assert np.isnan(f[2])
