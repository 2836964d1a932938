"""PASCAL VOC's layout, its lists and its border, and other tools' exports in the same form."""

import numpy as np
import pytest
from PIL import Image

from hubel.data.masks.open import open_masks
from hubel.data.masks.palette import VOC_CLASSES, voc_palette
from hubel.data.masks.voc import find_voc
from hubel.errors import DataError

MASK = np.array([[0, 15, 255], [20, 0, 1]], np.uint8)


@pytest.fixture
def voc(plant, tmp_path, save):
    """voc(ids, {list: ids}) makes a VOC root."""

    def make(ids, lists, masks=None):
        for name in ids:
            save(tmp_path / f"JPEGImages/{name}.jpg", (2, 3))
        for name in ids if masks is None else masks:
            save(tmp_path / f"SegmentationClass/{name}.png", MASK, voc_palette())
        for name, lines in lists.items():
            plant({f"ImageSets/Segmentation/{name}.txt": "\n".join(lines) + "\n"})
        return tmp_path

    return make


def rows(source):
    return [
        (p, i.split("/")[1][:-4]) for p, i in zip(source.parts.tolist(), source.ids, strict=True)
    ]


def test_lists_and_the_border(voc):
    source = open_masks(voc("abc", {"train": "a", "val": "bc", "trainval": "abc"}))
    assert source.classes == VOC_CLASSES
    assert source.colours == voc_palette(21)
    assert rows(source) == [("train", "a"), ("val", "b"), ("val", "c")]
    assert np.array_equal(source[0].target, MASK)
    assert source.notice is None


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"trainval": "abc"}, [("train", "a"), ("train", "b"), ("train", "c")]),
        ({"trainval": "abc", "val": "b"}, [("train", "a"), ("train", "c"), ("val", "b")]),
        ({"default": "ca"}, [("", "a"), ("", "c")]),
        ({}, [("", "a"), ("", "b"), ("", "c")]),
        ({"train": ["a  1", "", "b -1"]}, [("train", "a"), ("train", "b")]),
    ],
)
def test_other_lists(voc, lists, expected):
    assert rows(open_masks(voc("abc", lists))) == expected


def test_test_images_without_masks_are_left_out(voc):
    source = open_masks(voc("abcd", {"train": "a", "val": "b", "test": "cd"}, masks="ab"))
    assert rows(source) == [("train", "a"), ("val", "b")]
    assert source.notice == "2 test images without a mask left out"


def test_colours_of_voc_are_read_as_such(voc, tmp_path):
    root = voc("a", {"train": "a"})
    path = root / "SegmentationClass/a.png"
    Image.open(path).convert("RGB").save(path)
    source = open_masks(root)
    assert source.classes == VOC_CLASSES
    assert np.array_equal(source[0].target, MASK)


def test_a_list_of_its_own(voc, plant):
    root = voc("a", {"default": "a"})
    plant(
        {
            "labelmap.txt": "".join(
                f"k{n}:{r},{g},{b}::\n" for n, (r, g, b) in enumerate(voc_palette(22))
            )
        }
    )
    assert open_masks(root).classes[20:] == ("k20", "k21")


def test_values_that_are_not_vocs(voc, save):
    root = voc("a", {"train": "a"})
    save(root / "SegmentationClass/a.png", np.array([[0, 30, 1], [0, 0, 0]], np.uint8))
    assert open_masks(root).classes == tuple(map(str, range(31)))


def test_found_within(voc, tmp_path):
    assert find_voc(tmp_path) is None
    voc("a", {})
    for kind in ("JPEGImages", "SegmentationClass"):
        folder = tmp_path / "VOCdevkit/VOC2012"
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / kind).rename(folder / kind)
    assert find_voc(tmp_path) == tmp_path / "VOCdevkit/VOC2012"
    assert len(open_masks(tmp_path)) == 1


@pytest.mark.parametrize(
    ("lists", "masks", "message"),
    [
        (
            {"train": "axyzw"},
            None,
            "4 names of the list of train images are not in JPEGImages/: x, y, z and 1 more",
        ),
        (
            {"train": "ab"},
            "a",
            "1 name of the list of train images is not in SegmentationClass/: b",
        ),
        ({"default": "ab"}, "a", "1 name of the list of images is not in SegmentationClass/: b"),
        ({"train": "ab", "val": "b"}, None, r"b stands in train\.txt and in val\.txt"),
        ({"test": "a"}, "", r"no image in JPEGImages/ has a mask in SegmentationClass/"),
    ],
)
def test_mistakes(voc, lists, masks, message):
    root = voc("abc", lists, masks)
    (root / "SegmentationClass").mkdir(exist_ok=True)
    with pytest.raises(DataError, match=message):
        open_masks(root)
