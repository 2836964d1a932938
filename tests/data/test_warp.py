"""The geometry against NumPy's padding, SciPy's and PyTorch's own sampling, and its own words."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hubel.data.masks.record import IGNORE
from hubel.data.warp import (
    Motion,
    affine,
    corner,
    cut,
    cut_labels,
    flipped,
    knots,
    margin,
    sampling_grid,
    warped,
)

RNG = np.random.default_rng(5)
sides = st.integers(1, 24)
windows = st.tuples(sides, sides)


def motion(angle=0.0, zoom=1.0, across=1.0, down=1.0, bend=None):
    """Of one window."""
    values = (torch.tensor([float(v)]) for v in (angle, zoom, across, down))
    return Motion(*values, bend)


motions = st.builds(
    motion,
    angle=st.floats(-math.pi, math.pi),
    zoom=st.floats(0.3, 2.5),
    across=st.sampled_from([-1, 1]),
    down=st.sampled_from([-1, 1]),
    bend=st.none() | st.integers(0, 2**31).map(
        lambda seed: 4 * torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(seed))
    ),
)  # fmt: skip


def noise(*shape):
    return torch.from_numpy(RNG.integers(0, 256, shape, dtype=np.uint8))


def grid_of(moved, window, source):
    return sampling_grid(affine(moved, window, source), moved.bend, window, source)


# The grid ------------------------------------------------------------------------------------


@given(window=windows)
def test_warping_by_nothing_is_nothing(window):
    images, masks = noise(1, 3, *window), noise(1, 1, *window)
    seen, labels = warped(images, masks, grid_of(motion(), window, window))
    assert seen.equal(images)
    assert labels.equal(masks.float())


@given(window=windows, border=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_a_window_stands_in_the_middle(window, border):
    wide = (window[0] + 2 * border[0], window[1] + 2 * border[1])
    images, masks = noise(1, 1, *wide), noise(1, 2, *wide)
    seen, labels = warped(images, masks, grid_of(motion(), window, wide))
    inside = (..., slice(border[0], border[0] + window[0]), slice(border[1], border[1] + window[1]))
    assert seen.equal(images[inside])
    assert labels.equal(masks[inside].float())


@pytest.mark.parametrize("down", [-1, 1])
@pytest.mark.parametrize("across", [-1, 1])
def test_mirrors_and_quarter_turns_are_numpys(across, down):
    """A positive angle turns the picture against the clock, as rot90 does."""
    image = noise(1, 1, 11, 11)
    expected = image[0, 0].numpy()
    for quarter in range(4):
        moved = motion(angle=quarter * math.pi / 2, across=across, down=down)
        seen, _ = warped(image, image, grid_of(moved, (11, 11), (11, 11)))
        turned = np.rot90(expected, quarter)[::down, ::across]
        np.testing.assert_array_equal(seen[0, 0].numpy(), turned)


@settings(deadline=None)
@given(moved=motions, window=windows, source=windows)
def test_the_unbent_grid_is_pytorchs(moved, window, source):
    theta = affine(moved, window, source)
    found = sampling_grid(theta, None, window, source)
    expected = F.affine_grid(theta, [1, 1, *window], align_corners=False)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("window", [(23, 31), (8, 5), (1, 7), (3, 3)])
def test_a_bend_is_pytorchs_bicubic_interpolation(window):
    bend = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    still = Motion(*(torch.full((4,), v) for v in (0.0, 1.0, 1.0, 1.0)), bend)
    grid = grid_of(still, window, (40, 50)) - grid_of(motion(), window, (40, 50))
    pixels = grid * torch.tensor([50 / 2, 40 / 2])
    expected = F.interpolate(bend, window, mode="bicubic", align_corners=True)
    torch.testing.assert_close(pixels.permute(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-4)


def test_knots_by_hand():
    """On 5 pixels the knots are pixels 0, 2, 4. Halfway, Keys' cubic (a = -0.75) gives the two
    neighbours 0.59375 each and those beyond -0.09375; beyond the border stands the border."""
    half = [0.59375 - 0.09375, 0.59375, -0.09375]
    expected = torch.tensor([[1, 0, 0], half, [0, 1, 0], half[::-1], [0, 0, 1.0]])
    torch.testing.assert_close(knots(5), expected)


@settings(deadline=None)
@given(moved=motions, window=windows)
def test_the_margin_holds_all_that_comes_in(moved, window):
    border = margin(moved, window)
    wide = (window[0] + 2 * border[0], window[1] + 2 * border[1])
    grid = grid_of(moved, window, wide)
    half = torch.tensor([wide[1] / 2, wide[0] / 2])
    pixels = grid * half + half - 0.5
    assert (pixels >= 0).all()
    assert (pixels <= torch.tensor([wide[1] - 1, wide[0] - 1])).all()


def test_the_margin_is_not_wasteful():
    assert margin(motion(), (30, 40)) == (1, 1)
    assert margin(motion(zoom=2), (30, 40)) == (0, 0)
    assert margin(motion(angle=math.pi / 2), (30, 40)) in [(6, 0), (7, 0)]


@pytest.mark.parametrize("bent", [False, True])
def test_cut_then_warped_is_pytorchs_sampling_with_reflection(bent):
    """Whole images that are turned and bent: the same as mirroring inside of `grid_sample`."""
    generator = torch.Generator().manual_seed(1)
    size, count = (37, 29), 24
    images = noise(count, 1, *size)
    moved = Motion(
        torch.rand(count, generator=generator) * 6.3,
        0.5 + torch.rand(count, generator=generator),
        *torch.ones(2, count),
        5 * torch.randn(count, 2, 3, 3, generator=generator) if bent else None,
    )
    border = margin(moved, size)
    wide = (size[0] + 2 * border[0], size[1] + 2 * border[1])
    pieces = cut(images, -border[0], -border[1], wide)
    seen, labels = warped(pieces, pieces, grid_of(moved, size, wide))
    grid = grid_of(moved, size, size)
    words = {"padding_mode": "reflection", "align_corners": False}
    expected = F.grid_sample(images.float(), grid, **words)
    assert (seen - expected).abs().max() <= 0.52
    nearest = F.grid_sample(images.float(), grid, mode="nearest", **words)
    assert (labels == nearest).float().mean() > 0.999  # the rest lies halfway between two pixels


# Cutting -------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(size=windows, window=windows, top=st.integers(-60, 60), left=st.integers(-60, 60))
def test_a_cut_is_numpys_symmetric_padding(size, window, top, left):
    pixels = noise(2, *size)
    padded = np.pad(pixels.numpy(), ((0, 0), (90, 90), (90, 90)), mode="symmetric")
    rows, columns = slice(90 + top, 90 + top + window[0]), slice(90 + left, 90 + left + window[1])
    np.testing.assert_array_equal(cut(pixels, top, left, window).numpy(), padded[:, rows, columns])
    mirrored = cut_labels(pixels[0], top, left, window, mirrored=True)
    np.testing.assert_array_equal(mirrored.numpy(), padded[0, rows, columns])
    padded = np.pad(pixels[0].numpy(), 90, constant_values=IGNORE)
    without = cut_labels(pixels[0], top, left, window, mirrored=False)
    np.testing.assert_array_equal(without.numpy(), padded[rows, columns])


def test_a_cut_within_the_image_copies_nothing():
    image = noise(3, 20, 30)
    assert (
        cut(image, 4, 5, (7, 9)).untyped_storage().data_ptr() == image.untyped_storage().data_ptr()
    )


@pytest.mark.parametrize(
    ("size", "window", "places"),
    [(12, 5, range(8)), (5, 12, range(-7, 1)), (9, 9, [0]), (1, 1, [0]), (6, 5, [0, 1])],
)
def test_every_place_is_as_likely(size, window, places):
    draws = torch.rand(8000, generator=torch.Generator().manual_seed(2)).tolist()
    found, counts = np.unique([corner(size, window, d) for d in draws], return_counts=True)
    assert found.tolist() == list(places)
    expected = 8000 / len(places)
    assert ((counts - expected) ** 2 / expected).sum() < 24.3  # 7 degrees, p = 0.001


@given(size=st.integers(1, 60_000), window=st.integers(1, 60_000))
def test_the_greatest_draw_stays_within(size, window):
    assert abs(corner(size, window, 1 - 2.0**-24)) <= abs(size - window)


@given(window=windows)
def test_flips_are_numpys_and_undo_themselves(window):
    pixels = noise(4, 2, *window)
    down, across = torch.tensor([0, 1, 0, 1]).bool(), torch.tensor([0, 0, 1, 1]).bool()
    once = flipped(pixels, down, across)
    for n, image in enumerate(pixels.numpy()):
        steps = (-1 if down[n] else 1, -1 if across[n] else 1)
        np.testing.assert_array_equal(once[n].numpy(), image[:, :: steps[0], :: steps[1]])
    assert flipped(once, down, across).equal(pixels)
