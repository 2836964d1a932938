"""The one door: what it takes, what it refuses, and the real sets."""

import time

import numpy as np
import pytest

from hubel.data.masks.open import open_masks
from hubel.data.masks.record import MaskArrays
from hubel.errors import DataError

M = np.array([[0, 1]], np.uint8)


def test_sources_and_arrays():
    source = open_masks((np.zeros((3, 4, 5)), np.arange(60).reshape(3, 4, 5) % 2))
    assert isinstance(source, MaskArrays)
    assert source.where is None
    assert open_masks(source) is source


def test_a_lone_json_beside_mask_files_is_passed_over(plant):
    root = plant({"images/a.png": (1, 2), "masks/a.png": M, "notes.json": "{}"})
    assert open_masks(str(root)).classes == ("0", "1")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nowhere", r"no such path: 'nowhere'; expected a folder of images and masks \(images/ \+"),
        ("", "no such path: ''"),
        ("x" * 5000, "cannot be looked at|no such path"),
        ((1, 2, 3), r"expected two arrays \(images, masks\), given 3"),
    ],
)
def test_what_is_nothing(where, message):
    with pytest.raises(DataError, match=message):
        open_masks(where)


def test_files_and_folders_that_are_nothing(plant, tmp_path):
    plant({"a.png": (2, 2), "cat/b.png": (2, 2), "dog/c.png": (2, 2)})
    for where in (tmp_path / "a.png", tmp_path):
        with pytest.raises(
            DataError, match="holds no masks that can be read; expected a folder of"
        ):
            open_masks(where)


def test_a_list_is_not_for_coco(plant, tmp_path):
    plant({"x.json": "{}", "classes.txt": "a\nb"})
    for options in ({"classes": tmp_path / "classes.txt"}, {"ignore": 3}):
        with pytest.raises(DataError, match="names its own categories and says by iscrowd"):
            open_masks(tmp_path / "x.json", **options)


def test_camvid(real):
    start = time.process_time()
    source = open_masks(real("camvid"), ignore=11)
    assert time.process_time() - start < 5  # under one second where nothing else runs
    assert source.classes == tuple(map(str, range(11)))
    assert [len(source.rows(part)) for part in ("train", "val", "test")] == [367, 101, 233]
    sample = source[0]
    assert sample.image.shape == (3, 360, 480)
    assert sample.target.shape == (360, 480)
    assert set(np.unique(sample.target)) <= {*range(11), 255}
    assert len(open_masks(real("camvid")).classes) == 12


def test_isbi(real):
    source = open_masks(real("isbi-em"))
    assert (len(source), source.classes) == (30, ("0", "255"))
    assert list(source.ids)[:3] == ["image/0.png", "image/1.png", "image/2.png"]
    membrane = np.mean([(source.mask(row) == 0).mean() for row in range(30)])
    assert 0.2 < membrane < 0.24
    assert set(np.unique(source[0].target)) == {0, 1}
