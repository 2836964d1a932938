"""Stores of masks: what is asked for comes, from memory or from workers; broken pairs are named."""

import numpy as np
import pytest
import torch
from mask_pieces import numbered

from hubel.data.mask_store import MemoryMaskStore, StreamMaskStore, open_mask_store
from hubel.data.masks.record import IGNORE
from hubel.data.preprocess import Preprocess
from hubel.errors import DataError, OptionError

CPU = torch.device("cpu")
SIZES = [(9, 12), (20, 7), None, (9, 12), (5, 5)]
THIRDS = (0.5, 0.5, 0.5)


def made(fit="same", height=6, width=8):
    return Preprocess(3, height, width, fit, THIRDS, THIRDS)


def weigh(mask):
    return mask.astype(np.float32) / 2 + 1


def memory(source, preprocess, weigh=None):
    return MemoryMaskStore(source, preprocess, CPU, weigh)


def stream(source, preprocess, weigh=None):
    return StreamMaskStore(source, preprocess, 2, weigh)


@pytest.mark.parametrize("make", [memory, stream])
@pytest.mark.parametrize("fit", ["same", "stretch", "pad"])
def test_pairs_come_as_asked(make, fit):
    source, preprocess = numbered(*SIZES), made(fit)
    store = make(source, preprocess, weigh)
    for _ in range(2):  # workers are asked again
        found = list(store.pairs([4, 0, 2, 1, 0]))
        assert [pair and pair.row for pair in found] == [4, 0, None, 1, 0]
        for pair in found:
            if pair is None:
                continue
            sample = source[pair.row]
            np.testing.assert_array_equal(pair.image.numpy(), preprocess.image(sample.image))
            np.testing.assert_array_equal(pair.mask.numpy(), preprocess.mask(sample.target))
            assert pair.weight is not None
            assert pair.weight.equal(pair.mask / 2 + 1)
            assert pair.size == tuple(pair.image.shape[1:]) == store.size(pair.row)
    assert list(store.broken) == [2]
    assert "002: is broken" in str(store.broken[2])


def test_a_stream_can_be_left_and_taken_up():
    store = stream(numbered(*[(6, 8)] * 12), made())
    assert next(store.pairs(range(12))).row == 0
    assert [pair.row for pair in store.pairs([5, 6])] == [5, 6]


def test_sizes_are_known_before_images_are_read():
    store = StreamMaskStore(numbered(*SIZES), made(), 0)
    assert [store.size(row) for row in range(5)] == SIZES
    assert list(store.broken) == [2]
    padded = StreamMaskStore(numbered(*SIZES), made("pad"), 0)
    assert padded.size(1) == (6, 8)


@pytest.mark.parametrize("asked_first", [True, False])
def test_sizes_do_not_change_by_what_was_decoded(asked_first):
    """Processes that have decoded different images must cut the same batches."""
    store = StreamMaskStore(numbered((5, 6), (7, 8), None, late=[1]), made(), 0)
    sizes = [(5, 6), (7, 8), None]
    if asked_first:
        assert [store.size(row) for row in range(3)] == sizes
    assert [pair is None for pair in store.pairs([0, 1, 2])] == [False, True, True]
    assert store.broken.keys() == {1, 2}
    assert [store.size(row) for row in range(3)] == sizes


def test_padding_has_no_label():
    (pair,) = memory(numbered((6, 4)), made("pad")).pairs([0])
    assert (pair.mask[:, [0, 1, 6, 7]] == IGNORE).all()
    assert (pair.mask[:, 2:6] < 3).all()


def test_fetch_gives_images_alone_of_one_size():
    store = memory(numbered(*SIZES), made())
    [(images, rows)] = store.fetch([torch.tensor([3, 2, 0])])
    assert images.shape == (2, 3, 9, 12)
    assert rows.tolist() == [3, 0]
    [(images, rows)] = store.fetch([torch.tensor([2])])
    assert len(images) == len(rows) == 0
    with pytest.raises(DataError, match=r"of one size .*\(9, 12\), \(20, 7\)"):
        next(store.fetch([torch.tensor([0, 1])]))


def test_memory_when_small_and_stream_when_large(monkeypatch):
    """9 x 12, 20 x 7 and so on are 108 + 140 + 108 + 25 pixels of four whole images; with the
    broken one about 476, of 4 bytes each, 8 with weights."""
    source = numbered(*SIZES)
    for limit, weights, kind in (
        (1906, None, MemoryMaskStore),
        (1904, None, StreamMaskStore),
        (3811, weigh, MemoryMaskStore),
        (3809, weigh, StreamMaskStore),
    ):
        monkeypatch.setattr("hubel.data.mask_store.MEMORY_LIMIT", limit)
        store = open_mask_store(source, made(), CPU, weigh=weights, workers=0)
        assert type(store) is kind
        assert store.weighed == (weights is not None)
    monkeypatch.setattr("hubel.data.mask_store.MEMORY_LIMIT", 5 * 6 * 8 * 4 - 1)
    assert type(open_mask_store(source, made("pad"), CPU, workers=0)) is StreamMaskStore


def test_progress_counts_every_pair():
    told = []
    open_mask_store(numbered(*SIZES), made(), CPU, progress=lambda *done: told.append(done))
    assert told == [(k + 1, 5) for k in range(5)]


def test_crop_is_refused():
    with pytest.raises(OptionError, match="fit 'crop' cuts borders off"):
        open_mask_store(numbered(*SIZES), made("crop"), CPU)
