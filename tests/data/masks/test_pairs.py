"""From pairs of files to a source: which class list counts, and what the user is told."""

import numpy as np
import pytest

from hubel.data.masks.open import open_masks
from hubel.data.masks.pairs import listed, without_ending
from hubel.errors import BrokenImage, DataError

M = np.array([[0, 1, 2]], np.uint8)


def pair(mask=M):
    mask = np.asarray(mask, np.uint8)
    return {"images/a.png": mask.shape[:2], "masks/a.png": mask}


def test_a_list_in_the_root(plant):
    source = open_masks(plant(pair() | {"classes.txt": "sky 1 2 3\nroad 4 5 6\nvoid\n"}))
    assert source.classes == ("sky", "road")
    assert source.colours == ((1, 2, 3), (4, 5, 6))
    assert source[0].target.tolist() == [[0, 1, 255]]


def test_a_list_in_a_part(plant):
    files = {"train/a.jpg": (1, 3), "train/a_mask.png": M}
    source = open_masks(
        plant(files | {"train/_classes.csv": "Pixel Value, Class\n0,x\n1,y\n2,z\n"})
    )
    assert source.classes == ("x", "y", "z")


def test_one_letter_may_be_spelt_in_two_ways(plant):
    """An accent is one character, or two as macOS has written them."""
    source = open_masks(plant({"images/caf\u00e9.jpg": (1, 3), "masks/cafe\u0301.png": M}))
    assert source[0].target.tolist() == M.tolist()


def test_a_given_list_wins(plant, tmp_path):
    root = plant(pair() | {"classes.txt": "a\nb\nc\n", "other.txt": "x\ny\nz\n"})
    assert open_masks(root, classes=tmp_path / "other.txt").classes == ("x", "y", "z")
    assert open_masks(root, classes=str(tmp_path / "other.txt"), ignore=1).classes == ("x", "z")


def test_few_values_far_apart_are_told(plant):
    source = open_masks(plant(pair([[0, 128, 255]])))
    assert len(source.classes) == 129
    assert source.notice == (
        "there is no class list, and the masks' values (0, 128) were taken as indices of 129 "
        "classes"
    )
    assert open_masks(plant(pair([[0, 1, 2]]))).notice is None


def test_values_outside_of_the_list(plant):
    root = plant(pair() | {"classes.txt": "a\nb\n"})
    with pytest.raises(
        BrokenImage,
        match=r"masks/a\.png: value 2 at row 0, column 2 is no class; "
        r"allowed: 0\.\.1, ignored: 255 \(.*classes\.txt\)",
    ):
        open_masks(root)[0]


def test_nothing_can_be_read(plant, tmp_path):
    plant(pair())
    (tmp_path / "masks/a.png").write_text("no")
    with pytest.raises(BrokenImage, match=r"masks/a\.png: not an image"):
        open_masks(tmp_path)


def test_photos_in_place_of_masks(plant):
    rng = np.random.default_rng(0)
    root = plant({"images/a.png": (20, 20), "masks/a.png": rng.integers(0, 256, (20, 20, 3), "u1")})
    with pytest.raises(DataError, match=r"masks have .* colours; allowed: at most 255 \(are these"):
        open_masks(root)


def test_coloured_masks_and_their_list(plant):
    mask = np.array([[(0, 0, 255), (255, 0, 0)]], np.uint8)
    root = plant({"images/a.png": (1, 2), "masks/a.png": mask})
    assert open_masks(root)[0].target.tolist() == [[0, 1]]
    plant({"labelmap.txt": "b:255,0,0::\na:0,0,255::\n"})
    assert open_masks(root)[0].target.tolist() == [[1, 0]]
    plant({"labelmap.txt": "b\na"})
    with pytest.raises(DataError, match="labelmap.txt has no colour for 'b' and 1 more classes"):
        open_masks(root)


def test_words():
    assert listed(["a", "b", "c"]) == "a, b, c"
    assert listed(list("abcde")) == "a, b, c and 2 more"
    assert without_ending("x_mask") == "x"
    assert without_ending("mask") == "mask"
