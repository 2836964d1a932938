"""Pictures as data URIs: decoded again by Pillow."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from hubel.runs.report.pictures import Picture, areas, doubt, heat, photo, signed, tinted, wrong


def pixels(picture: Picture, form: str = "png") -> np.ndarray:
    head, _, body = picture.uri.partition(",")
    assert head == f"data:image/{form};base64"
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


def test_only_photos_above_the_usual_size_are_jpegs() -> None:
    image = np.zeros((3, 200, 300), np.uint8)
    image[1] = 120
    shown = pixels(photo(image, 320), "jpeg")
    assert shown.shape == (200, 300, 3)
    assert np.abs(shown.astype(int) - (0, 120, 0)).max() <= 3


def test_areas_have_their_classes_colours_and_hatched_gaps() -> None:
    labels = np.full((12, 20), 255, np.uint8)
    labels[:, :5], labels[:, 5:10] = 0, 1
    shown = pixels(areas(labels, [(1, 2, 3), (250, 60, 7)]))
    assert (shown[:, :5] == (1, 2, 3, 255)).all()
    assert (shown[:, 5:10] == (250, 60, 7, 255)).all()
    gap = shown[:, 10:]
    assert set(np.unique(gap[..., 3])) == {0, 255}  # lines, and nothing between them
    assert (gap[gap[..., 3] == 255][:, :3] == 128).all()


def test_255_classes_have_255_colours() -> None:
    colours = [(k, 255 - k, k // 2) for k in range(255)]
    labels = np.arange(255, dtype=np.uint8).reshape(15, 17)
    shown = pixels(areas(labels, colours))
    assert np.array_equal(shown[..., :3].reshape(-1, 3), colours)
    assert (shown[..., 3] == 255).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_wrong_pixels_are_red_on_a_faint_grey_photo(channels: int) -> None:
    photo_ = np.full((channels, 40, 60), 100, np.uint8)
    truth = np.zeros((40, 60), np.uint8)
    said = truth.copy()
    said[10:20, 10:30] = 1
    truth[30:, :] = 255
    shown = pixels(wrong(photo_, truth, said), "jpeg").astype(int)
    red, green, blue = shown[12:18, 12:28].reshape(-1, 3).mean(axis=0)
    assert red > 150
    assert max(green, blue) < 80
    right = shown[2:8, 2:58]
    assert np.ptp(right, axis=2).max() < 12  # grey
    assert 150 < right.mean() < 190  # 100, 45 % of the way to white


def test_doubt_runs_from_dark_to_bright() -> None:
    shown = Image.open(
        io.BytesIO(
            base64.b64decode(
                doubt(np.arange(256, dtype=np.uint8).reshape(4, 64)).uri.partition(",")[2]
            )
        )
    ).convert("L")
    light = np.asarray(shown, dtype=int).reshape(-1)
    assert light[0] < 5
    assert light[-1] > 200
    assert (np.diff(light) >= 0).all()
