"""IDX: round trips of every type, the real sets where they are, each damage by its name."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hubel.data.idx import (
    TYPES,
    find_idx,
    looks_like_idx,
    read_idx,
    read_idx_folder,
    read_idx_pair,
)
from hubel.errors import DataError

FASHION = Path("/usr/share/datasets/fashion-mnist")
MNIST = Path(os.environ.get("HUBEL_TEST_MNIST", "/nowhere"))
IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([0, 1, 1], dtype=np.uint8)


def idx(array):
    """An IDX file, written from the format's description."""
    code = {np.dtype(kind).newbyteorder("="): code for code, kind in TYPES.items()}[array.dtype]
    head = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(TYPES[code]).tobytes()


def test_a_file_written_by_hand(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes.fromhex("00000b02 00000002 00000003 0001 0002 ffff 0100 7fff 8000"))
    np.testing.assert_array_equal(read_idx(path), [[1, 2, -1], [256, 32767, -32768]])
    assert read_idx(path).dtype == np.dtype("=i2")


ANY_IDX = hnp.arrays(
    st.sampled_from(["u1", "i1", "i2", "i4", "f4", "f8"]),
    hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=5),
)


@settings(max_examples=150, deadline=None)
@given(array=ANY_IDX, packed=st.booleans())
def test_round_trip(tmp_path_factory, array, packed):
    path = tmp_path_factory.mktemp("idx") / "x"
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    assert looks_like_idx(path)
    got = read_idx(path)
    assert got.dtype == array.dtype
    assert got.dtype.isnative
    np.testing.assert_array_equal(got, array)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), packed=st.booleans())
def test_any_cut_and_any_tail_is_refused(tmp_path_factory, data, packed):
    whole = idx(IMAGES)
    cut = data.draw(st.integers(0, len(whole) - 1))
    tail = data.draw(st.binary(min_size=1, max_size=9))
    path = tmp_path_factory.mktemp("idx") / "x"
    for content in (whole[:cut], whole + tail):
        path.write_bytes(gzip.compress(content) if packed else content)
        with pytest.raises(DataError, match="x: "):
            read_idx(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file: it starts with nothing; allowed: 00 00, a type"),
        (b"PNG.....", "not an IDX file: it starts with 50 4e 47 2e"),
        (b"\0\0\x0a\1\0\0\0\1x", r"starts with 00 00 0a 01; allowed: 00 00, a type \(08, 09, 0b"),
        (b"\0\0\x08\x21" + bytes(200), "not an IDX file"),
        (b"\0\0\x08\3\0\0", "the file ends within its header"),
        (idx(IMAGES)[:-1], "its header promises 60 bytes, 59 are there"),
        (idx(IMAGES) + b"x", "more bytes follow than the 60 its header promises"),
        (b"\0\0\x0e\x03" + b"\xff" * 12 + b"few", "promises 633,825,.* bytes, 3 are there"),
        (gzip.compress(idx(IMAGES), mtime=0)[:-12], "damaged gzip"),
        (gzip.compress(idx(IMAGES), mtime=0)[:-8] + bytes(8), "damaged gzip"),
        (b"\x1f\x8b\x08" + bytes(20), "x"),
    ],
)
def test_damage(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "x")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_idx(tmp_path / "gone")
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path)
    assert not looks_like_idx(tmp_path / "gone")
    assert not looks_like_idx(tmp_path)


def plant(folder, stem="{part}-{what}-idx{axes}-ubyte", packed=False, parts=("train", "t10k")):
    for part in parts:
        for what, array in (("images", IMAGES), ("labels", LABELS)):
            name = stem.format(part=part, what=what, axes=array.ndim) + (".gz" if packed else "")
            (folder / name).write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return folder


@pytest.mark.parametrize("stem", ["{part}-{what}-idx{axes}-ubyte", "{part}-{what}.idx{axes}-ubyte"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_four_files(tmp_path, stem, packed):
    source = read_idx_folder(plant(tmp_path, stem, packed), classes=["no", "yes"])
    assert source.parts.tolist() == ["train"] * 3 + ["test"] * 3
    assert source.classes == ("no", "yes")
    np.testing.assert_array_equal(source.images[3:, 0], IMAGES)
    assert source.targets.tolist() == [0, 1, 1] * 2


def test_the_test_pair_may_be_absent(tmp_path):
    assert read_idx_folder(plant(tmp_path, parts=["train"])).parts.tolist() == ["train"] * 3


def test_a_missing_file_is_named(tmp_path):
    plant(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    assert set(find_idx(tmp_path)) == {"test"}
    with pytest.raises(DataError, match="lacks train-images-idx3-ubyte, or its labels"):
        read_idx_folder(tmp_path)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("digits-images-idx3-ubyte.gz", "digits-labels-idx1-ubyte"),
        ("images.idx3", "labels.idx1"),
        ("a-images.idx3-ubyte", "a-labels-idx1-ubyte.gz"),
    ],
)
def test_labels_are_found_by_name(tmp_path, images, labels):
    (tmp_path / images).write_bytes(idx(IMAGES))
    with pytest.raises(DataError, match=r"no labels beside it; expected a name like .*labels.idx1"):
        read_idx_pair(tmp_path / images)
    (tmp_path / labels).write_bytes(idx(LABELS))
    source = read_idx_pair(tmp_path / images)
    assert source.targets.tolist() == [0, 1, 1]
    assert source.parts.tolist() == [""] * 3


def test_a_file_of_another_name_has_no_labels(tmp_path):
    (tmp_path / "pixels").write_bytes(idx(IMAGES))
    with pytest.raises(DataError, match="no labels beside it"):
        read_idx_pair(tmp_path / "pixels")


def test_images_and_labels_must_agree(tmp_path):
    plant(tmp_path, parts=["train"])
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS[:2]))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: 3 images, but .*: 2 labels"):
        read_idx_folder(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(LABELS))
    with pytest.raises(DataError, match=r"images must be .* given \(3,\)"):
        read_idx_folder(tmp_path)


@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist():
    source = read_idx_folder(FASHION)
    assert source.images.shape == (70_000, 1, 28, 28)
    assert np.bincount(source.targets[:60_000]).tolist() == [6_000] * 10
    train = source.images[:60_000] / np.float32(255)
    assert train.mean() == pytest.approx(0.2860, abs=5e-5)  # as published everywhere
    assert train.std() == pytest.approx(0.3530, abs=5e-5)


@pytest.mark.skipif(not MNIST.is_dir(), reason="HUBEL_TEST_MNIST names no folder with MNIST")
def test_mnist():
    source = read_idx_folder(MNIST)
    train = source.images[:60_000] / np.float32(255)
    assert train.mean() == pytest.approx(0.1307, abs=5e-5)
    assert source.targets[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
