"""Stores: memory where images fit, a stream where not; both give the same bytes."""

import numpy as np
import pytest
import torch
from PIL import Image

from hubel.data.files import FileSource
from hubel.data.preprocess import Preprocess
from hubel.data.record import ArraySource
from hubel.data.store import MemoryStore, StreamStore, open_store
from hubel.errors import OptionError

CPU = torch.device("cpu")
PLAIN = Preprocess(1, 6, 5, "stretch", (0.5,), (0.25,))


@pytest.fixture
def folder(tmp_path):
    """12 PNG files of noise; number 7 is cut short."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{k:02d}.png" for k in range(12)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (6, 5), dtype=np.uint8)).save(path)
    paths[7].write_bytes(paths[7].read_bytes()[:40])
    names = [path.name for path in paths]
    return FileSource(tmp_path, names, np.zeros(12, np.int64), ("a",), name="f", origin="f")


def test_store_is_memory_when_small_and_stream_when_large(monkeypatch, folder):
    assert isinstance(open_store(folder, PLAIN, CPU), MemoryStore)
    monkeypatch.setattr("hubel.data.store.MEMORY_LIMIT", 100)
    assert isinstance(open_store(folder, PLAIN, CPU, workers=0), StreamStore)


def test_images_of_the_right_shape_are_not_copied():
    images = np.zeros((3, 1, 6, 5), np.uint8)
    source = ArraySource(images, np.arange(3), ("a", "b", "c"), name="n", origin="n")
    assert MemoryStore(source, PLAIN, CPU).images.data_ptr() == images.ctypes.data


@pytest.mark.parametrize("make", [MemoryStore, lambda s, p, d: StreamStore(s, p, workers=1)])
def test_rows_come_as_asked_without_the_broken(folder, make):
    store = make(folder, PLAIN, CPU)
    order = [torch.tensor([3, 7, 0]), torch.tensor([11, 11])]
    found = list(store.fetch(order))
    assert [rows.tolist() for _, rows in found] == [[3, 0], [11, 11]]
    for images, rows in found:
        expected = np.stack([folder[row].image for row in rows.tolist()])
        np.testing.assert_array_equal(images.numpy(), expected)
    assert list(store.broken) == [7]
    assert "07.png" in str(store.broken[7])
    assert store.broken[7].__traceback__ is None  # it would keep its frames alive, with all in them


def test_progress_counts_every_image(folder):
    told = []
    open_store(folder, PLAIN, CPU, progress=lambda done, of: told.append((done, of)))
    assert told == [(k + 1, 12) for k in range(12)]


def test_images_of_many_sizes_are_refused_where_each_has_one_label(folder):
    preprocess = Preprocess(1, 6, 5, "same", (0.5,), (0.25,))
    with pytest.raises(OptionError, match="fit 'same' is for masks.* allowed: stretch, crop, pad"):
        open_store(folder, preprocess, CPU)
