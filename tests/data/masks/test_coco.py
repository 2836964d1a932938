"""COCO's instances: where images lie, several parts, what is passed over, each mistake."""

import json
import pickle
import time

import numpy as np
import pytest

from hubel.data.masks.coco import find_coco
from hubel.data.masks.open import open_masks
from hubel.data.masks.rle import encode, to_text
from hubel.errors import BrokenImage, DataError

H, W = 6, 8
SQUARE = [[1, 1, 3, 1, 3, 4, 1, 4]]
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]


def image(number, name=None, **more):
    return {"id": number, "file_name": name or f"{number}.png", "height": H, "width": W} | more


def note(number, category=7, segmentation=SQUARE, **more):
    return {
        "id": 50,
        "image_id": number,
        "category_id": category,
        "iscrowd": 0,
        "segmentation": segmentation,
    } | more


@pytest.fixture
def coco(plant, save, tmp_path):
    """coco(images, annotations) writes x.json with its images beside it, and opens it."""

    def make(images, annotations, categories=CATEGORIES, path="x.json", folder=""):
        for one in images:
            save(tmp_path / folder / one["file_name"], (H, W))
        record = {"images": images, "annotations": annotations, "categories": categories}
        plant({path: json.dumps(record)})
        return tmp_path / path

    return make


def test_masks_and_classes(coco):
    source = open_masks(coco([image(1), image(2)], [note(2, 3), note(1)]))
    assert source.classes == ("background", "dog", "cat")
    assert len(source.colours) == 3
    assert list(source.ids) == ["1.png", "2.png"]
    expected = np.zeros((H, W), np.uint8)
    expected[1:4, 1:3] = 2
    assert np.array_equal(source[0].target, expected)
    assert np.array_equal(source.mask(1), expected // 2)
    assert source[0].image.shape == (3, H, W)
    assert (source.notice, source.name) == (None, "x")
    assert len(set(source.hashes().tolist())) == 2
    assert np.array_equal(pickle.loads(pickle.dumps(source))[0].target, expected)


def test_pycocotools_reads_the_same_runs(coco):
    theirs = pytest.importorskip("pycocotools.coco")
    rng = np.random.default_rng(0)
    region = rng.random((H, W)) < 0.5
    code = {"size": [H, W], "counts": to_text(encode(region))}
    path = coco([image(1)], [note(1, segmentation=code)])
    expected = theirs.COCO(str(path)).annToMask(theirs.COCO(str(path)).anns[50])
    assert np.array_equal(open_masks(path)[0].target == 2, expected == 1)


def test_a_crowd_and_an_ignored_category(coco):
    categories = [*CATEGORIES, {"id": 9, "name": "void"}, {"id": 0, "name": "Background"}]
    notes = [note(1, iscrowd=1), note(2, 9), note(3, 0)]
    source = open_masks(
        coco([image(1), image(2), image(3), image(4)], [*notes, note(4)], categories)
    )
    assert source.classes == ("background", "dog", "cat")
    assert [int(source.mask(row)[1, 1]) for row in range(4)] == [255, 255, 0, 2]


def test_the_hash_follows_the_annotations(coco):
    first = open_masks(coco([image(1)], [note(1)]))
    moved = open_masks(coco([image(1)], [note(1, segmentation=[[0, 0, 3, 0, 3, 4, 1, 4]])]))
    other = open_masks(coco([image(1)], [note(1, 3)]))
    assert len({int(s.hashes()[0]) for s in (first, moved, other)}) == 3
    assert len({int(s.image_hashes()[0]) for s in (first, moved, other)}) == 1


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("x.json", "images"),
        ("annotations/instances_val2017.json", "val2017"),
        ("annotations/instances_val2017.json", "images/val2017"),
        ("annotations/x.json", "images"),
        ("annotations/x.json", ""),
        ("train/_annotations.coco.json", "train"),
    ],
)
def test_where_images_lie(coco, path, folder, monkeypatch, tmp_path):
    file = coco([image(1)], [note(1)], path=path, folder=folder)
    assert open_masks(file)[0].target[1, 1] == 2
    assert open_masks(tmp_path)[0].target[1, 1] == 2
    monkeypatch.chdir(file.parent)
    assert open_masks(file.name)[0].target[1, 1] == 2


def test_parts(coco, tmp_path):
    for part, number in (("train", 1), ("valid", 2), ("test", 3)):
        coco(
            [image(number, f"{number}.png")],
            [note(number)],
            path=f"{part}/_annotations.coco.json",
            folder=part,
        )
    source = open_masks(tmp_path)
    assert source.parts.tolist() == ["train", "val", "test"]
    assert list(source.ids) == ["train/1.png", "valid/2.png", "test/3.png"]
    assert all(source[row].target[1, 1] == 2 for row in range(3))
    assert source.name == tmp_path.name


def test_parts_of_the_usual_names(coco, tmp_path):
    for part in ("train2017", "val2017"):
        coco([image(1, "1.png")], [note(1)], path=f"annotations/instances_{part}.json", folder=part)
    assert list(open_masks(tmp_path).ids) == ["train2017/1.png", "val2017/1.png"]
    assert set(find_coco(tmp_path)) == {"train", "val"}


def test_what_is_passed_over_is_told(coco):
    notes = [note(1), note(1, segmentation=[]), note(1, segmentation=None), note(99)]
    source = open_masks(coco([image(1)], notes))
    assert source.notice == (
        "2 annotations without a polygon were passed over; "
        "1 annotation of an image that is not listed was passed over"
    )


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (note(1, 8), r"^1\.png: annotation 50 has category 8, which is not listed$"),
        (note(1, None), "has category None, which is not listed"),
        (note(1, segmentation=[[1, 2, 3]]), r"^1\.png: annotation 50: its polygon has 3 numbers"),
        (note(1, segmentation={"size": [W, H], "counts": [H * W]}), "is for 8 x 6 pixels"),
        (
            note(1, segmentation={"size": [H, W], "counts": [5]}),
            "1.png: annotation 50: its runs are 5",
        ),
        (note(1, segmentation={"size": [H, W], "counts": "~"}), "character 0 of its text is '~'"),
    ],
)
def test_a_bad_annotation_makes_one_broken_pair(coco, annotation, message):
    source = open_masks(coco([image(1), image(2)], [note(2), annotation]))
    for read in (source.__getitem__, source.mask):
        with pytest.raises(BrokenImage, match=message):
            read(0)
    assert source[1].target[1, 1] == 2


def test_an_image_of_another_size_than_listed(coco):
    source = open_masks(coco([image(1, height=W, width=H)], [note(1)]))
    with pytest.raises(
        BrokenImage, match=r"1\.png: the image is 6 x 8, but .*x\.json lists it with 8 x 6"
    ):
        source[0]
    unlisted = coco([{"id": 1, "file_name": "1.png"}], [note(1)])
    assert open_masks(unlisted)[0].target[1, 1] == 2


@pytest.mark.parametrize(
    ("images", "annotations", "categories", "message"),
    [
        ([image(1), image(1, "2.png")], [note(1)], CATEGORIES, "two images have the id 1"),
        ([image(1), image(2, "1.png")], [note(1)], CATEGORIES, r"1\.png is listed twice"),
        ([image(1)], [], CATEGORIES, r"no annotation has a segmentation \(boxes alone\?\)"),
        ([image(1)], [note(1, segmentation=None)], CATEGORIES, "no annotation has a segmentation"),
        ([image(1)], [7], CATEGORIES, "annotation 0 is no record, given 7"),
        ([], [], CATEGORIES, "lists no images"),
    ],
)
def test_mistakes(coco, images, annotations, categories, message):
    with pytest.raises(DataError, match=message):
        open_masks(coco(images, annotations, categories))


def test_missing_images(coco, tmp_path):
    path = coco([image(n) for n in range(6)], [note(1)])
    for number in (1, 2, 4, 5):
        (tmp_path / f"{number}.png").unlink()
    with pytest.raises(
        DataError, match=r"4 images are not in .*: 1\.png, 2\.png, 4\.png and 1 more"
    ):
        open_masks(path)


def test_parts_with_other_categories(coco, tmp_path):
    coco([image(1)], [note(1)], path="train/a.coco.json", folder="train")
    coco([image(1)], [note(1)], CATEGORIES[:1], path="test/a.coco.json", folder="test")
    with pytest.raises(DataError, match=r"test/a\.coco\.json has other categories than .*train/a"):
        open_masks(tmp_path)


def test_a_large_file_is_read_quickly(coco, tmp_path, save):
    """8,000 annotations in 200 images: a quarter of a second, most of it for the JSON."""
    polygon = [np.random.default_rng(0).uniform(0, 6, 60).round(2).tolist()]
    images = [image(n) for n in range(200)]
    path = coco(images[:1], [note(n % 200, segmentation=polygon) for n in range(8_000)])
    record = json.loads(path.read_text()) | {"images": images}
    for one in images[1:]:
        (tmp_path / one["file_name"]).hardlink_to(tmp_path / "0.png")
    path.write_text(json.dumps(record))
    start = time.process_time()
    source = open_masks(path)
    assert time.process_time() - start < 3
    assert len(source) == 200
    assert len(pickle.dumps(source)) < 8_000 * (60 * 4 + 7 * 8) * 1.2
