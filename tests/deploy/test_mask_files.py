"""The folder of masks: what stands in it, and what it must never overwrite."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hubel.data.masks.classes import read_classes
from hubel.data.masks.open import open_masks
from hubel.data.preprocess import Preprocess
from hubel.deploy import mask_files
from hubel.deploy.mask_files import MaskFolder, Thumbnail, class_list, names_for, shrunk
from hubel.errors import OptionError, RunError
from hubel.runs.weights import Card

COLOURS = ((0, 0, 0), (200, 30, 30), (30, 200, 30))
CARD = Card(
    None, ("ground", "red car", "tree"), Preprocess(3, 8, 8, "same", (0.5,) * 3, (0.5,) * 3),
    task="segment", colours=COLOURS,
)  # fmt: skip
DRAW = np.random.default_rng(1)
PHOTO = DRAW.integers(0, 256, (3, 11, 17), dtype=np.uint8)
MASK = DRAW.integers(0, 3, (11, 17), dtype=np.uint8)


def put(folder, file, photo=PHOTO, mask=MASK):
    (place,) = folder.places([file])
    with place.writing(mask.shape) as write:
        for band in np.split(mask, [4, 5]):
            write(band)
    if place.picture:
        small = Thumbnail(mask.shape)
        small.add(mask)
        place.draw(photo, small)
    return place


def test_a_mask_an_overlay_and_the_class_list(tmp_path):
    out = tmp_path / "deep" / "masks"
    place = put(MaskFolder(out, CARD), Path("street.jpg"))
    assert {path.name for path in out.iterdir()} == {
        "street.png", "street.overlay.jpg", "classes.txt",
    }  # fmt: skip
    with Image.open(place.mask) as mask:
        np.testing.assert_array_equal(np.asarray(mask), MASK)
        assert tuple(mask.getpalette()[:9]) == sum(COLOURS, ())
    with Image.open(place.picture) as picture:
        assert (picture.size, picture.mode) == ((17, 11), "RGB")
    assert (out / "classes.txt").read_text() == "ground 0 0 0\nred car 200 30 30\ntree 30 200 30\n"


def test_without_pictures(tmp_path):
    put(MaskFolder(tmp_path, CARD, overlays=False), Path("street.jpg"))
    assert {path.name for path in tmp_path.iterdir()} == {"street.png", "classes.txt"}


def test_predicted_masks_are_data_again(tmp_path):
    """Beside the images, as the reader wants them: images/ and masks/, the list between."""
    (tmp_path / "images").mkdir()
    for name in "ab":
        Image.fromarray(PHOTO.transpose(1, 2, 0).copy()).save(tmp_path / "images" / f"{name}.png")
        put(MaskFolder(tmp_path / "masks", CARD, overlays=False), Path(f"{name}.png"))
    (tmp_path / "masks" / "classes.txt").rename(tmp_path / "classes.txt")
    source = open_masks(tmp_path)
    assert source.classes == CARD.classes
    assert source.colours == COLOURS
    assert len(source) == 2
    np.testing.assert_array_equal(source[0].target, MASK)
    np.testing.assert_array_equal(source[1].image, PHOTO)


@pytest.mark.parametrize(
    "classes",
    [
        *[("sky", "road"), ("a b", "c, d"), ("type 1 2 3", "Gehweg/Straße"), ("a:b", "c")],
        *[("#000000", "#ff0000"), ("car #1", "C#"), ("# 1, 2", "b")],
    ],
)
def test_the_reader_takes_every_name_back(classes, tmp_path):
    colours = [(1, 2, 3), (255, 0, 9)]
    (tmp_path / "classes.txt").write_text(class_list(classes, colours), encoding="utf-8")
    found = read_classes(tmp_path / "classes.txt")
    assert tuple(entry.name for entry in found.entries) == classes
    assert [entry.colour for entry in found.entries] == colours


# What is not overwritten --------------------------------------------------------------------------


def test_images_are_never_overwritten(tmp_path, monkeypatch):
    Image.fromarray(MASK).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match="would overwrite a.png, one of the images: give another"):
        MaskFolder(".", CARD).places([tmp_path / "a.png"])
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OptionError, match="one of the images"):
        MaskFolder("link", CARD).places([Path("a.png")])
    assert (tmp_path / "a.png").read_bytes() == before
    assert not (tmp_path / "classes.txt").exists()


def test_masks_that_somebody_drew_are_not_overwritten(tmp_path):
    Image.fromarray(MASK).save(tmp_path / "a.png")
    with pytest.raises(OptionError, match="a.png is there and was not written by 'hubel predict'"):
        MaskFolder(tmp_path, CARD).places([Path("photos/a.jpg")])


def test_a_folder_of_a_masks_name_is_not_taken_for_one(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OptionError, match="a.png is there and was not written by 'hubel predict'"):
        put(MaskFolder(tmp_path, CARD), Path("a.jpg"))


def test_ours_are_written_again(tmp_path):
    put(MaskFolder(tmp_path, CARD), Path("a.jpg"))
    place = put(MaskFolder(tmp_path, CARD), Path("a.jpg"), mask=MASK[::-1])
    np.testing.assert_array_equal(np.asarray(Image.open(place.mask)), MASK[::-1])


def test_a_list_of_other_classes_is_not_overwritten(tmp_path):
    (tmp_path / "classes.txt").write_text("cat 1 1 1\n")
    with pytest.raises(OptionError, match="lists other classes than this net's, ground, red car"):
        MaskFolder(tmp_path, CARD).places([Path("a.jpg")])
    assert (tmp_path / "classes.txt").read_text() == "cat 1 1 1\n"


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write masks to .*file"):
        MaskFolder(tmp_path / "file" / "masks", CARD).places([Path("a.jpg")])


def test_a_mask_that_is_not_finished_leaves_the_old_one(tmp_path):
    place = put(MaskFolder(tmp_path, CARD), Path("a.jpg"))
    before = place.mask.read_bytes()
    with pytest.raises(ZeroDivisionError), place.writing(MASK.shape) as write:
        write(MASK[:3])
        1 / 0  # noqa: B018
    assert place.mask.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


# Names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a.png", "deep/b.jpg"], ["a", "b"]),
        (["cat/1.png", "dog/1.png", "dog/2.png"], ["cat-1", "dog-1", "2"]),
        (["x/cat/1.png", "y/cat/1.png"], ["x-cat-1", "y-cat-1"]),
        (["a/1.png", "a/1.jpg"], ["1.png", "1.jpg"]),
        (["a/1.png", "a/1.jpg", "b/1.png"], ["a-1.png", "a-1.jpg", "b-1"]),
        (["x/cat/1.png", "y/cat/1.png", "z/dog/1.png"], ["x-cat-1", "y-cat-1", "z-dog-1"]),
        (["a/X.png", "b/x.png"], ["a-X", "b-x"]),
        (["a/1.png", "b/1.png", "c/a-1.png"], ["a-1", "b-1", "a-1-2"]),
        (["photo.tar.gz.png"], ["photo.tar.gz"]),
    ],
)
def test_names(files, names):
    assert names_for([Path(file) for file in files]) == names


def test_ten_thousand_names_are_quick_and_different():
    files = [Path(f"f{k % 100}") / f"{k // 100}.png" for k in range(10_000)]
    names = names_for(files)
    assert len({name.lower() for name in names}) == 10_000


# Pictures of large masks --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 60), (41, 59), (7, 60), (61, 2)])
def test_a_thumbnail_keeps_every_third_pixel(shape):
    mask = DRAW.integers(0, 200, shape, dtype=np.uint8)
    small = Thumbnail(shape, largest=20)
    for band in np.array_split(mask, 5):
        small.add(band)
    factor = small.factor
    assert factor == -(-max(shape) // 20)
    assert max(small.pixels.shape) <= 21
    for (row, column), value in np.ndenumerate(small.pixels):
        down = min(row * factor + factor // 2, shape[0] - 1)
        across = min(column * factor + factor // 2, shape[1] - 1)
        assert value == mask[down, across]


def test_an_image_shrinks_by_means():
    image = DRAW.integers(0, 256, (3, 7, 10), dtype=np.uint8)
    found = shrunk(image, 3)
    assert found.shape == (3, 3, 4)
    for row in range(3):
        for column in range(4):
            square = image[:, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
            mean = square.reshape(3, -1).mean(axis=1)
            assert np.abs(found[:, row, column] - mean).max() <= 0.5
    assert shrunk(image, 1) is image


def test_overlays_of_large_images_are_scaled_down(tmp_path, monkeypatch):
    monkeypatch.setattr(Thumbnail.__init__, "__defaults__", (20,))
    mask = np.repeat(np.repeat(MASK, 5, 0), 5, 1)
    photo = np.repeat(np.repeat(PHOTO, 5, 1), 5, 2)
    place = put(MaskFolder(tmp_path, CARD), Path("a.jpg"), photo, mask)
    with Image.open(place.picture) as picture:
        assert picture.size == (17, 11)
    with Image.open(place.mask) as whole:
        assert whole.size == (85, 55)
    assert mask_files.LARGEST == 4096
