"""CIFAR from folders and archives: found, whole, safe, and equal to the published files."""

import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from hubel.data import cifar
from hubel.data.cifar import is_cifar, read_cifar
from hubel.errors import DataError

REAL = Path(os.environ.get("HUBEL_TEST_CIFAR10", "/nowhere"))
MAKERS = ["binary10", "binary100", "python10", "python100", "sprites"]

# SHA-256 of the six files of the binary CIFAR-10, as published with the set's other readers.
BINARY_SHA256 = [
    "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
]


def planted(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def packed(path, files, folder="cifar/", mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in {"readme.html": b"hello", **files}.items():
            member = tarfile.TarInfo(folder + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def check(source, small_cifar, maker):
    np.testing.assert_array_equal(source.images, small_cifar.images)
    np.testing.assert_array_equal(source.targets, small_cifar.labels)
    assert source.parts.tolist() == ["train"] * 20 + ["test"] * 4
    assert source.ids[20] == "test/00000"
    assert len(source.classes) == (100 if "100" in maker else 10)
    assert source.name == ("cifar100" if "100" in maker else "cifar10")


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("below", ["", "cifar-x"])
def test_folders(tmp_path, small_cifar, maker, below):
    planted(tmp_path / below, getattr(small_cifar, maker)())
    assert is_cifar(tmp_path)
    check(read_cifar(tmp_path), small_cifar, maker)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(("suffix", "mode"), [(".tar.gz", "w:gz"), (".tgz", "w"), (".tar", "w")])
def test_archives(tmp_path, small_cifar, maker, suffix, mode):
    path = packed(tmp_path / f"cifar{suffix}", getattr(small_cifar, maker)(), mode=mode)
    check(read_cifar(path), small_cifar, maker)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]  # nothing was unpacked


def test_archives_cannot_place_files(tmp_path, small_cifar):
    path = packed(tmp_path / "evil.tar.gz", small_cifar.binary10(), folder="../../outside/")
    check(read_cifar(path), small_cifar, "binary10")
    assert not (tmp_path.parent / "outside").exists()
    assert not (tmp_path.parent.parent / "outside").exists()


def test_links_in_archives_are_not_followed(tmp_path, small_cifar):
    files = small_cifar.binary10()
    secret = planted(tmp_path / "secret", {"x": files.pop("test_batch.bin")}) / "x"
    path = packed(tmp_path / "a.tar", files, mode="w")
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("cifar/test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
    with pytest.raises(DataError, match=r"lacks test_batch\.bin"):
        read_cifar(path)


def test_archives_that_unpack_to_too_much(tmp_path, small_cifar, monkeypatch):
    path = packed(tmp_path / "big.tar.gz", small_cifar.binary10())
    monkeypatch.setattr(cifar, "MAX_BYTES", 50_000)
    with pytest.raises(DataError, match=r"more than 50,000 bytes; no CIFAR is so large"):
        read_cifar(path)


def test_missing_files_are_named(tmp_path, small_cifar):
    folder = planted(tmp_path, small_cifar.binary10())
    (folder / "data_batch_3.bin").unlink()
    (folder / "test_batch.bin").unlink()
    with pytest.raises(DataError, match=r"\(binary\) lacks data_batch_3\.bin, test_batch\.bin"):
        read_cifar(folder)


def test_a_label_without_a_class(tmp_path, small_cifar):
    small_cifar.labels[7] = 10
    folder = planted(tmp_path, small_cifar.binary10())
    with pytest.raises(DataError, match=r"train labels: label 7 is 10; 10 classes are 0\.\.9"):
        read_cifar(folder)


def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path, small_cifar):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    files = small_cifar.python10() | {"data_batch_2": pickle.dumps({"data": Evil()}, 2)}
    message = r"data_batch_2: file refused: it asks for the Python object '(posix|nt)\.mkdir'"
    for path in (planted(tmp_path / "folder", files), packed(tmp_path / "a.tar.gz", files)):
        with pytest.raises(DataError, match=message):
            read_cifar(path)
    assert not (tmp_path / "pwned").exists()


def test_other_files_and_folders(tmp_path):
    assert not is_cifar(tmp_path)
    with pytest.raises(DataError, match=r"no CIFAR-10 or CIFAR-100; expected one of: data_batch_1"):
        read_cifar(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read_cifar(tmp_path / "gone.tar.gz")
    with pytest.raises(DataError, match="no CIFAR-10 or CIFAR-100"):
        read_cifar(packed(tmp_path / "empty.tar.gz", {}))


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "flip"])
def test_damaged_archives(tmp_path, small_cifar, damage):
    path = packed(tmp_path / "a.tar.gz", small_cifar.binary10())
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "cut": whole[:middle],
            "text": b"not an archive",
            "empty": b"",
            "flip": whole[:middle] + bytes(50) + whole[middle + 50 :],
        }[damage]
    )
    with pytest.raises(DataError, match=r"a\.tar\.gz"):
        read_cifar(path)


@pytest.mark.skipif(not REAL.is_dir(), reason="HUBEL_TEST_CIFAR10 names no folder with CIFAR-10")
def test_the_real_set_is_the_published_one_bit_for_bit():
    source = read_cifar(REAL)
    records = np.concatenate(
        [source.targets[:, None].astype(np.uint8), source.images.reshape(60_000, 3072)], axis=1
    )
    digests = [hashlib.sha256(part.tobytes()).hexdigest() for part in np.split(records, 6)]
    assert digests == BINARY_SHA256
    means = source.images[:50_000].mean((0, 2, 3)) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=5e-5)
