"""Captioned images: any size in, one width out, words within the sheet."""

import numpy as np
import pytest
from PIL import ImageFont

from hubel.tasks.caption import BORDER, PAPER, SIDE, TEXT, captioned, shortened


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 1, 500), (3, 700, 3), (1, 1, 1), (3, 640, 480)])
def test_any_image_becomes_one_width(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    sheet = captioned(image, ["boot 87%", "is: bag"], right=False)
    assert sheet.mode == "RGB"
    assert sheet.width == SIDE + 2 * BORDER
    assert sheet.height <= SIDE + 80


def test_small_images_grow_in_blocks():
    image = np.array([[[0, 255], [255, 0]]], dtype=np.uint8)
    photo = np.asarray(captioned(image, ["x"], right=True))[BORDER : BORDER + SIDE, BORDER:-BORDER]
    assert set(np.unique(photo)) == {0, 255}
    assert photo[0, 0, 0] == photo[SIDE // 2 - 1, SIDE // 2 - 1, 0] == 0
    assert photo[0, SIDE // 2, 0] == 255


def test_long_words_end_in_dots_and_nothing_leaves_the_sheet():
    font = ImageFont.load_default(TEXT)
    assert shortened("boot", font, 200) == "boot"
    short = shortened("an ankle boot of the very longest kind there is", font, 200)
    assert short.endswith("...")
    assert font.getlength(short) <= 200
    sheet = captioned(np.zeros((1, 9, 9), np.uint8), ["boot " * 40], right=None)
    right_edge = np.asarray(sheet)[SIDE + 2 * BORDER :, -2:]
    assert (right_edge == PAPER).all()
