"""The tables of a COCO file, and each mistake in them by its name."""

import json

import pytest

from hubel.data.masks.coco_json import categories, image_folder, image_of, load, size_listed
from hubel.errors import DataError

GOOD = {"images": [], "annotations": [], "categories": []}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "has no list 'images'; expected COCO's instances: a record of images, annotations"),
        (json.dumps(GOOD | {"annotations": {}}), "has no list 'annotations'"),
        (json.dumps({"images": [], "annotations": []}), "has no list 'categories'"),
    ],
)
def test_files_that_are_none(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "x.json")


def test_no_file(tmp_path):
    with pytest.raises(DataError, match=r"none\.json cannot be read \(No such file"):
        load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([1], "category 0 needs an id and a name, given 1"),
        ([{"id": 1}], "category 0 needs an id and a name"),
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "two categories have the id 1"),
        ([{"id": 1, "name": "a"}, {"id": 2, "name": "a"}], "two categories are called 'a'"),
        ([{"id": 1, "name": "a"}, {"id": "x", "name": "b"}], "ids of categories must be numbers"),
        ([], "has 0 categories; allowed: 1 to 254"),
        ([{"id": n, "name": str(n)} for n in range(255)], "has 255 categories; allowed: 1 to 254"),
    ],
)
def test_wrong_categories(tmp_path, table, message):
    with pytest.raises(DataError, match=message):
        categories(table, tmp_path / "x.json")


def test_254_categories_and_the_background_fill_a_byte(tmp_path):
    table = [{"id": n + 1, "name": str(n)} for n in range(254)]
    classes, label_of = categories(table, tmp_path)
    assert (len(classes), label_of[254]) == (255, 254)


@pytest.mark.parametrize("image", [3, {"id": 1}, {"file_name": "a"}, {"id": 1, "file_name": 2}])
def test_wrong_images(image):
    with pytest.raises(DataError, match=r"x: image 4 needs an id and a file_name, given"):
        image_of(image, "x: image 4")


@pytest.mark.parametrize("size", [(-1, 5), ("6", 5), (2.5, 5)])
def test_wrong_sizes(size):
    with pytest.raises(DataError, match=r"a\.png is listed with .* pixels \(height x width\)"):
        size_listed({"height": size[0], "width": size[1]}, "a.png")


def test_images_that_are_nowhere(tmp_path):
    with pytest.raises(
        DataError, match=r"its images \(a\.png\) are in none of: .*/sub, .*/sub/images"
    ):
        image_folder([{"id": 1, "file_name": "a.png"}], tmp_path / "sub/x.json")
