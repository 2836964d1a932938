"""Superpixels keep to edges; the vote is a mean and its largest."""

import numpy as np
import pytest
from scipy import ndimage

from hubel.errors import DataError
from hubel.tasks.segmentation.superpixels import superpixels, vote


@pytest.mark.parametrize("channels", [1, 3])
def test_superpixels_keep_to_an_edge(channels):
    """Two fields; the smoothing's slope between them, 8 columns, may fall to either or neither."""
    image = np.full((channels, 40, 60), 30, np.uint8)
    image[:, :, 25:] = 200
    found = superpixels(image)
    assert found.shape == (40, 60)
    assert found.dtype == np.int64
    left, right = np.unique(found[:, :21]), np.unique(found[:, 29:])
    assert len(left) == len(right) == 1
    assert left != right


def test_how_large_they_are():
    draw = np.random.default_rng(0)
    image = ndimage.gaussian_filter(draw.normal(size=(3, 90, 120)), (0, 4, 4))
    image = np.clip(128 + 900 * image, 0, 255).astype(np.uint8)
    sizes = [np.bincount(superpixels(image, **o).ravel())
             for o in ({}, {"scale": 400.0}, {"least": 300})]  # fmt: skip
    assert len(sizes[0]) > len(sizes[1]) > 1
    assert sizes[0].min() >= 20
    assert sizes[2].min() >= 300


def test_the_vote_is_the_loops():
    draw = np.random.default_rng(0)
    chances = draw.dirichlet(np.ones(5), (17, 23)).transpose(2, 0, 1)
    segments = draw.integers(0, 12, (17, 23))
    segments[segments == 7] = 3  # a number that is no segment's
    labels = vote(chances, segments)
    assert labels.dtype == np.uint8
    for n in np.unique(segments):
        here = segments == n
        assert (labels[here] == chances[:, here].mean(axis=1).argmax()).all()


def test_the_vote_mends_a_stray_pixel():
    chances = np.zeros((2, 4, 4))
    chances[0], chances[1] = 0.8, 0.2
    chances[:, 1, 1] = 0.1, 0.9
    assert (vote(chances, np.zeros((4, 4), int)) == 0).all()


def test_sizes_must_agree():
    with pytest.raises(DataError, match=r"one size; they have \(4, 4\) and \(4, 5\)"):
        vote(np.zeros((2, 4, 4)), np.zeros((4, 5), int))
