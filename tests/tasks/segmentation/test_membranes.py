"""Rand scores against scikit-image, and by counting pairs."""

import itertools

import numpy as np
import pytest
from skimage.measure import label
from skimage.metrics import adapted_rand_error

from hubel.data.masks.record import IGNORE
from hubel.tasks.segmentation.membranes import pair_sums, pieces, rand


def cells(shape=(64, 80), seed=0, gaps=0.0):
    """A jittered grid of cells (1) between membranes (0), some of them broken."""
    draw = np.random.default_rng(seed)
    mask = np.ones(shape, np.uint8)
    mask[8::16] = mask[:, 5::13] = 0
    mask[(mask == 0) & (draw.random(shape) < gaps)] = 1
    return mask


@pytest.mark.parametrize("seed", range(4))
def test_f_is_scikit_images(seed):
    truth, said = cells(seed=seed), cells(seed=seed, gaps=0.03 * seed)
    said[np.random.default_rng(seed).random(said.shape) < 0.02] = 0
    error, split, merge = adapted_rand_error(
        label(truth, connectivity=1), label(said, connectivity=1)
    )  # their "precision" divides by the pairs of the truth: it is the split score
    found = rand(pair_sums(truth, said, 1))
    assert found == pytest.approx({"rand_f": 1 - error, "rand_split": split, "rand_merge": merge})


def test_against_counting_pairs():
    draw = np.random.default_rng(5)
    truth = draw.integers(0, 3, (6, 7)).astype(np.uint8)
    truth[0, :3] = IGNORE
    said = draw.integers(0, 3, (6, 7)).astype(np.uint8)
    known = np.where(truth == IGNORE, IGNORE, said)
    a, b = label(truth == 2, connectivity=1), label(known == 2, connectivity=1)
    inside = [p for p in np.ndindex(6, 7) if truth[p] == 2]
    sums = np.zeros(3)
    for p, q in itertools.permutations(inside, 2):
        true, called = a[p] == a[q], b[p] == b[q]
        sums += (true and called, true, called)
    assert pair_sums(truth, said, 2).tolist() == sums.tolist()


def test_a_merge_and_a_split_by_hand():
    """Cells of 4 and 2 pixels; a gap joins them: 12 + 2 of 30 ordered pairs belong together.
    A line through the first: 2 + 2 of its 12 pairs stay, but for the line's own pixel."""
    truth = np.array([[1, 1, 1, 1, 0, 1, 1]], np.uint8)
    merged = rand(pair_sums(truth, np.ones_like(truth), 1))
    assert merged == pytest.approx({"rand_f": 28 / 44, "rand_split": 1.0, "rand_merge": 14 / 30})
    said = np.array([[1, 1, 0, 1, 0, 1, 1]], np.uint8)
    cut = rand(pair_sums(truth, said, 1))
    assert cut == pytest.approx({"rand_f": 8 / 18, "rand_split": 4 / 14, "rand_merge": 1.0})


def test_diagonal_membranes_part():
    mask = 1 - np.eye(5, dtype=np.uint8)
    assert pieces(mask, 1).max() == 2


def test_what_is_said_of_unlabelled_pixels_does_not_count():
    """A cell that nobody judged in its middle: whether the answer joins its halves, no matter."""
    truth = cells()
    truth[:, 20:23] = IGNORE
    for filler in (0, 1):
        said = np.where(truth == IGNORE, np.uint8(filler), truth)
        assert set(rand(pair_sums(truth, said, 1)).values()) == {1.0}


def test_perfect_and_none():
    truth = cells()
    assert set(rand(pair_sums(truth, truth, 1)).values()) == {1.0}
    nothing = pair_sums(np.zeros_like(truth), truth, 1)
    assert nothing.tolist() == [0, 0, 0]
    assert all(np.isnan(value) for value in rand(nothing).values())
