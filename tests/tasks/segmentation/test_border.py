"""U-Net's weight map: by hand, by brute force, on real cells."""

import time

import numpy as np
import pytest
from PIL import Image
from real_data import REAL
from scipy.spatial.distance import cdist
from skimage.measure import label

from hubel.data.masks.record import IGNORE
from hubel.errors import OptionError
from hubel.tasks.segmentation.border import border_weights


def by_brute_force(mask, objects, w0, sigma):
    """Every pixel's distance to every object, straight from the formula."""
    numbered = label(mask == objects, connectivity=1)
    weights = np.ones(mask.shape)
    everywhere = np.argwhere(np.ones(mask.shape))
    away = [
        cdist(everywhere, np.argwhere(numbered == n)).min(axis=1).reshape(mask.shape)
        for n in range(1, numbered.max() + 1)
    ]
    if len(away) > 1:
        d1, d2 = np.sort(away, axis=0)[:2]
        border = w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))
        weights += np.where(mask == objects, 0, border)
    weights[mask == IGNORE] = 0
    return weights


@pytest.mark.parametrize(("w0", "sigma"), [(10.0, 5.0), (3.0, 1.0), (10.0, 20.0), (0.0, 5.0)])
@pytest.mark.parametrize("seed", range(3))
def test_against_brute_force(w0, sigma, seed):
    draw = np.random.default_rng(seed)
    mask = (draw.random((47, 71)) < 0.02).astype(np.uint8)
    mask[10:20, 30:33] = mask[10:12, 30:44] = 1
    mask[draw.random(mask.shape) < 0.05] = IGNORE
    found = border_weights(mask, 1, w0=w0, sigma=sigma)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_brute_force(mask, 1, w0, sigma), rtol=2e-6)


def test_two_squares_with_a_gap_by_hand():
    """A gap of 3 columns: in its middle d1 = d2 = 2, beside a square d1 = 1, d2 = 3: 4 in sum
    everywhere, 10 exp(-16 / 50) + 1. Left of both by one: d1 = 1, d2 = 1 + 4 + 3 = 8."""
    mask = np.zeros((4, 13), np.uint8)
    mask[:, 1:5] = mask[:, 8:12] = 1
    weights = border_weights(mask, 1)
    assert weights[:, 5:8] == pytest.approx(1 + 10 * np.exp(-16 / 50))
    assert (weights[mask == 1] == 1).all()
    assert weights[2, 0] == pytest.approx(1 + 10 * np.exp(-81 / 50))


def test_alone_an_object_has_no_border():
    mask = np.zeros((9, 9), np.uint8)
    assert (border_weights(mask, 1) == 1).all()
    mask[2:5, 2:5] = 1
    assert (border_weights(mask, 1) == 1).all()
    assert (border_weights(np.ones_like(mask), 1) == 1).all()
    assert (border_weights(np.full_like(mask, IGNORE), 1) == 0).all()


def test_a_balance_weighs_classes_alike():
    """6 pixels of class 0, 2 of class 1, 1 without label: 8 / (2 * 6) and 8 / (2 * 2)."""
    mask = np.array([[0, 0, 0], [0, 0, 0], [1, 1, IGNORE]], np.uint8)
    weights = border_weights(mask, 1, balance=True)
    assert weights[mask == 0] == pytest.approx(2 / 3)
    assert weights[mask == 1] == pytest.approx(2)
    assert weights[mask != IGNORE].mean() == pytest.approx(1)


def test_what_is_refused():
    mask = np.zeros((2, 2), np.uint8)
    for w0, sigma in ((-1.0, 5.0), (10.0, 0.0), (float("nan"), 5.0)):
        with pytest.raises(OptionError, match="w0 must be 0 or more and sigma above 0"):
            border_weights(mask, 1, w0=w0, sigma=sigma)


@pytest.mark.skipif(not (REAL / "isbi-em").is_dir(), reason=f"no real data in {REAL}")
def test_real_cells_take_a_moment():
    """136 pieces on 512x512; 0.1 s on one core of a server."""
    slice_ = np.asarray(Image.open(REAL / "isbi-em/label/0.png"))
    mask = (slice_ > 127).astype(np.uint8)
    took = []
    for _ in range(3):
        start = time.process_time()
        weights = border_weights(mask, 1)
        took.append(time.process_time() - start)
    assert min(took) < 2
    assert (weights[mask == 1] == 1).all()
    assert 5 < weights.max() <= 11
    assert weights[mask == 0].mean() > 2  # most membranes are thin
