"""Layouts of images and masks, and each mistake by its name."""

import numpy as np
import pytest

from hubel.data.masks.folder import find_pairs
from hubel.errors import DataError

M = np.array([[0, 1]], np.uint8)


def found(root):
    pairs = find_pairs(root)
    return list(zip(pairs.parts, pairs.images, pairs.masks, strict=True))


def files(*names):
    return dict.fromkeys(names, M)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images", "masks"),
        ("image", "label"),
        ("Imgs", "Labels"),
        ("img", "mask"),
        ("photos", "annotations"),
        ("JPEGImages", "SegmentationClass"),
        ("images", "annot"),
        ("images", "gt"),
    ],
)
def test_two_folders(plant, images, masks):
    names = [f"{images}/{n}.jpg" for n in (2, 10)] + [f"{masks}/{n}.png" for n in (2, 10)]
    assert found(plant(files(*names))) == [
        ("", f"{images}/2.jpg", f"{masks}/2.png"),
        ("", f"{images}/10.jpg", f"{masks}/10.png"),
    ]


@pytest.mark.parametrize("ending", ["", "_mask", "_label", "_gt", "_L", "_MASK", "_segmentation"])
def test_endings_of_masks(plant, ending):
    root = plant(files("images/a.jpg", f"masks/a{ending}.png"))
    assert found(root) == [("", "images/a.jpg", f"masks/a{ending}.png")]


def test_an_equal_name_comes_first(plant):
    root = plant(files("images/a.jpg", "images/a_L.jpg", "masks/a.png", "masks/a_L.png"))
    assert [(i, m) for _, i, m in found(root)] == [
        ("images/a.jpg", "masks/a.png"),
        ("images/a_L.jpg", "masks/a_L.png"),
    ]


def test_folders_within(plant):
    root = plant(files("images/x/a.jpg", "images/y/a.jpg", "masks/x/a.png", "masks/y/a_mask.png"))
    assert found(root) == [
        ("", "images/x/a.jpg", "masks/x/a.png"),
        ("", "images/y/a.jpg", "masks/y/a_mask.png"),
    ]


def test_parts_above_and_below(plant, tmp_path):
    above = plant(
        files(
            *(f"{p}/{k}/{p}.png" for p in ("test", "train", "valid") for k in ("images", "masks"))
        ),
        tmp_path / "above",
    )
    assert found(above) == [
        (part, f"{p}/images/{p}.png", f"{p}/masks/{p}.png")
        for part, p in (("train", "train"), ("val", "valid"), ("test", "test"))
    ]
    below = plant(
        files(*(f"{k}/{p}/1.png" for p in ("test", "train", "val") for k in ("images", "masks"))),
        tmp_path / "below",
    )
    assert [part for part, *_ in found(below)] == ["train", "val", "test"]
    assert found(below)[1][1:] == ("images/val/1.png", "masks/val/1.png")


def test_segnet(plant):
    names = [f"{p}{a}/1.png" for p in ("train", "val", "test") for a in ("", "annot")]
    assert found(plant(files(*names)))[2] == ("test", "test/1.png", "testannot/1.png")


def test_side_by_side(plant, tmp_path):
    flat = plant(files("a.jpg", "a_mask.png", "b.jpg", "b_mask.png"), tmp_path / "flat")
    assert found(flat) == [("", "a.jpg", "a_mask.png"), ("", "b.jpg", "b_mask.png")]
    parts = plant(
        files("train/a.jpg", "train/a_mask.png", "valid/b.jpg", "valid/b_mask.png"),
        tmp_path / "parts",
    )
    assert found(parts)[1] == ("val", "valid/b.jpg", "valid/b_mask.png")


def test_masks_without_image_and_hidden_files(plant):
    root = plant(
        files("images/a.jpg", "masks/a.png", "masks/b.png", "masks/.c.png", "images/.d.png")
    )
    plant({"masks/notes.txt": "x"})
    assert len(found(root)) == 1
    assert find_pairs(root).notes == ["1 mask without an image was left out"]


@pytest.mark.parametrize(
    "names", [[], ["a.jpg"], ["cat/a.jpg", "dog/b.jpg"], ["images/a.jpg"], ["a_l.jpg", "b.jpg"]]
)
def test_no_layout(plant, names):
    assert find_pairs(plant(files(*names))) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["images/1.jpg", "images/2.jpg", "masks/2.png"],
            r"1 image has no mask: images/1\.jpg; a mask has its image's name \(or that with _mask",
        ),
        (
            [*(f"images/{n}.jpg" for n in range(9)), "masks/2.png"],
            "8 images have no mask: images/0.jpg, images/1.jpg, images/3.jpg and 5 more",
        ),
        (["images/a.jpg", "masks/a.png", "masks/a.bmp"], "has two masks, masks/a.* and masks/a"),
        (["images/a.jpg", "masks/a_mask.png", "masks/a_gt.png"], r"images/a\.jpg has two masks"),
        (
            ["images/a.jpg", "images/a.png", "masks/a.png"],
            r"images/a\.(jpg|png) and images/a\.(jpg|png) differ in their extension alone",
        ),
        (
            ["images/a.jpg", "photos/b.jpg", "masks/a.png"],
            "images/, photos/ could all be meant; keep one of them",
        ),
        (
            ["images/train/a.jpg", "images/test/a.jpg", "masks/train/a.png"],
            "masks has no folder for 'test', which .*images has",
        ),
        (
            ["val/images/a.jpg", "valid/images/a.jpg", "val/masks/a.png"],
            "val/ and valid/ both mean 'val'",
        ),
    ],
)
def test_mistakes(plant, names, message):
    with pytest.raises(DataError, match=message):
        find_pairs(plant(files(*names)))


def test_empty_folders_of_others_are_passed_over(plant):
    root = plant(files("images/a.jpg", "masks/a.png"))
    (root / "photos").mkdir()
    (root / "labels").mkdir()
    (root / "labels/a.txt").write_text("0 0 0 1 1")
    assert found(root) == [("", "images/a.jpg", "masks/a.png")]
