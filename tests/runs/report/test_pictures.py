"""Pictures as data URIs: decoded again by Pillow."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from hubel.runs.report.pictures import Picture, heat, photo, signed, tinted


def pixels(picture: Picture) -> np.ndarray:
    head, _, body = picture.uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_photo_keeps_every_pixel(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (channels, 5, 7), dtype=np.uint8)
    picture = photo(image)
    shown = pixels(picture)
    assert picture.crisp
    assert (picture.width, picture.height) == (7, 5)
    assert np.array_equal(
        shown if channels == 1 else shown.transpose(2, 0, 1), image[0] if channels == 1 else image
    )


def test_a_large_photo_is_scaled_down() -> None:
    image = np.zeros((3, 224, 448), np.uint8)
    image[0] = 200
    picture = photo(image)
    assert (picture.width, picture.height, picture.crisp) == (160, 80, False)
    shown = Image.open(io.BytesIO(base64.b64decode(picture.uri.partition(",")[2]))).convert("RGB")
    assert shown.getpixel((80, 40)) == (200, 0, 0)


def test_a_thin_photo_keeps_one_pixel() -> None:
    picture = photo(np.zeros((1, 1, 5000), np.uint8))
    assert (picture.width, picture.height) == (160, 1)


def test_heat_runs_from_black_to_white() -> None:
    assert pixels(heat(np.array([[-1.0, 0, 1, 2, 3, np.nan]]), 2.0)).tolist() == [
        [0, 0, 128, 255, 255, 0]
    ]


def test_a_silent_map_is_black() -> None:
    assert pixels(heat(np.zeros((2, 2)), 0.0)).max() == 0


def test_zero_weights_are_mid_grey() -> None:
    assert pixels(signed(np.array([[[-2.0, 0, 2]]]), 2.0)).tolist() == [[0, 128, 255]]


def test_weights_of_three_channels_have_colour() -> None:
    weights = np.array([1.0, -1, 0]).reshape(3, 1, 1)
    assert pixels(signed(weights, 1.0)).tolist() == [[[255, 0, 128]]]


def test_other_channels_are_averaged() -> None:
    assert pixels(signed(np.array([1.0, 0, 0, -1]).reshape(4, 1, 1), 1.0)).tolist() == [[128]]


def test_empty_cells_are_clear() -> None:
    colours = np.full((1, 2, 3), 90, np.uint8)
    assert pixels(tinted(np.array([[0.0, 1.0]]), colours)).tolist() == [
        [[90, 90, 90, 0], [90, 90, 90, 255]]
    ]
