"""Pictures of masks, pixel by pixel."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import entropy

from hubel.data.masks.record import IGNORE
from hubel.tasks.caption import PAPER, WRONG
from hubel.tasks.segmentation.overlay import (
    _mean_around,
    difference,
    legend,
    overlay,
    uncertainty,
)

COLOURS = ((200, 0, 0), (0, 100, 50))


def halves(size=40):
    mask = np.zeros((size, size), np.uint8)
    mask[:, size // 2 :] = 1
    return mask


@pytest.mark.parametrize("channels", [1, 3])
def test_tint_by_hand(channels):
    image = np.full((channels, 40, 40), 100, np.uint8)
    mask = halves()
    mask[:5] = IGNORE
    found = np.asarray(overlay(image, mask, COLOURS, alpha=0.25, edges=False))
    assert found.shape == (40, 40, 3)
    assert found[20, 3].tolist() == [125, 75, 75]  # 100 + (200 - 100) / 4, 100 - 100 / 4
    assert found[20, 30].tolist() == [75, 100, 88]
    assert found[2, 3].tolist() == [100, 100, 100]  # no label, no tint
    assert (np.asarray(overlay(image, mask, COLOURS, alpha=0, edges=False)) == 100).all()


@pytest.mark.parametrize(("grey", "line"), [(0, 255), (60, 255), (230, 0), (255, 0)])
def test_lines_are_thin_and_stand_out(grey, line):
    image = np.full((3, 40, 40), grey, np.uint8)
    plain, lined = (
        np.asarray(overlay(image, halves(), COLOURS, alpha=0.2, edges=edges))
        for edges in (False, True)
    )
    changed = (plain != lined).any(axis=2)
    assert (changed == (np.arange(40) == 19)).all()
    assert (lined[:, 19] == line).all()


def test_lines_do_not_bury_a_speckled_mask():
    mask = np.indices((40, 40)).sum(axis=0).astype(np.uint8) % 2
    image = np.zeros((1, 40, 40), np.uint8)
    found = np.asarray(overlay(image, mask, COLOURS))
    assert (found == np.asarray(overlay(image, mask, COLOURS, edges=False))).all()


def test_difference_marks_wrong_and_unlabelled():
    truth, said = halves(), halves()
    said[10, :4] = 1
    truth[30:] = IGNORE
    found = np.asarray(difference(truth, said))
    assert found.shape == (40, 40, 4)
    assert (found[10, :4] == (*WRONG, 255)).all()
    assert (found[10, 4:, 3] == 0).all()
    hatch = found[30:, :, 3]
    assert set(np.unique(hatch)) == {0, 255}
    assert (hatch == 255).mean() == pytest.approx(1 / 3, abs=0.02)
    assert (found[:30, :, 3] == 255).sum() == 4


def test_uncertainty_is_scipys_entropy():
    chances = np.random.default_rng(0).dirichlet(np.ones(7), (5, 6)).transpose(2, 0, 1)
    found = uncertainty(chances)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, entropy(chances, base=7, axis=0), rtol=1e-5)
    assert uncertainty(np.full((4, 1, 1), 0.25)).item() == pytest.approx(1)
    assert uncertainty(np.array([[[1.0]], [[0.0]]])).item() == 0
    assert (uncertainty(np.ones((1, 3, 3))) == 0).all()


def swatches(strip):
    """The colours of a legend's squares, line by line, from left to right."""
    pixels = np.asarray(strip).astype(int)
    found = []
    for top in range(0, strip.height, 24):
        line = pixels[top + 12]
        for x in range(1, strip.width - 8):
            block = line[x : x + 8]
            here = (top, tuple(block[0]))
            if (block == block[0]).all() and here[1] != PAPER and here not in found[-1:]:
                found.append(here)
    return [colour for _, colour in found]


def test_legend_is_in_order_of_the_shares():
    colours = ((200, 0, 0), (0, 100, 50), (9, 9, 200))
    strip = legend(["a", "b", "c"], colours, [0.2, 0.0, 0.8])
    assert strip.height == 24
    assert swatches(strip) == [colours[2], colours[0], colours[1]]
    assert swatches(legend(["a", "b", "c"], colours)) == list(colours)


def test_legend_wraps_and_shortens():
    names = [f"a class of a rather long name {n}" * 3 for n in range(9)]
    colours = [(20 * n + 10, 0, 90) for n in range(9)]
    strip = legend(names, colours, [1 / 9] * 9, width=300)
    assert strip.size == (300, 9 * 24)
    assert swatches(strip) == colours
    assert (np.asarray(strip)[:, -2:] == PAPER).all()
    assert legend(["a"], COLOURS[:1], [0.5], width=40).width == 40


@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (33, 31), (64, 50)])
def test_surroundings_are_averaged_as_scipy_does(shape):
    values = np.random.default_rng(0).random(shape)
    found = _mean_around(values, 31)
    assert found == pytest.approx(ndimage.uniform_filter(values, 31, mode="nearest"), abs=1e-9)
