"""Masks given as arrays: layouts, types, and each mistake by its name."""

import numpy as np
import pytest

from hubel.data.masks.arrays import from_arrays
from hubel.data.masks.classes import ClassList, Entry
from hubel.errors import DataError

MASKS = np.array([[[0, 1, 2], [255, 1, 0]], [[0, 0, 0], [2, 2, 1]]], np.uint8)
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 2, 3, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "masks",
    [
        MASKS,
        MASKS[:, None],
        MASKS[..., None],
        MASKS.astype(np.int64),
        MASKS.astype(np.float32),
        MASKS.tolist(),
        np.repeat(MASKS[..., None], 3, axis=3),
    ],
)
def test_every_layout(masks):
    source = from_arrays(IMAGES, masks)
    assert source.classes == ("0", "1", "2")
    assert source.masks.dtype == np.uint8
    assert np.array_equal(source.masks, MASKS)
    assert np.array_equal(source[1].image, IMAGES[1].transpose(2, 0, 1))


def test_yes_and_no():
    source = from_arrays(IMAGES / 255, MASKS == 1)
    assert source.classes == ("0", "1")
    assert np.array_equal(source.masks, MASKS == 1)
    assert source[0].image.max() > 200


def test_colours_and_a_list():
    colours = np.array([(9, 9, 9), (1, 2, 3), (5, 5, 0)], np.uint8)
    classes = ClassList(
        tuple(Entry(n, v, tuple(colours[v].tolist())) for v, n in enumerate("abc")), "list"
    )
    source = from_arrays(IMAGES, colours[MASKS % 3], classes=classes)
    assert source.classes == ("a", "b", "c")
    assert np.array_equal(source.masks, MASKS % 3)
    assert from_arrays(IMAGES, MASKS, ignore=2).masks[1].tolist() == [[0, 0, 0], [255, 255, 1]]


NAN = np.where(MASKS == 2, np.nan, MASKS)


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (IMAGES, MASKS[:1], r"masks: 1 x 2 x 3, but images: 2 x 2 x 3 \(number, height, width\)"),
        (IMAGES, MASKS[:, :, :2], "masks: 2 x 2 x 2, but images: 2 x 2 x 3"),
        (IMAGES, MASKS[0], r"given uint8 \(2, 3\)"),
        (IMAGES, MASKS.astype(str), "masks: pixels must be numbers, given <U"),
        (IMAGES, MASKS * 0.5, r"masks\[0\] has 0\.5 at row 0, column 1: no whole number"),
        (IMAGES, NAN, r"masks\[0\] has nan at row 0, column 2: no whole number"),
        (IMAGES, MASKS.astype(int) - 1, r"masks\[0\]: value -1 at row 0, column 0 is no class"),
        (IMAGES, MASKS * 0, "at least two classes are needed, given only '0'"),
        (IMAGES, MASKS.astype(int) * 1000, "mask values run up to 255000"),
        (IMAGES[:, :, :, :2], MASKS, r"images: images must be \(N, H, W\)"),
        (IMAGES * 100.0, MASKS, "images: pixels run from"),
        (3, MASKS, "images: images must be"),
        (IMAGES, np.zeros((2, 0, 3)), r"masks must be .* given float64 \(2, 0, 3\)"),
    ],
)
def test_mistakes(images, masks, message):
    with pytest.raises(DataError, match=message):
        from_arrays(images, masks)


def test_a_value_outside_of_the_list():
    classes = ClassList((Entry("a", 0), Entry("b", 1)), "list")
    with pytest.raises(
        DataError, match=r"masks\[0\]: value 2 at row 0, column 2 .*0\.\.1.*\(list\)"
    ):
        from_arrays(IMAGES, MASKS, classes=classes)
