"""NumPy archives: names, and what is refused. Layouts and scales: test_arrays.py."""

import zipfile

import numpy as np
import pytest

from hubel.data.npz import FAMILIES, read_npz
from hubel.errors import DataError

RNG = np.random.default_rng(1)
X = RNG.integers(0, 256, (4, 5, 6), dtype=np.uint8)
Y = np.array([0, 1, 1, 0])


def saved(tmp_path, **arrays):
    np.savez_compressed(tmp_path / "set.npz", **arrays)
    return tmp_path / "set.npz"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", [str, str.upper, str.title])
def test_key_names(tmp_path, family, case):
    keys = {case(x): X for x, _ in family.values()} | {case(y): Y for _, y in family.values()}
    source = read_npz(saved(tmp_path, **keys, more=X))
    assert source.name == "set"
    assert source.parts.tolist() == [part for part in family for _ in X]
    np.testing.assert_array_equal(source.images[:4, 0], X)
    assert source.targets[:4].tolist() == Y.tolist()


@pytest.mark.parametrize("key", ["classes", "label_names", "class_names"])
@pytest.mark.parametrize("kind", ["U", "S"])
def test_class_names(tmp_path, key, kind):
    source = read_npz(saved(tmp_path, X=X, y=Y, **{key: np.array(["ant", "bee", "cat"], kind)}))
    assert source.classes == ("ant", "bee", "cat")


def test_labels_as_keras_saves_cifar(tmp_path):
    images = RNG.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    source = read_npz(saved(tmp_path, x_train=images, y_train=Y[:, None].astype("u1")))
    np.testing.assert_array_equal(source.images, images.transpose(0, 3, 1, 2))
    assert source.parts.tolist() == ["train"] * 4


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": X}, r"set\.npz: x_train has no y_train beside it"),
        ({"pixels": X, "y": Y}, r"no known array names; allowed: x_train .* given: pixels, y"),
        ({}, "given: nothing"),
        ({"X": X, "y": Y[:3]}, r"set\.npz: X: 4 images, but .*set\.npz: y: 3 labels"),
        ({"X": np.where(X < 9, np.nan, X), "y": Y}, r"X: image \d has nan at channel 0"),
        ({"X": X.astype(object), "y": Y}, r"holds Python objects \(a pickle\), which are never"),
        ({"X": X, "y": Y, "classes": np.array([["a"]])}, "class names must be a list of words"),
        ({"X": X, "y": Y + 1, "classes": np.array(["a", "b"])}, "label 1 is 2; 2 classes are 0"),
        ({"X": X, "y": Y, "classes": np.array(["a", "a"])}, "class name 'a' stands twice"),
    ],
)
def test_mistakes(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        read_npz(saved(tmp_path, **arrays))


def test_missing_damaged_and_other_files(tmp_path):
    with pytest.raises(DataError, match=r"no such file: .*gone\.npz"):
        read_npz(tmp_path / "gone.npz")
    whole = saved(tmp_path, X=X, y=Y).read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2], whole[:200] + b"\0" + whole[201:]):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.npz: not a NumPy"):
            read_npz(tmp_path / "bad.npz")
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(DataError, match=r"holds one array; expected an .npz archive"):
        read_npz(tmp_path / "one.npy")
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as archive:
        archive.writestr("X.npy", b"not npy")
        archive.writestr("y.npy", b"")
    with pytest.raises(DataError, match=r"zip\.npz: not a NumPy .*\(X is no array\)"):
        read_npz(tmp_path / "zip.npz")


def test_a_header_that_promises_too_much(tmp_path):
    head = b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999, 999, 999), }"
    head = head.ljust(118) + b"\n"
    with zipfile.ZipFile(tmp_path / "big.npz", "w") as archive:
        for name in ("X.npy", "y.npy"):
            archive.writestr(name, b"\x93NUMPY\1\0" + len(head).to_bytes(2, "little") + head)
    with pytest.raises(DataError, match=r"big\.npz: (its arrays do not fit|not a NumPy)"):
        read_npz(tmp_path / "big.npz")
