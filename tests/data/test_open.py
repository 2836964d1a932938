"""The one door: each kind of thing goes to its reader, everything else is told what is allowed."""

import gzip
import struct
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from hubel.data import open_source
from hubel.data.files import FileSource
from hubel.data.record import ArraySource
from hubel.errors import DataError


@pytest.fixture
def photos(tmp_path):
    for name in ("cat/1.png", "dog/1.png", "dog/2.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def idx(path, *shape, content=None):
    head = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    path.write_bytes(head + (content or bytes(int(np.prod(shape)))))


def test_an_image_folder_as_path_or_text(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    for where in (photos, str(photos), "photos", "photos/", "./photos"):
        source = open_source(where)
        assert isinstance(source, FileSource)
        assert (source.name, len(source)) == ("photos", 3)
    monkeypatch.setenv("HOME", str(photos.parent))
    assert len(open_source("~/photos")) == 3


def test_a_source_is_itself(photos):
    source = open_source(photos)
    assert open_source(source) is source


def test_names(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample").mkdir()  # a name wins over a path
    for word in ("sample", "Sample"):
        assert open_source(word).name == "fashion-mnist-sample"
    with pytest.raises(DataError, match="sample holds no images"):
        open_source("./sample")


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, np.ndarray.tolist])
def test_two_arrays(kind):
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    source = open_source((kind(images), kind(np.array([0, 1]))))
    np.testing.assert_array_equal(source.images[:, 0], images)
    with pytest.raises(DataError, match=r"expected two arrays \(images, labels\), given 3"):
        open_source((images, images, images))
    with pytest.raises(DataError, match="images: 2 images, but labels: 1 labels"):
        open_source((images, np.array([0])))


@pytest.mark.parametrize("name", ["list.csv", "list.TSV"])
def test_a_manifest(photos, name):
    (photos / name).write_text("path,label\ncat/1.png,a\ndog/1.png,b\n")
    assert len(open_source(photos / name)) == 2


def test_an_npz(tmp_path):
    np.savez(tmp_path / "x.npz", X=np.zeros((2, 3, 4), np.uint8), y=[0, 1])
    assert isinstance(open_source(tmp_path / "x.npz"), ArraySource)


def test_idx_folder_and_file(tmp_path):
    idx(tmp_path / "train-images-idx3-ubyte", 2, 3, 4)
    idx(tmp_path / "train-labels-idx1-ubyte", 2, content=b"\0\1")
    assert open_source(tmp_path).parts.tolist() == ["train"] * 2
    assert open_source(tmp_path / "train-images-idx3-ubyte").parts.tolist() == ["", ""]
    packed = gzip.compress((tmp_path / "train-images-idx3-ubyte").read_bytes())
    (tmp_path / "some.gz").write_bytes(packed)
    with pytest.raises(DataError, match="no labels beside it"):  # known by its first bytes
        open_source(tmp_path / "some.gz")


def test_cifar_folder_and_archive(tmp_path, small_cifar):
    folder = tmp_path / "set/cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, content in small_cifar.binary10().items():
        (folder / name).write_bytes(content)
    with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as archive:
        archive.add(folder)
    for where in (folder, folder.parent, tmp_path / "cifar.tar.gz"):
        np.testing.assert_array_equal(open_source(where).targets, small_cifar.labels)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            "fashion_mnist",
            "called 'fashion_mnist': did you mean 'fashion-mnist'.* expected an image",
        ),
        ("cifar", "called 'cifar': did you mean 'cifar"),
        ("no/such/dir", "no data set or path called 'no/such/dir': expected an image folder"),
        ("", r"no data set or path called '': expected"),
        ("nul\0byte", "no data set or path called"),
        ("x" * 5000, r"'xxx.*x' cannot be looked at \(File name too long\)"),
    ],
)
def test_nothing_of_that_name(where, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        open_source(where)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cat.jpg", r"cat\.jpg is one image; expected an image folder"),
        ("notes.txt", r"notes\.txt is of no kind that can be read; expected an image folder"),
        ("set.zip", "is of no kind that can be read"),
        ("labels-idx1-ubyte", "labels-idx1-ubyte: no labels beside it"),
        ("set.tar.gz", "not a tar archive, or damaged"),
        ("set.npz", r"set\.npz: not a NumPy \.npz archive$"),
        ("list.csv", "no column 'path'"),
    ],
)
def test_files_that_are_nothing(tmp_path, name, message):
    (tmp_path / name).write_text("hello, world, this is text")
    with pytest.raises(DataError, match=message) as caught:
        open_source(tmp_path / name)
    assert "\n" not in str(caught.value)
