"""What is seen of each image: in memory, by headers, by decoding."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hubel.data import survey as module
from hubel.data.duplicates import thumbnail
from hubel.data.files import FileSource
from hubel.data.record import ArraySource, Sample, Source
from hubel.data.survey import glance, survey
from hubel.errors import BrokenImage


@pytest.fixture
def folder(tmp_path: Path) -> FileSource:
    """Five files: RGB 20 x 30, grey 8 x 9, one black, one truncated, one of text."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(rng.integers(0, 256, (8, 9), dtype=np.uint8)).save(tmp_path / "b.png")
    Image.new("RGB", (6, 5), "navy").save(tmp_path / "c.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "d.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "e.png").write_text("not an image")
    names = ["a.png", "b.png", "c.png", "d.png", "e.png"]
    return FileSource(
        tmp_path, names, np.zeros(5, np.int64), ["x"], name="five", origin=str(tmp_path)
    )


def test_headers_tell_size_and_channels_but_not_the_body(folder: FileSource) -> None:
    seen = glance(folder)
    assert seen.shapes.tolist() == [[3, 20, 30], [1, 8, 9], [3, 5, 6], [3, 20, 30], [0, 0, 0]]
    assert list(seen.broken) == [4]
    assert "the file holds text" in seen.broken[4]
    assert seen.thumbnails is None
    assert not seen.flat.any()


def test_decoding_finds_what_headers_hide(folder: FileSource) -> None:
    heard = []
    seen = survey(folder, lambda done, total: heard.append((done, total)))
    assert sorted(seen.broken) == [3, 4]
    assert "truncated" in seen.broken[3]
    assert seen.flat.tolist() == [False, False, True, False, False]
    assert seen.shapes[:3].tolist() == [[3, 20, 30], [1, 8, 9], [3, 5, 6]]
    assert seen.thumbnails is not None
    assert np.array_equal(seen.thumbnails[1], thumbnail(folder[1].image))
    assert heard == [(done, 5) for done in range(1, 6)]


def test_sizes_are_those_of_the_files_even_where_they_decode_smaller(tmp_path: Path) -> None:
    Image.effect_noise((800, 600), 50).save(tmp_path / "big.jpg")
    source = FileSource(tmp_path, ["big.jpg"], np.zeros(1, np.int64), ["x"], name="n", origin="o")
    source.largest = 100
    assert source[0].image.shape[1] < 600
    assert survey(source).shapes.tolist() == [[1, 600, 800]]


def test_many_headers_are_sampled_evenly(
    folder: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_HEADERS", 2)
    seen = glance(folder)
    assert np.flatnonzero(seen.shapes[:, 0]).tolist() == [0]
    assert list(seen.broken) == [4]


def test_pixels_in_memory_are_looked_at() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 6, 7), dtype=np.uint8)
    images[1] = [[[5]], [[6]], [[7]]]
    source = ArraySource(images, np.zeros(4, np.int64), ["x"], name="n", origin="o")
    seen = glance(source)
    assert seen.flat.tolist() == [False, True, False, False]
    assert (seen.shapes == [3, 6, 7]).all()
    assert seen.thumbnails is not None
    assert np.array_equal(seen.thumbnails[2], thumbnail(images[2]))


def test_broken_rows_of_the_images_are_not_called_flat(folder: FileSource) -> None:
    images = torch.zeros(5, 1, 8, 8, dtype=torch.uint8)
    images[:2] = torch.arange(8, dtype=torch.uint8)
    seen = glance(folder, images, {3: BrokenImage("d.png", "truncated")})
    assert seen.flat.tolist() == [False, False, True, False, False]
    assert seen.broken[3] == "truncated"


def test_no_thumbnails_of_more_than_twenty_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_THUMBNAILS", 3)
    images = np.zeros((4, 1, 2, 2), np.uint8)
    source = ArraySource(images, np.zeros(4, np.int64), ["x"], name="n", origin="o")
    assert glance(source).thumbnails is None


class Faulty(Source):
    """A source with a fault of its own, which no check may swallow."""

    name = origin = "faulty"
    classes = ("x",)
    targets = np.zeros(3, np.int64)
    parts = np.full(3, "")
    ids = ("a", "b", "c")

    def __getitem__(self, row: int) -> Sample:
        raise ZeroDivisionError

    def hashes(self) -> np.ndarray:
        return np.arange(3, dtype=np.uint64)


def test_only_broken_images_are_caught() -> None:
    with pytest.raises(ZeroDivisionError):
        survey(Faulty())
    assert glance(Faulty()).shapes.sum() == 0
