"""Preprocess: shapes, the three fits by hand, and normalisation against plain arithmetic."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from hubel.data.masks.record import IGNORE
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


# What published weights were judged with


def photos():
    """Two real photos, 427 x 640, that come with scikit-learn."""
    return [image.transpose(2, 0, 1) for image in load_sample_images().images]


def resized_then_cut(image, short, side, how):
    """The short side to `short` pixels, then the centre of `side`, as torchvision does it."""
    picture = Image.fromarray(image.transpose(1, 2, 0))
    width, height = picture.size
    scale = short / min(width, height)
    picture = picture.resize((round(width * scale), round(height * scale)), how)
    left, top = round((picture.width - side) / 2), round((picture.height - side) / 2)
    return np.asarray(picture.crop((left, top, left + side, top + side))).transpose(2, 0, 1)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("filter", "how"),
    [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)],
)
@pytest.mark.parametrize("short", [256, 232, 224])
def test_kept_is_resize_and_centre_crop_of_real_photos(filter, how, short, turned):
    """To rounding where sides and corners come out whole: short sides of 384, 348 and 336
    are brought to two thirds, the long one from 480 to 320. Of whole photos, where they are
    rounded, half a pixel lies between the two: half of what a shift by one would do."""
    made = Preprocess(3, 224, 224, "crop", HALF3, HALF3, kept=224 / short, filter=filter)
    for photo in photos():
        for part in (photo[:, : short * 3 // 2, :480], photo):
            image = np.ascontiguousarray(part.transpose(0, 2, 1) if turned else part)
            expected = resized_then_cut(image, short, 224, how).astype(float)
            distance = np.abs(made.image(image) - expected)
            shift = np.abs(np.roll(expected, 1, axis=1 if turned else 2) - expected)
            if part is photo:
                assert distance.mean() < 0.6 * shift.mean()
            else:  # in levels of 255; what bicubic overshoots is cut off twice
                assert distance.max() <= 4
                assert distance.mean() < 0.2


def test_kept_of_a_square_is_exact():
    """256 x 256 to 224 of 256: the corners are whole, nothing is scaled."""
    image = photos()[0][:, 100:356, 200:456]
    found = Preprocess(3, 224, 224, "crop", HALF3, HALF3, kept=0.875).image(image)
    np.testing.assert_array_equal(found, image[:, 16:240, 16:240])


def test_kept_by_hand():
    """A 16 x 8 image, half of the short side kept, to 4 x 4: the middle four rows and columns."""
    image = np.arange(128, dtype=np.uint8).reshape(1, 16, 8)
    found = Preprocess(1, 4, 4, "crop", (0.5,), (0.5,), kept=0.5).image(image)
    np.testing.assert_array_equal(found, image[:, 6:10, 2:6])


def test_an_image_that_fits_is_still_cut_where_less_is_kept():
    image = np.zeros((1, 8, 8), np.uint8)
    image[0, 2:6, 2:6] = 200
    found = Preprocess(1, 8, 8, "crop", (0.5,), (0.5,), kept=0.5).image(image)
    assert found[0, 1:7, 1:7].min() > 150


def test_bicubic_is_pillows():
    image = photos()[1]
    expected = Image.fromarray(image.transpose(1, 2, 0)).resize((13, 11), Image.Resampling.BICUBIC)
    for fit in ("stretch", "pad"):
        size = (11, 13) if fit == "stretch" else (9, 13)
        made = Preprocess(3, *size, fit, HALF3, HALF3, filter="bicubic")
        found = made.image(image).transpose(1, 2, 0)
        if fit == "stretch":
            np.testing.assert_array_equal(found, np.asarray(expected))
        else:  # 427 x 640 to 9 x 13 (8.7 rounded) leaves no border
            exact = Image.fromarray(image.transpose(1, 2, 0)).resize((13, 9), 3)
            np.testing.assert_array_equal(found, np.asarray(exact))


def test_more_pixels_are_decoded_where_less_is_kept():
    assert made(3, 224, 224, "crop").enough == 896
    assert Preprocess(3, 224, 224, "crop", HALF3, HALF3, kept=0.875).enough == 1024


def test_records_of_older_runs_still_load():
    """They say nothing of what is kept, nor of the filter: all of it, bilinear."""
    record = {
        "channels": 1, "height": 28, "width": 28, "fit": "stretch", "mean": [0.2], "std": [0.3],
    }  # fmt: skip
    assert Preprocess.from_json(record) == Preprocess(1, 28, 28, "stretch", (0.2,), (0.3,))
    assert Preprocess.from_json(record).kept == 1
    assert Preprocess.from_json(record).filter == "bilinear"


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
    preprocess = Preprocess(3, 5, 7, "crop", (0.1, 0.2, 0.3), HALF3, 0.875, "bicubic")
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
        ((1, 5, 7, "crop", (0.5,), (0.5,), 0.0), "kept must be above 0, at most 1.*: 0.0"),
        ((1, 5, 7, "crop", (0.5,), (0.5,), 1.1), "kept must be above 0, at most 1.*: 1.1"),
        ((1, 5, 7, "crop", (0.5,), (0.5,), float("nan")), "kept must be above 0, at most 1.*: nan"),
        ((1, 5, 7, "pad", (0.5,), (0.5,), 0.9), "kept must be .* 1 but for crop: 0.9"),
        (
            (1, 5, 7, "crop", (0.5,), (0.5,), 1.0, "cubic"),
            "unknown filter 'cubic': did you mean 'b",
        ),
    ],
)
def test_bad_words_and_numbers(arguments, message):
    with pytest.raises(OptionError, match=message):
        Preprocess(*arguments)


# Masks ---------------------------------------------------------------------------------------


FITS = ["stretch", "pad", "same"]


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    fit=st.sampled_from(FITS),
    label=st.integers(0, 254),
)
def test_mask_and_image_come_to_the_same_place(size, height, width, fit, label):
    """A white image, a mask of one label: labels lie where white does, IGNORE where padding."""
    preprocess = made(1, height, width, fit)
    image = preprocess.image(np.full((1, *size), 255, np.uint8))[0]
    mask = preprocess.mask(np.full(size, label, np.uint8))
    assert mask.shape == image.shape == preprocess.target(*size)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, np.where(image == 255, label, IGNORE))


@pytest.mark.parametrize("size", [(31, 47), (8, 5), (11, 13)])
def test_stretched_mask_takes_the_pixel_its_centres_fall_in(size):
    mask = RNG.integers(0, 21, size, dtype=np.uint8)
    got = made(1, 11, 13).mask(mask)
    for row in range(11):
        for column in range(13):
            there = int((row + 0.5) * size[0] / 11), int((column + 0.5) * size[1] / 13)
            assert got[row, column] == mask[there]


def test_padded_mask_by_hand():
    """2 x 4 to 4 x 4 stands in the middle rows; to 8 x 8 each pixel is 2 x 2."""
    mask = np.arange(8, dtype=np.uint8).reshape(2, 4)
    small, large = made(1, 4, 4, "pad").mask(mask), made(1, 8, 8, "pad").mask(mask)
    assert small.tolist() == [[IGNORE] * 4, [0, 1, 2, 3], [4, 5, 6, 7], [IGNORE] * 4]
    np.testing.assert_array_equal(large[2:6], mask.repeat(2, 0).repeat(2, 1))
    assert (large[[0, 1, 6, 7]] == IGNORE).all()


@pytest.mark.parametrize("fit", FITS)
def test_edges_of_image_and_mask_meet(fit):
    """A disc, drawn in both: where the image is certain, the mask agrees."""
    y, x = np.mgrid[:90, :120]
    disc = ((y - 40) ** 2 + (x - 70) ** 2 < 900).astype(np.uint8)
    preprocess = made(1, 61, 70, fit)
    image, mask = preprocess.image(disc[None] * 255)[0], preprocess.mask(disc)
    inside = mask != IGNORE
    assert (mask[(image == 255) & inside] == 1).all()
    assert (mask[(image == 0) & inside] == 0).all()
    assert (image[inside] > 127).mean() == pytest.approx((mask[inside] == 1).mean(), abs=2e-3)


def test_same_changes_channels_alone():
    colour = RNG.integers(0, 256, (3, 9, 14), dtype=np.uint8)
    assert made(3, 4, 4, "same").image(colour) is colour
    grey = made(1, 4, 4, "same").image(colour)
    np.testing.assert_array_equal(grey, made(1, 9, 14).image(colour))
    mask = colour[0]
    assert made(1, 4, 4, "same").mask(mask) is mask
    assert made(1, 4, 4, "same").enough > 100_000


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(31, 47), (8, 5), (60, 52), (11, 13)])
def test_restore_brings_maps_back_over_their_image(fit, size):
    """Rows and columns as maps: bilinear interpolation keeps a slope away from the borders."""
    preprocess = made(1, 22, 26, fit)
    height, width = preprocess.target(*size)
    scale = (
        (height / size[0], width / size[1])
        if fit != "pad"
        else (min(22 / size[0], 26 / size[1]),) * 2
    )
    inner = [max(1, round(side * s)) for side, s in zip(size, scale, strict=True)]
    top, left = ((height - inner[0]) // 2, (width - inner[1]) // 2)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    # In units of the image's pixels, half a pixel in from the border.
    maps = torch.stack(
        [
            (rows - top + 0.5) * size[0] / inner[0] - 0.5,
            (columns - left + 0.5) * size[1] / inner[1] - 0.5,
        ]
    )[None].double()
    found = preprocess.restore(maps, size)
    assert found.shape == (1, 2, *size)
    wide = [int(np.ceil(side / i)) for side, i in zip(size, inner, strict=True)]
    body = (slice(wide[0], size[0] - wide[0]), slice(wide[1], size[1] - wide[1]))
    expected = np.mgrid[: size[0], : size[1]]
    np.testing.assert_allclose(
        found[0].numpy()[:, *body], expected[:, *body], atol=1e-6, err_msg=str(inner)
    )


def test_restore_of_same_is_nothing():
    maps = torch.randn(2, 3, 7, 9)
    assert made(1, 4, 4, "same").restore(maps, (7, 9)) is maps


def test_crop_takes_no_masks():
    preprocess = made(1, 4, 4, "crop")
    message = "fit 'crop' cuts borders off.* allowed for masks: same, stretch, pad"
    with pytest.raises(OptionError, match=message):
        preprocess.mask(np.zeros((4, 4), np.uint8))
    with pytest.raises(OptionError, match=message):
        preprocess.restore(torch.zeros(1, 2, 4, 4), (4, 4))


def test_same_goes_through_json():
    preprocess = made(1, 64, 48, "same")
    assert Preprocess.from_json(json.loads(json.dumps(preprocess.to_json()))) == preprocess
    assert set(preprocess.to_json()) == {
        "channels", "height", "width", "fit", "mean", "std", "kept", "filter",
    }  # fmt: skip
