"""Named sets: where they are looked for, what is fetched, and what happens without a network."""

import dataclasses
import gzip
import hashlib
import importlib.util
import io
import struct
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from hubel.data import named
from hubel.data.duplicates import near_duplicates, thumbnail
from hubel.data.fetch import Remote, Unreachable
from hubel.data.named import catalogue, find, get, open_named, open_sample
from hubel.data.sets import SETS
from hubel.errors import DataError

DEBIAN = named.DEBIAN
needs_debian = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """An empty cache, and no package of Debian's."""
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(named, "DEBIAN", tmp_path / "debian")
    return tmp_path / "cache/data"


def mnist_like(packed=True):
    """The four files of a set of ten classes: name -> content."""
    files = {}
    for part, count in (("train", 20), ("t10k", 10)):
        images = bytes([0, 0, 8, 3]) + struct.pack(">3I", count, 28, 28) + bytes(count * 784)
        labels = bytes([0, 0, 8, 1]) + struct.pack(">I", count) + bytes(range(10)) * (count // 10)
        files[f"{part}-images-idx3-ubyte"] = images
        files[f"{part}-labels-idx1-ubyte"] = labels
    return {f"{k}.gz": gzip.compress(v) for k, v in files.items()} if packed else files


def point(monkeypatch, name, files, urls):
    """Let the set `name` consist of `files`, to be had at `urls`: file name -> addresses."""
    remotes = tuple(
        Remote(file, len(content), hashlib.sha256(content).hexdigest(), tuple(urls[file]))
        for file, content in files.items()
    )
    monkeypatch.setitem(SETS, name, dataclasses.replace(SETS[name], remotes=remotes))


def dead_ends(monkeypatch, name):
    urls = {remote.name: ["http://127.0.0.1:9/x"] for remote in SETS[name].remotes}
    files = {remote.name: b"never sent" for remote in SETS[name].remotes}
    point(monkeypatch, name, files, urls)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_a_download_fills_the_cache_and_is_then_found(alone, mirror, monkeypatch, name):
    files = mnist_like()
    servers = {file: mirror(content) for file, content in files.items()}
    point(monkeypatch, name, files, {file: [server.url] for file, server in servers.items()})
    assert find(name) is None
    seen = []
    source = open_named(name, lambda file, done, total: seen.append(file))
    assert list(dict.fromkeys(seen)) == list(files)
    assert (source.name, source.notice) == (name, None)
    assert source.classes == SETS[name].classes
    assert source.parts.tolist() == ["train"] * 20 + ["test"] * 10
    assert find(name) == get(name) == alone / name
    assert all(len(server.asked) == 1 for server in servers.values())


def test_cifar_is_fetched_and_read_from_its_archive(
    alone, mirror, monkeypatch, small_cifar, tmp_path
):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for file, content in small_cifar.binary10().items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{file}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    files = {"cifar-10-binary.tar.gz": stream.getvalue()}
    point(monkeypatch, "cifar10", files, {file: [mirror(c).url] for file, c in files.items()})
    source = open_named("cifar10")
    assert source.name == "cifar10"
    np.testing.assert_array_equal(source.images, small_cifar.images)


def test_files_put_into_the_cache_by_hand_are_found(alone, monkeypatch, small_cifar):
    for name, files in (("mnist", mnist_like(packed=False)), ("cifar10", small_cifar.sprites())):
        (alone / name).mkdir(parents=True)
        for file, content in files.items():
            (alone / name / file).write_bytes(content)
        assert find(name) == alone / name
        assert len(open_named(name)) in (30, 24)


def test_half_a_set_is_not_found(alone, monkeypatch):
    (alone / "mnist").mkdir(parents=True)
    for file, content in list(mnist_like().items())[:3]:
        (alone / "mnist" / file).write_bytes(content)
    assert find("mnist") is None


def test_the_cache_comes_before_debian(alone, tmp_path):
    for folder in (tmp_path / "debian", alone / "fashion-mnist"):
        assert find("fashion-mnist") in (None, tmp_path / "debian")
        folder.mkdir(parents=True)
        for file, content in mnist_like().items():
            (folder / file).write_bytes(content)
        assert find("fashion-mnist") == folder
        assert find("mnist") is None


def test_fashion_mnist_without_network_is_the_sample_said_in_one_line(monkeypatch):
    dead_ends(monkeypatch, "fashion-mnist")
    start = time.monotonic()
    source = open_named("fashion-mnist")
    assert time.monotonic() - start < 30  # the system's own patience is minutes
    assert source.name == "fashion-mnist-sample"
    assert len(source) == 7000
    assert "ONLY A SAMPLE" in source.notice
    assert "could not be downloaded" in source.notice
    assert "\n" not in source.notice
    assert open_sample().notice is None


def test_other_sets_without_network_say_what_to_do(alone, monkeypatch):
    dead_ends(monkeypatch, "mnist")
    message = (
        r"MNIST is not on this machine, and train-images-idx3-ubyte\.gz could not be downloaded .*"
        rf"connect to the network, or put train-images.*, t10k-labels.* into {alone}/mnist, or use"
    )
    with pytest.raises(Unreachable, match=message) as caught:
        open_named("mnist")
    assert "\n" not in str(caught.value)


def test_a_damaged_download_is_an_error_even_for_fashion_mnist(mirror, monkeypatch):
    files = mnist_like()
    urls = {file: [mirror(content[:-1] + b"x").url] for file, content in files.items()}
    point(monkeypatch, "fashion-mnist", files, urls)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz arrived damaged"):
        open_named("fashion-mnist")


@pytest.mark.parametrize("function", [find, get, open_named])
def test_unknown_names(function):
    with pytest.raises(DataError, match="unknown data set 'fashion': did you mean 'fashion-mnist'"):
        function("fashion")


def test_the_catalogue_names_all_and_where_they_are():
    entries = {entry.named.name: entry.found for entry in catalogue()}
    assert set(entries) == {"sample", "fashion-mnist", "mnist", "cifar10", "cifar100"}
    assert entries.pop("sample").name == "fashion-mnist-sample.npz"
    assert set(entries.values()) == {None}


def test_the_sample_is_small_balanced_and_has_no_test_image_in_train():
    source = open_named("sample")
    assert source.images.shape == (7000, 1, 28, 28)
    assert source.classes == SETS["sample"].classes
    for part, count in (("train", 600), ("test", 100)):
        assert np.bincount(source.targets[source.rows(part)]).tolist() == [count] * 10
    thumbnails = np.stack([thumbnail(image) for image in source.images])
    pairs, _ = near_duplicates(thumbnails, parts=(source.parts == "test").astype(np.int64))
    assert len(pairs) == 0
    assert find("sample").stat().st_size <= 4_000_000


def test_the_sample_carries_its_licence():
    folder = find("sample").parent
    assert "Copyright (c) 2017 Zalando SE" in (folder / "LICENSE").read_text()
    assert "Zalando Research" in (folder / "README.md").read_text()


@needs_debian
def test_the_sample_is_cut_from_the_full_set(monkeypatch):
    monkeypatch.setattr(named, "DEBIAN", DEBIAN)
    full = open_named("fashion-mnist")
    assert full.origin == f"Debian's package ({DEBIAN})"
    with np.load(find("sample")) as archive:
        for part in ("train", "test"):
            rows = archive[f"rows_{part}"]
            assert (full.parts[rows] == part).all()
            assert len(set(rows.tolist())) == len(rows)
            np.testing.assert_array_equal(archive[f"x_{part}"], full.images[rows, 0])
            np.testing.assert_array_equal(archive[f"y_{part}"], full.targets[rows])


@needs_debian
def test_the_script_makes_the_sample_again(monkeypatch, tmp_path):
    script = Path(__file__).parents[2] / "tools/make_sample.py"
    spec = importlib.util.spec_from_file_location("make_sample", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(named, "DEBIAN", DEBIAN)
    monkeypatch.setattr(module, "SAMPLE", tmp_path / "again.npz")
    module.main()
    with np.load(tmp_path / "again.npz") as again, np.load(find("sample")) as bundled:
        assert again.files == bundled.files
        for key in bundled.files:
            np.testing.assert_array_equal(again[key], bundled[key])
