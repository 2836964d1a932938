"""Preprocess: shapes, the three fits by hand, and normalisation against plain arithmetic."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hubel.data.preprocess import Preprocess
from hubel.errors import OptionError

RNG = np.random.default_rng(2)
HALF3 = (0.5, 0.5, 0.5)


def made(channels, height, width, fit="stretch"):
    return Preprocess(channels, height, width, fit, (0.2,) * channels, (0.5,) * channels)


def test_an_image_that_fits_passes_untouched():
    image = RNG.integers(0, 256, (3, 7, 11), dtype=np.uint8)
    assert made(3, 7, 11).image(image) is image


@settings(max_examples=60, deadline=None)
@given(
    given_shape=st.tuples(st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40)),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    fit=st.sampled_from(["stretch", "crop", "pad"]),
    value=st.integers(0, 255),
)
def test_every_shape_comes_out_right(given_shape, channels, height, width, fit, value):
    got = made(channels, height, width, fit).image(np.full(given_shape, value, np.uint8))
    assert got.shape == (channels, height, width)
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    allowed = {value, 51} if fit == "pad" else {value}  # 51 = 0.2 * 255 fills what is left
    assert set(np.unique(got).tolist()) <= allowed


def test_grey_becomes_rgb_by_repetition_and_rgb_grey_by_luma():
    grey = RNG.integers(0, 256, (1, 5, 6), dtype=np.uint8)
    np.testing.assert_array_equal(made(3, 5, 6).image(grey), np.repeat(grey, 3, 0))
    colour = RNG.integers(0, 256, (3, 5, 6), dtype=np.uint8)
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    np.testing.assert_allclose(made(1, 5, 6).image(colour)[0], luma, atol=1)


def test_stretch_is_pillows_antialiased_bilinear():
    image = RNG.integers(0, 256, (3, 31, 47), dtype=np.uint8)
    expected = Image.fromarray(image.transpose(1, 2, 0)).resize((13, 11), Image.Resampling.BILINEAR)
    got = made(3, 11, 13).image(image)
    np.testing.assert_array_equal(got.transpose(1, 2, 0), np.asarray(expected))


def test_crop_keeps_the_centre():
    # 4 x 8, columns 0..7: the middle four columns are kept and nothing is scaled.
    image = np.tile(np.arange(8, dtype=np.uint8) * 30, (1, 4, 1))
    np.testing.assert_array_equal(made(1, 4, 4, "crop").image(image), image[:, :, 2:6])
    tall = image.transpose(0, 2, 1)
    np.testing.assert_array_equal(made(1, 4, 4, "crop").image(tall), tall[:, 2:6])


def test_crop_scales_the_short_side():
    # 8 x 24 to 4 x 4: columns 8..15 are kept and halved, two by two where they are flat.
    image = np.repeat(np.arange(12, dtype=np.uint8) * 20, 2)[None, None].repeat(8, axis=1)
    got = made(1, 4, 4, "crop").image(image)
    assert got.shape == (1, 4, 4)
    np.testing.assert_allclose(got[0, 0], [80, 100, 120, 140], atol=4)


@pytest.mark.parametrize("side", range(1, 80))
def test_crop_survives_rounding(side):
    """In floating point the box may begin below 0 or end beyond the side: Pillow refuses that."""
    image = np.full((1, side, side), 9, np.uint8)
    for length in (3, 11, 17, 49, 53):
        assert (made(1, 3, length, "crop").image(image) == 9).all()
        assert (made(1, length, 7, "crop").image(image) == 9).all()


def test_crop_of_a_long_strip_needs_no_more_memory_than_the_strip():
    strip = np.full((1, 1, 2_000_000), 7, np.uint8)  # scaled as a whole it would be 100 GB
    assert (made(1, 224, 224, "crop").image(strip) == 7).all()


def test_pad_fills_with_the_mean_on_both_sides():
    image = np.full((1, 4, 8), 200, np.uint8)
    got = made(1, 8, 8, "pad").image(image)[0]
    assert (got[2:6] == 200).all()
    assert (got[:2] == 51).all()
    assert (got[6:] == 51).all()
    colour = Preprocess(3, 8, 8, "pad", (0.0, 0.4, 1.0), HALF3).image(image)
    assert colour[:, 0, 0].tolist() == [0, 102, 255]


def test_normalise_and_back():
    preprocess = Preprocess(3, 2, 2, "stretch", (0.1, 0.2, 0.3), (0.5, 0.25, 2.0))
    images = torch.arange(256, dtype=torch.uint8).repeat(3, 1).reshape(1, 3, 16, 16)
    got = preprocess.normalise(images)
    mean = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    std = torch.tensor([0.5, 0.25, 2.0]).view(3, 1, 1)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, (images / 255 - mean) / std, rtol=1e-5, atol=1e-5)
    assert torch.equal(preprocess.denormalise(got), images)  # all 256 values, exactly


def test_denormalise_clips():
    preprocess = Preprocess(1, 1, 1, "stretch", (0.5,), (0.5,))
    values = torch.tensor([[[[-3.0, 3.0, 0.0]]]])
    assert preprocess.denormalise(values).flatten().tolist() == [0, 255, 128]


def test_json_round_trip():
    preprocess = Preprocess(3, 5, 7, "pad", (0.1, 0.2, 0.3), HALF3)
    again = Preprocess.from_json(json.loads(json.dumps(preprocess.to_json())))
    assert again == preprocess
    assert hash(again) == hash(preprocess)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 5, 7, "strech", HALF3, HALF3), "unknown fit 'strech': did you mean 'stretch'"),
        ((2, 5, 7, "pad", (0.5, 0.5), (0.5, 0.5)), "channels must be 1 or 3, given 2"),
        ((3, 5, 7, "pad", (0.5,), HALF3), "mean and std need 3 numbers each"),
        ((1, 0, 7, "pad", (0.5,), (0.5,)), "sides must be 1 or more, given 0 x 7"),
        ((1, 5, 7, "pad", (0.5,), (0.0,)), r"std must be above 0, given \(0\.0,\)"),
        ((1, 5, 7, "pad", (0.5,), (float("nan"),)), "std must be above 0"),
    ],
)
def test_bad_words_and_numbers(arguments, message):
    with pytest.raises(OptionError, match=message):
        Preprocess(*arguments)
