"""Annotations painted: what lies over what, and each damage by its name."""

import pickle

import numpy as np
import pytest

from hubel.data.masks.regions import Regions
from hubel.data.masks.rle import encode, to_text
from hubel.errors import DataError

H, W = 6, 8


def box(x, y, width, height):
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def painted(*annotations, size=(H, W)):
    regions = Regions()
    for number, (label, segmentation) in enumerate(annotations):
        regions.add(0, label, number + 100, segmentation)
    return regions.close(1).paint(0, *size)


def of(label, *boxes):
    mask = np.zeros((H, W), np.uint8)
    for x, y, width, height in boxes:
        mask[y : y + height, x : x + width] = label
    return mask


def test_nothing_is_background():
    assert np.array_equal(painted(), np.zeros((H, W)))


def test_every_form_gives_the_same():
    region = of(1, (2, 1, 3, 4)) == 1
    runs = encode(region)
    for segmentation in (
        [box(2, 1, 3, 4)],
        box(2, 1, 3, 4),
        [box(2, 1, 3, 2), [], box(2, 3, 3, 2)],
        {"size": [H, W], "counts": runs},
        {"size": [H, W], "counts": to_text(runs)},
    ):
        assert np.array_equal(painted((7, segmentation)), region * 7)


@pytest.mark.parametrize("swap", [False, True])
def test_the_smaller_is_seen(swap):
    two = [(1, [box(0, 0, 8, 6)]), (2, [box(2, 2, 2, 2)])]
    expected = np.maximum(of(1, (0, 0, 8, 6)), of(2, (2, 2, 2, 2)))
    assert np.array_equal(painted(*(two[::-1] if swap else two)), expected)


def test_equal_ones_are_painted_in_file_order():
    same = [box(1, 1, 2, 2)]
    assert painted((1, same), (2, same))[1, 1] == 2


def test_a_crowd_is_ignored_where_no_object_is():
    """Even an object that is larger than the crowd."""
    mask = painted((3, [box(0, 0, 4, 4)]), (255, [box(2, 0, 3, 4)]))
    assert mask[0].tolist() == [3, 3, 3, 3, 255, 0, 0, 0]


def test_images_keep_to_their_own():
    regions = Regions()
    for row in (2, 0, 2):
        regions.add(row, row + 1, 5, [box(row, 0, 1, 1)])
    regions = pickle.loads(pickle.dumps(regions.close(4)))
    assert regions.paint(0, H, W)[0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert not regions.paint(1, H, W).any()
    assert regions.paint(2, H, W)[0].tolist() == [0, 0, 3, 0, 0, 0, 0, 0]
    assert not regions.paint(3, H, W).any()
    assert len({regions.data(row) for row in range(3)}) == 3
    assert regions.data(1) == regions.data(3)


def test_empty_ones_say_so():
    regions = Regions()
    assert not regions.add(0, 1, 1, [])
    assert not regions.add(0, 1, 1, [[], []])
    assert regions.add(0, 1, 1, [box(0, 0, 1, 1)])


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (
            [[1, 2, 3, 4, 5, 6, 7]],
            "polygon has 7 numbers; allowed: x, y of at least 3 points, an even",
        ),
        ([[1, 2, 3, 4]], "polygon has 4 numbers"),
        ([[1, 2, 3, 4, 5, "x"]], "polygon holds something that is no number"),
        ([{"x": 1}], r"a polygon is a list of numbers, given \"{'x': 1}\""),
        (
            "abc",
            "segmentation must be a list of polygons or a record with counts and size, given 'abc'",
        ),
        ({"size": [H, W]}, r"run-length code has no counts \(a list of numbers or a text\)"),
        ({"size": [H, W], "counts": [1, 2.5]}, "counts of its run-length code are not all whole"),
        (
            {"size": [W, H], "counts": [48]},
            r"code is for 8 x 6 pixels, its image is listed with 6 x 8",
        ),
    ],
)
def test_forms_that_are_none(segmentation, message):
    regions = Regions()
    with pytest.raises(DataError, match=message):
        regions.add(0, 1, 100, segmentation, (H, W))
    assert not regions.close(1).paint(0, H, W).any()


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (
            {"size": [H, W], "counts": [10, 5]},
            "annotation 100: its runs are 15 pixels in sum; 6 x 8",
        ),
        ({"size": [H, W], "counts": [-1, 49]}, "annotation 100: run 0 is -1"),
        ({"size": [H, W], "counts": "1 2"}, "annotation 100: character 1 of its text is ' '"),
        (
            [[0, 0, 1, 0, float("inf"), 3]],
            "annotation 100: its polygon has a coordinate that is no",
        ),
    ],
)
def test_damage_that_shows_when_painted(segmentation, message):
    with pytest.raises(DataError, match=message):
        painted((1, segmentation))
