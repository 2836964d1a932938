"""FileSource: small, quick to send, and true to its files."""

import pickle
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hubel.data.files import FileSource, Names
from hubel.data.record import content_hash
from hubel.errors import BrokenImage


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12)))
def test_names_are_a_list_of_text(words):
    names = Names(words)
    assert list(names) == words
    assert len(names) == len(words)
    assert names[1:-1] == words[1:-1]
    assert pickle.loads(pickle.dumps(names))[::-1] == words[::-1]


def test_names_count_from_the_end_and_check():
    names = Names(["a", "bc"])
    assert names[-1] == "bc"
    with pytest.raises(IndexError):
        names[2]


def test_names_keep_bytes_that_are_no_utf8():
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    assert Names([name])[0] == name


@pytest.fixture
def source(tmp_path):
    for number, colour in enumerate([(255, 0, 0), (0, 255, 0), (255, 0, 0)]):
        Image.new("RGB", (5, 3), colour).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_bytes(b"")
    return FileSource(
        tmp_path,
        ["0.png", "1.png", "2.png", "bad.png", "gone.png"],
        np.array([0, 1, 0, 1, 1]),
        ["red", "green"],
        name="dots",
        origin=str(tmp_path),
    )


def test_samples(source):
    assert len(source) == 5
    assert source[1].image[:, 0, 0].tolist() == [0, 255, 0]
    assert (source[1].target, source[1].id) == (1, "1.png")
    assert source.path(1) == source.root / "1.png"
    assert source.parts.tolist() == [""] * 5
    for row, reason in ((3, "bad.png: the file is empty"), (4, "gone.png: no such file")):
        with pytest.raises(BrokenImage, match=reason):
            source[row]


def test_hashes_are_of_the_bytes(source, monkeypatch):
    expected = [content_hash(source.path(row).read_bytes()) for row in range(4)]
    hashes = source.hashes()
    assert hashes.dtype == np.uint64
    assert hashes[:4].tolist() == expected
    assert hashes[0] == hashes[2] != hashes[1]
    source.path(0).unlink()
    assert source.hashes() is hashes  # kept


def test_hashes_of_many_chunks_stay_in_order(source, monkeypatch):
    whole = source.hashes()
    source._hashes = None
    monkeypatch.setattr("hubel.data.files.CHUNK", 2)
    np.testing.assert_array_equal(source.hashes(), whole)


def test_the_fingerprint_knows_content_not_names(source):
    before = source.fingerprint()
    for row in range(3):
        source.path(row).rename(source.root / f"new{row}.png")
    order = [2, 1, 0, 3, 4]
    ids = [f"new{row}.png" if row < 3 else source.ids[row] for row in order]
    moved = FileSource(
        source.root, ids, source.targets[order], source.classes, name="other", origin="there"
    )
    assert moved.fingerprint() == before
    relabelled = FileSource(
        source.root, ids, 1 - source.targets[order], source.classes, name="x", origin="x"
    )
    assert relabelled.fingerprint() != before


def test_largest_reaches_the_decoder(source):
    Image.new("RGB", (640, 480)).save(source.root / "0.png", "JPEG")
    assert source[0].image.shape == (3, 480, 640)
    source.largest = 60
    assert source[0].image.shape == (3, 60, 80)


def test_100_000_files_stay_small(tmp_path):
    count = 100_000
    ids = (f"class{n % 100}/image-{n:06d}.jpg" for n in range(count))
    source = FileSource(
        tmp_path, ids, np.arange(count) % 100, [str(n) for n in range(100)], name="x", origin="x"
    )
    sent = pickle.dumps(source)
    assert len(sent) < 7e6
    assert source.ids[99_999] == "class99/image-099999.jpg"
    # No object per image: what the collector and the reference counts touch stays shared.
    assert sys.getsizeof(source.ids._text) + source.ids._ends.nbytes < 4e6
