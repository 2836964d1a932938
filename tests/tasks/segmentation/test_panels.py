"""Panels side by side, whatever the size."""

import numpy as np
import pytest

from hubel.data.masks.record import IGNORE
from hubel.tasks.segmentation.panels import CAPTION, GAP, SIDE, panels

CLASSES, COLOURS = ("left", "right"), ((200, 0, 0), (0, 100, 50))


def scene(height, width, channels=3):
    image = np.full((channels, height, width), 120, np.uint8)
    truth = np.zeros((height, width), np.uint8)
    truth[:, width // 2 :] = 1
    chances = np.stack([truth == 0, truth == 1]).astype(np.float32)
    return image, truth, chances


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (28, 20, 1), (3, 500, 3), (700, 3, 3), (900, 1300, 1)]
)
def test_any_image_becomes_panels(shape):
    image, truth, chances = scene(*shape)
    sheet = panels(image, truth, chances, CLASSES, COLOURS)
    assert sheet.mode == "RGB"
    assert sheet.width <= 4 * SIDE + 5 * GAP
    assert sheet.height <= SIDE + CAPTION + 100


def middle(sheet, number, across):
    """A panel's pixel at half its height, `across` of its width from the left."""
    x = GAP + number * (SIDE + GAP) + round(across * SIDE)
    return sheet.getpixel((x, CAPTION + SIDE // 4))


def test_what_stands_where():
    image, truth, chances = scene(60, 120)
    chances[:, :, 90:] = 0.5  # no idea, called class 0
    sheet = panels(image, truth, chances, CLASSES, COLOURS)
    assert middle(sheet, 0, 0.25) == (120, 120, 120)
    left, right = (160, 60, 60), (60, 110, 85)
    assert [middle(sheet, 1, at) for at in (0.25, 0.6, 0.9)] == [left, right, right]
    assert [middle(sheet, 2, at) for at in (0.25, 0.6, 0.9)] == [left, right, left]
    sure, unsure = middle(sheet, 3, 0.25), middle(sheet, 3, 0.9)
    assert sum(sure) < 10
    assert sum(unsure) > 600


def test_without_truth_there_are_three():
    image, truth, chances = scene(60, 120)
    blind, told = (panels(image, t, chances, CLASSES, COLOURS) for t in (None, truth))
    assert told.width - blind.width == SIDE + GAP
    assert blind.getpixel((GAP + SIDE + GAP + 9, CAPTION + 9)) == (160, 60, 60)


def test_nothing_labelled_and_other_sizes():
    """The truth of the whole image beside maps of another size: each is scaled by itself."""
    image, truth, chances = scene(60, 120)
    panels(image, np.full_like(truth, IGNORE), chances, CLASSES, COLOURS)
    sheet = panels(image, truth, chances[:, ::4, ::4], CLASSES, COLOURS)
    assert middle(sheet, 2, 0.25) == (160, 60, 60)
