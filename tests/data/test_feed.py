"""Feeds: order, skipping, sharing among processes, broken images; memory and stream alike."""

import numpy as np
import pytest
import torch
from PIL import Image

from hubel.data.augment import Augment
from hubel.data.feed import Feed
from hubel.data.files import FileSource
from hubel.data.preprocess import Preprocess
from hubel.data.record import ArraySource
from hubel.data.store import MemoryStore, StreamStore
from hubel.engine.native.views import views

CPU = torch.device("cpu")
PLAIN = Preprocess(1, 6, 5, "stretch", (0.5,), (0.25,))


def numbered(count=50):
    """Image k is all k, so that a batch tells which images it holds."""
    images = np.broadcast_to(
        np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 1, 6, 5)
    )
    return ArraySource(images.copy(), np.arange(count) % 3, ("a", "b", "c"), name="n", origin="n")


def feed_of(source, store=None, **words):
    store = store or MemoryStore(source, PLAIN, CPU)
    words = {"rows": torch.arange(len(source)), "batch": 8, **words}
    return Feed(store, targets=torch.from_numpy(source.targets), classes=3, device=CPU, **words)


def shown(feed, **words):
    """Image numbers of every batch, as the pixels tell them."""
    return [feed.seen(batch)[:, 0, 0, 0].tolist() for batch in feed.batches(**words)]


@pytest.fixture
def folder(tmp_path):
    """20 PNG files, image k all k; number 7 is cut short."""
    paths = []
    for k in range(20):
        path = tmp_path / f"{k:02d}.png"
        Image.fromarray(np.full((6, 5), k, np.uint8)).save(path)
        paths.append(path)
    paths[7].write_bytes(paths[7].read_bytes()[:40])
    return FileSource(
        tmp_path, [p.name for p in paths], np.arange(20) % 3, ("a", "b", "c"), name="f", origin="f"
    )


def test_pixels_targets_and_rows_belong_together():
    for batch in feed_of(numbered(), shuffle=True).batches(3):
        values = PLAIN.denormalise(batch.images)[:, 0, 0, 0]
        assert values.tolist() == batch.rows.tolist()
        assert batch.targets.tolist() == [k % 3 for k in batch.rows.tolist()]


def test_normalised_values():
    batch = next(feed_of(numbered()).batches())
    expected = (batch.rows.double() / 255 - 0.5) / 0.25
    torch.testing.assert_close(batch.images[:, 0, 2, 3].double(), expected, rtol=1e-6, atol=1e-6)


def test_every_image_once_an_epoch_and_another_order_each_epoch():
    feed = feed_of(numbered(48), shuffle=True)
    first, second = (sum(shown(feed, epoch=e), []) for e in (0, 1))
    assert sorted(first) == sorted(second) == list(range(48))
    assert first != second
    assert first == sum(shown(feed, epoch=0), [])


def test_skipping_gives_the_very_same_batches():
    feed = feed_of(numbered(), shuffle=True, augment=Augment(flip=True, shift=1, mixup=0.4))
    whole = list(feed.batches(2))
    for one, other in zip(whole[3:], feed.batches(2, skip=3), strict=True):
        assert one.images.equal(other.images)
        assert one.targets.equal(other.targets)
        assert one.number == other.number


@pytest.mark.parametrize("augment", [Augment(), Augment(flip=True, shift=2, erase=3)])
@pytest.mark.parametrize("skip", [0, 3])
def test_batches_made_in_stacks_are_the_very_same(monkeypatch, augment, skip):
    feed = feed_of(numbered(), shuffle=True, augment=augment)
    stacked = list(feed.batches(1, skip))
    monkeypatch.setattr("hubel.data.feed.STACKED_BATCHES", 0)
    single = list(feed.batches(1, skip))
    assert [b.number for b in stacked] == [b.number for b in single] == list(range(skip, 7))
    for one, other in zip(stacked, single, strict=True):
        assert one.images.equal(other.images)
        assert one.targets.equal(other.targets)
        assert one.rows.equal(other.rows)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("words", ["none", "flip", "shift=2", "flip,vflip,shift=9", "flip,erase=2"])
def test_a_mover_makes_the_very_same_batches(words, channels):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (60, channels, 6, 5), dtype=np.uint8)
    source = ArraySource(images, np.arange(60) % 3, ("a", "b", "c"), name="n", origin="n")
    means, deviations = (0.5, 0.41, 0.1)[:channels], (0.25, 0.3, 0.7)[:channels]
    store = MemoryStore(source, Preprocess(channels, 6, 5, "stretch", means, deviations), CPU)
    asked = []

    def mover(*given):
        asked.append(len(given[1]))
        return views(*given)

    augment = Augment.parse(words)
    for rank, world in ((0, 1), (1, 2)):
        said = {"shuffle": True, "augment": augment, "rank": rank, "world": world, "seed": 3}
        plain = feed_of(source, store, **said).batches(1, skip=2)
        moved = feed_of(source, store, **said, mover=mover).batches(1, skip=2)
        for one, other in zip(plain, moved, strict=True):
            assert one.images.equal(other.images)
            assert one.targets.equal(other.targets)
            assert one.rows.equal(other.rows)
            assert one.number == other.number
    assert asked == ([44, 22] if "erase" not in words else [])


def test_a_mover_is_not_asked_for_images_that_do_not_lie_in_order():
    source = numbered()
    source.images = np.asfortranarray(source.images)
    feed = feed_of(source, mover=lambda *given: pytest.fail("asked"))
    assert shown(feed) == shown(feed_of(numbered()))


def test_augmentation_differs_by_batch_epoch_and_seed():
    source = numbered()
    source.images[:] = np.arange(30, dtype=np.uint8).reshape(1, 1, 6, 5)
    same_pixels = [
        feed_of(source, augment=Augment(shift=2), seed=seed).batches(epoch, skip=skip)
        for seed, epoch, skip in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))
    ]
    pictures = [next(batches).images for batches in same_pixels]
    assert all(not pictures[0].equal(other) for other in pictures[1:])


@pytest.mark.parametrize(
    ("count", "shuffle", "sizes"),
    [
        (66, True, [8] * 8),  # eight full ones: the rest waits for another epoch
        (20, True, [8, 8, 4]),  # few images: all of them count
        (17, True, [8, 8]),  # never a batch of one
        (1, True, [1]),  # unless there is but one
        (66, False, [8] * 8 + [2]),  # judging sees all
    ],
)
def test_last_batch(count, shuffle, sizes):
    feed = feed_of(numbered(count), shuffle=shuffle)
    assert [len(b) for b in feed.batches()] == sizes
    assert len(feed) == len(sizes)


def test_processes_share_each_batch_without_overlap():
    feeds = [feed_of(numbered(64), shuffle=True, rank=r, world=2) for r in (0, 1)]
    alone = shown(feed_of(numbered(64), shuffle=True))
    for one, left, right in zip(alone, shown(feeds[0]), shown(feeds[1]), strict=True):
        assert len(left) == len(right) == 4
        assert sorted(left + right) == sorted(one)


@pytest.mark.parametrize("stacked", [0, 64])
@pytest.mark.parametrize("words", ["flip,shift=2,erase=3", "rotate=20,elastic=1,jitter=0.2"])
def test_processes_learn_from_the_pictures_that_one_would(monkeypatch, words, stacked):
    monkeypatch.setattr("hubel.data.feed.STACKED_BATCHES", stacked)
    source = numbered(64)
    source.images[:] = np.random.default_rng(0).integers(0, 256, source.images.shape)
    words = {"shuffle": True, "augment": Augment.parse(words), "batch": 15}
    alone = list(feed_of(source, **words).batches(1))
    shared = [list(feed_of(source, **words, rank=r, world=2).batches(1)) for r in (0, 1)]
    for one, left, right in zip(alone, *shared, strict=True):
        assert one.images[::2].equal(left.images)
        assert one.images[1::2].equal(right.images)


@pytest.mark.parametrize("make", [MemoryStore, lambda s, p, d: StreamStore(s, p, workers=2)])
def test_broken_image_is_left_out_and_named(folder, make):
    feed = feed_of(folder, make(folder, PLAIN, CPU), shuffle=True)
    values = sum(shown(feed), [])
    assert sorted(values) == [k for k in range(20) if k != 7]
    (error,) = feed.store.broken.values()
    assert list(feed.store.broken) == [7]
    assert "07.png" in str(error)


def test_a_broken_image_leaves_the_others_as_they_were(folder):
    """Their augmentation too, which hangs on their places."""
    images = np.broadcast_to(np.arange(30, dtype=np.uint8).reshape(1, 1, 6, 5), (20, 1, 6, 5))
    for k, path in enumerate(sorted(folder.root.glob("*.png"))):
        if k != 7:
            Image.fromarray(images[k, 0]).save(path)
    source = ArraySource(images.copy(), folder.targets, folder.classes, name="n", origin="n")
    words = {"shuffle": True, "augment": Augment(flip=True, shift=2)}
    broken = feed_of(folder, MemoryStore(folder, PLAIN, CPU), **words)
    for one, other in zip(feed_of(source, **words).batches(), broken.batches(), strict=True):
        assert one.images[one.rows != 7].equal(other.images)


def test_stream_and_memory_feed_the_same(folder):
    memory = feed_of(
        folder, MemoryStore(folder, PLAIN, CPU), shuffle=True, augment=Augment(shift=1)
    )
    stream = feed_of(folder, StreamStore(folder, PLAIN, 2), shuffle=True, augment=Augment(shift=1))
    for epoch in (0, 1):
        for one, other in zip(memory.batches(epoch), stream.batches(epoch), strict=True):
            assert one.images.equal(other.images)
            assert one.rows.equal(other.rows)


def test_stream_can_be_left_in_the_middle_and_taken_up_again(folder):
    feed = feed_of(folder, StreamStore(folder, PLAIN, 1))
    next(feed.batches())
    assert sum(shown(feed), []) == [k for k in range(20) if k != 7]


def test_mixup_gives_soft_targets_that_sum_to_one():
    batch = next(feed_of(numbered(), augment=Augment(mixup=1.0)).batches())
    assert batch.targets.shape == (8, 3)
    torch.testing.assert_close(batch.targets.sum(1), torch.ones(8))
