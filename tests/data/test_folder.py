"""Image folders: what is read, in what order, and each mistake by its name."""

import os

import pytest
from PIL import Image

from hubel.data.folder import read_folder
from hubel.errors import BrokenImage, DataError


def plant(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            Image.new("L", (4, 3), len(name)).save(path, "PNG")
    return root


def test_one_folder_per_class_in_natural_order(tmp_path):
    plant(tmp_path / "pets", "dog10/b.png", "dog9/2.jpg", "dog9/10.JPG", "dog9/deep/er/1.png")
    source = read_folder(tmp_path / "pets")
    assert source.name == "pets"
    assert source.classes == ("dog9", "dog10")
    assert list(source.ids) == ["dog9/2.jpg", "dog9/10.JPG", "dog9/deep/er/1.png", "dog10/b.png"]
    assert source.targets.tolist() == [0, 0, 0, 1]
    assert source.parts.tolist() == [""] * 4
    assert source[0].image.shape == (1, 3, 4)
    assert source.skipped == {}


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Valid"])
def test_parts_above_the_classes(tmp_path, val):
    plant(tmp_path, "test/a/1.png", "test/b/1.png", "train/a/1.png", "train/b/1.png")
    plant(tmp_path, f"{val}/b/2.png", f"{val}/a/")
    source = read_folder(tmp_path)
    assert source.classes == ("a", "b")
    assert source.parts.tolist() == ["train", "train", "val", "test", "test"]
    assert list(source.ids)[2] == f"{val}/b/2.png"
    assert source.targets.tolist() == [0, 1, 1, 0, 1]


def test_classes_may_be_called_train_and_test(tmp_path):
    plant(tmp_path, "train/1.png", "bus/1.png", "test/x.png")
    assert read_folder(tmp_path).classes == ("bus", "test", "train")


def test_hidden_and_other_files_are_counted(tmp_path):
    plant(tmp_path, "a/1.png", "a/.hidden.png", "b/1.png", ".git/x.png")
    for name in ("a/notes.txt", "b/thumbs.db", "b/more.txt", "README"):
        (tmp_path / name).touch()
    source = read_folder(tmp_path)
    assert len(source) == 2
    assert source.skipped == {"hidden": 1, ".txt": 2, ".db": 1, "no extension": 1}


def test_links_are_followed_but_not_in_circles(tmp_path):
    plant(tmp_path / "photos", "a/1.png", "b/1.png")
    plant(tmp_path / "elsewhere", "far.png", "more/far.png")
    a = tmp_path / "photos/a"
    (a / "linked").symlink_to(tmp_path / "elsewhere")
    (a / "twice").symlink_to(tmp_path / "elsewhere")
    (a / "one.png").symlink_to(tmp_path / "elsewhere/far.png")
    (a / "dead.png").symlink_to(tmp_path / "nowhere.png")
    (a / "self.png").symlink_to(a / "self.png")
    (a / "up").symlink_to(tmp_path / "photos")
    (a / "top").symlink_to("/")
    source = read_folder(tmp_path / "photos")
    assert set(source.ids) == {
        *("a/1.png", "a/one.png", "a/dead.png", "a/self.png", "b/1.png"),
        *("a/linked/far.png", "a/linked/more/far.png"),
    }
    assert source.skipped == {"link to a folder already read": 3}
    with pytest.raises(BrokenImage, match="no such file"):
        source[list(source.ids).index("a/dead.png")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_are_not_opened(tmp_path):
    plant(tmp_path, "a/1.png", "b/1.png")
    os.mkfifo(tmp_path / "a/pipe.png")
    source = read_folder(tmp_path)
    assert len(source) == 2
    assert source.skipped == {"not a file": 1}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"holds no images; expected: CLASS/image\.jpg or train/CLASS/image\.jpg"),
        (["a/", "b/"], "holds no images"),
        (["1.png", "2.png"], "holds 2 images but no class folders; expected: CLASS"),
        (["a/1.png"], "at least two classes are needed, given only 'a'"),
        (["a/1.png", "b/1.png", "c/", "d10/", "d9/"], "no images in class folder 'c', 'd9', 'd10'"),
        (["a/1.png", "b/1.png", "x.png"], r"1 images lie outside .*\(first: x\.png\)"),
        (["train/a/1.png", "train/b/1.png", "x.png"], r"outside the class folders \(first: x"),
        (["train/1.png", "test/1.png"], r"train: 1 images lie outside the class folders"),
        (["train/a/1.png", "train/b/1.png", "train/x.png"], r"train: 1 images lie outside"),
        (
            ["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/c/1.png"],
            "test has class folders that train/ has not: 'c'",
        ),
        (
            ["train/a/1.png", "train/b/1.png", "test/a/1.png"],
            "test lacks class folders that train/ has: 'b'",
        ),
        (["train/a/1.png", "train/b/", "test/a/1.png", "test/b/1.png"], "no images in .* 'b'"),
        (
            ["train/a/1.png", "train/b/1.png", "val/a/1.png", "valid/a/1.png"],
            "val/ and valid/ both mean 'val'",
        ),
        (
            ["train/a/1.png", "test/a/1.png", "extra/a/1.png"],
            r"folder 'extra' beside train/ and test/: allowed there: train, val",
        ),
    ],
)
def test_mistakes(tmp_path, names, message):
    plant(tmp_path, *names)
    with pytest.raises(DataError, match=message) as caught:
        read_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match=r"no such folder: .*gone"):
        read_folder(tmp_path / "gone")
