"""Windows and whole images: the mask stays with its image, and every batch can be made again."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_pieces import Listed, numbered, placed
from scipy.ndimage import gaussian_filter

from hubel.data.augment import Augment
from hubel.data.feed import Feed
from hubel.data.mask_feed import MaskFeed, open_mask_store
from hubel.data.mask_store import MemoryMaskStore, StreamMaskStore
from hubel.data.masks.record import IGNORE
from hubel.data.preprocess import Preprocess
from hubel.errors import OptionError

CPU = torch.device("cpu")
MANY = [(30, 41), (25, 25), (20, 60), (33, 24), (50, 40), (24, 29), (31, 31), (40, 22)]
ALL = "flip,vflip,shift=2,rotate=40,scale=0.3,elastic=2,erase=6,jitter=0.3"


def made(fit="same", height=20, width=16, channels=3):
    return Preprocess(channels, height, width, fit, (0.5,) * channels, (0.25,) * channels)


def feed_of(source, preprocess=None, store=None, weigh=None, augment="none", **words):
    store = store or MemoryMaskStore(source, preprocess or made(), CPU, weigh)
    words = {"rows": torch.arange(len(source)), "batch": 4, "shuffle": True, **words}
    return MaskFeed(store, device=CPU, augment=Augment.parse(augment), **words)


def same(one, other):
    return (
        one.images.equal(other.images)
        and one.targets.equal(other.targets)
        and one.rows.equal(other.rows)
        and one.number == other.number
    )


def all_same(ones, others):
    return all(same(one, other) for one, other in zip(ones, others, strict=True))


# Windows -------------------------------------------------------------------------------------


def slices(image, top, left, down, across, window=(20, 16)):
    """NumPy's window of (..., H, W), mirrored where asked."""
    piece = image[..., top : top + window[0], left : left + window[1]]
    return piece[..., :: -1 if down else 1, :: -1 if across else 1]


@pytest.mark.parametrize("words", ["none", "flip", "vflip", "flip,vflip"])
def test_cuts_and_flips_are_numpys_slices_bit_by_bit(words):
    source = numbered(*MANY)
    feed = feed_of(source, augment=words, windows=6)
    flips = set()
    for batch in feed.batches(1):
        assert batch.images.shape == (4, 3, 20, 16)
        assert batch.targets.shape == (4, 20, 16)
        assert batch.targets.dtype == torch.int64
        for row, image, mask in zip(batch.rows, feed.seen(batch), batch.targets, strict=True):
            pixels = image.numpy()
            down, across = pixels[0, 0, 0] > pixels[0, 1, 0], pixels[1, 0, 0] > pixels[1, 0, 1]
            top, left = pixels[0].min(), pixels[1].min()
            flips.add((bool(down), bool(across)))
            whole, labels = source.pairs[row]
            np.testing.assert_array_equal(pixels, slices(whole, top, left, down, across))
            np.testing.assert_array_equal(mask.numpy(), slices(labels, top, left, down, across))
    assert len(flips) == 2 ** len([word for word in words.split(",") if word != "none"])


def test_every_window_is_as_likely():
    feed = feed_of(numbered((23, 18)), windows=2400, batch=100)
    corners = Counter(
        (int(image[0, 0, 0]), int(image[1, 0, 0]))
        for batch in feed.batches()
        for image in feed.seen(batch)
    )
    assert sorted(corners) == [(y, x) for y in range(4) for x in range(3)]
    counts = np.array(list(corners.values()))
    assert ((counts - 200) ** 2 / 200).sum() < 31.3  # chi-square, 11 degrees, p = 0.001


def waves(height, width, seed):
    """Soft islands: a mask of 0 and 1, and it again as grey values 20 and 220."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    mask = (gaussian_filter(noise, 4) > 0).astype(np.uint8)
    return (20 + 200 * mask)[None], mask


@settings(max_examples=40, deadline=None)
@given(
    words=st.sampled_from(
        ["rotate=180", "scale=0.5", "elastic=3", "flip,rotate=20", "vflip,shift=5", ALL]
    ),
    fit=st.sampled_from(["same", "stretch", "pad"]),
    seed=st.integers(0, 1000),
)
def test_image_and_mask_move_as_one(words, fit, seed):
    """Bilinear values that are pure come from pixels of that one label: the nearest has it too."""
    source = Listed([waves(70, 60, 1), waves(64, 90, 2), waves(48, 48, 3)], ("sea", "land"))
    words = words.removesuffix(",erase=6,jitter=0.3")  # which move nothing
    preprocess = made(fit, 48, 40, channels=1)
    feed = feed_of(source, preprocess, augment=words, windows=2, seed=seed)
    pure = 0
    for batch in feed.batches():
        values, labels = feed.seen(batch)[:, 0], batch.targets
        assert not (((values == 20) & (labels == 1)) | ((values == 220) & (labels == 0))).any()
        pure += int((((values == 20) | (values == 220)) & (labels != IGNORE)).sum())
    assert pure > 0.5 * 6 * 48 * 40 * (0.4 if fit == "pad" else 1)


@pytest.mark.parametrize("words", ["rotate=30", "elastic=4", "flip,vflip", ALL])
def test_weights_stay_with_their_labels(words):
    feed = feed_of(numbered(*MANY), weigh=lambda mask: 0.5 + mask.astype(np.float32), augment=words)
    for batch in feed.batches():
        assert batch.targets.dtype == torch.float32
        assert batch.targets.shape == (4, 2, 20, 16)
        labels, weights = batch.targets.unbind(1)
        assert weights.equal(labels + 0.5)
        assert set(labels.unique().tolist()) == {0, 1, 2}


@pytest.mark.parametrize("words", ["jitter=0.4", "erase=9", "erase=9,jitter=0.4"])
def test_colour_and_erasing_leave_the_labels(words):
    source = numbered(*MANY)
    for base in ("flip", "flip,rotate=30,elastic=2"):
        plain = feed_of(source, augment=base)
        changed = feed_of(source, augment=f"{base},{words}")
        for one, other in zip(plain.batches(), changed.batches(), strict=True):
            assert one.targets.equal(other.targets)
            assert not one.images.equal(other.images)


def test_turned_windows_mirror_what_lies_outside_with_its_labels():
    """All of an image that is as large as its window: 45 degrees bring in every corner."""
    feed = feed_of(numbered((20, 16)), augment="rotate=180", windows=16)
    for batch in feed.batches():
        assert (batch.targets < 3).all()


@pytest.mark.parametrize("words", ["none", "flip,vflip"])
@pytest.mark.parametrize("size", [(7, 9), (20, 5), (30, 9), (6, 40), (1, 1)])
def test_images_smaller_than_the_window_are_learnt_from_once(size, words):
    feed = feed_of(numbered(size), augment=words, windows=12)
    shown = min(size[0], 20) * min(size[1], 16)
    corners = set()
    for batch in feed.batches():
        assert ((batch.targets != IGNORE).sum((1, 2)) == shown).all()
        for image, mask in zip(feed.seen(batch).long(), batch.targets, strict=True):
            y, x = image[0], image[1]  # also of the mirrored pixels
            assert (y < size[0]).all()
            assert (x < size[1]).all()
            known = mask != IGNORE
            assert mask[known].equal((y + 2 * x)[known] % 3)
            rows, columns = torch.where(known)
            corners.add((int(rows.min()), int(columns.min())))
    assert len(corners) > 2


def test_a_smaller_image_that_is_turned_has_labels_on_its_own_area_alone():
    """9 x 9 pixels about the window's middle or beside it, never twice; mirrored they fill it."""
    feed = feed_of(numbered((9, 9)), augment="rotate=180", windows=64)
    areas = torch.cat([(batch.targets != IGNORE).sum((1, 2)) for batch in feed.batches()])
    assert areas.max() <= 81 + 9  # what rounding adds along the border
    assert areas.float().mean() > 60  # some of it is turned out of the window


def test_an_epoch_shows_each_image_as_often_as_asked():
    feed = feed_of(numbered(*MANY), windows=5, batch=8)
    orders = []
    for epoch in (0, 1):
        rows = torch.cat([batch.rows for batch in feed.batches(epoch)])
        assert Counter(rows.tolist()) == dict.fromkeys(range(8), 5)
        orders.append(rows.tolist())
    assert orders[0] != orders[1]


@pytest.mark.parametrize(
    ("images", "windows", "sizes"),
    [(8, 8, [8] * 8), (11, 6, [8] * 8), (5, 4, [8, 8, 4]), (17, 1, [8, 8]), (1, 1, [1])],
)
def test_the_last_batch_follows_the_rule_of_all_feeds(images, windows, sizes):
    feed = feed_of(numbered(*[(20, 16)] * images), windows=windows, batch=8)
    assert [len(batch) for batch in feed.batches()] == sizes
    assert len(feed) == len(sizes)


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_fitted_images_are_windows_themselves(fit):
    source = numbered(*MANY)
    preprocess = made(fit)
    feed = feed_of(source, preprocess)
    for batch in feed.batches():
        for row, image, mask in zip(batch.rows, feed.seen(batch), batch.targets, strict=True):
            pixels, labels = source.pairs[row]
            np.testing.assert_array_equal(image.numpy(), preprocess.image(pixels))
            np.testing.assert_array_equal(mask.numpy(), preprocess.mask(labels))


def test_shift_moves_image_and_mask_and_mirrors_what_comes_in():
    feed = feed_of(numbered((20, 16)), made("stretch"), augment="shift=3", windows=32)
    image, mask = placed(20, 16)
    padded = [np.pad(a, ((0, 0), (3, 3), (3, 3)), mode="symmetric") for a in (image, mask[None])]
    seen = set()
    for batch in feed.batches():
        for pixels, labels in zip(feed.seen(batch), batch.targets, strict=True):
            matches = [
                (y, x)
                for y in range(7)
                for x in range(7)
                if (slices(padded[0], y, x, False, False) == pixels.numpy()).all()
            ]
            ((y, x),) = matches
            np.testing.assert_array_equal(labels, slices(padded[1], y, x, False, False)[0])
            seen.add((y, x))
    assert len(seen) > 20


# Addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["none", "flip,shift=2", ALL])
def test_the_same_batch_again_and_others_elsewhere(words):
    source = numbered(*MANY)
    feed = feed_of(source, augment=words, windows=3)
    first = list(feed.batches(2))
    assert all_same(first, feed.batches(2))
    assert all_same(first, feed_of(source, augment=words, windows=3).batches(2))
    assert all_same(first[3:], feed.batches(2, skip=3))
    for other in (feed.batches(1), feed_of(source, augment=words, windows=3, seed=1).batches(2)):
        assert not any(one.images.equal(two.images) for one, two in zip(first, other, strict=True))


def test_places_differ_by_seed_epoch_batch_and_process():
    source = numbered((200, 200))

    def places(seed=0, epoch=0, skip=0, rank=0):
        feed = feed_of(source, windows=64, batch=16, seed=seed, rank=rank, world=2)
        return feed.seen(next(feed.batches(epoch, skip)))[:, :2, 0, 0].flatten().tolist()

    found = [places(), places(seed=1), places(epoch=1), places(skip=1), places(rank=1)]
    assert all(one != other for k, one in enumerate(found) for other in found[:k])


@pytest.mark.parametrize("late", [(), (3, 6)])
def test_stream_and_memory_feed_the_same(late):
    sizes = [*MANY, None, (40, 40)]
    made_of = {
        "augment": ALL,
        "windows": 2,
        "weigh": lambda mask: mask.astype(np.float32),
    }
    memory = feed_of(numbered(*sizes, late=late), **made_of)
    stream = feed_of(
        numbered(*sizes, late=late),
        store=StreamMaskStore(numbered(*sizes, late=late), made(), 2, made_of["weigh"]),
        **made_of,
    )
    for epoch in (0, 1):
        assert all_same(list(memory.batches(epoch)), stream.batches(epoch))
    assert memory.store.broken.keys() == stream.store.broken.keys() == {8, *late}
    judged = [replace(feed, shuffle=False) for feed in (memory, stream)]
    assert all_same(list(judged[0].batches()), judged[1].batches())


def test_a_broken_pair_leaves_the_others_as_they_were():
    whole, broken = (
        feed_of(numbered(*MANY, late=late), augment="flip,rotate=30", windows=2)
        for late in ((), (5,))
    )
    for one, other in zip(whole.batches(), broken.batches(), strict=True):
        kept = one.rows != 5
        assert one.rows[kept].equal(other.rows)
        assert one.targets[kept].equal(other.targets)
        # The border that comes in with the windows is that of the batch: sums are rounded anew.
        difference = (whole.seen(one)[kept].int() - broken.seen(other).int()).abs()
        assert difference.max() <= 1


def test_processes_share_each_batch():
    source = numbered(*[(30, 30)] * 16)
    alone = list(feed_of(source, batch=8, augment="flip").batches())
    feeds = [feed_of(source, batch=8, augment="flip", rank=r, world=2) for r in (0, 1)]
    for one, left, right in zip(alone, *(list(feed.batches()) for feed in feeds), strict=True):
        assert len(left) == len(right) == 4
        assert left.rows.equal(one.rows[::2])
        assert right.rows.equal(one.rows[1::2])
        assert left.images.equal(one.images[::2])  # the windows that one process would have
        assert right.targets.equal(one.targets[1::2])
    firsts = [feed.seen(next(feed.batches()))[:, :2, 0, 0].tolist() for feed in feeds]
    assert firsts[0] != firsts[1]


# Judging -------------------------------------------------------------------------------------

ROWS = [(20, 16), (20, 16), (9, 30), (9, 30), None, (9, 30), (80, 50), (80, 50), (20, 16)]


def test_judged_images_are_whole_and_share_batches_with_equal_neighbours():
    """A batch holds 4 images at most, and no more than 4 windows of 320 pixels."""
    source = numbered(*ROWS)
    feed = feed_of(source, shuffle=False, windows=3)
    batches = list(feed.batches())
    assert [batch.rows.tolist() for batch in batches] == [[0, 1], [2, 3, 5], [6], [7], [8]]
    assert [batch.number for batch in batches] == list(range(len(feed)))
    for batch in batches:
        for row, image, mask in zip(batch.rows, feed.seen(batch), batch.targets, strict=True):
            np.testing.assert_array_equal(image.numpy(), source.pairs[row][0])
            np.testing.assert_array_equal(mask.numpy(), source.pairs[row][1])
    assert all_same(batches[2:], feed.batches(skip=2))


def test_as_many_as_the_batch_says():
    feed = feed_of(numbered(*[(5, 5)] * 10), shuffle=False)
    assert [len(batch) for batch in feed.batches()] == [4, 4, 2]


def test_judged_rows_are_shared_among_processes():
    source = numbered(*ROWS)
    found = [
        [batch.rows.tolist() for batch in feed_of(source, shuffle=False, rank=r, world=2).batches()]
        for r in (0, 1)
    ]
    assert found == [[[0], [2, 5], [6], [7], [8]], [[1], [3]]]


def test_judged_weights():
    feed = feed_of(numbered((9, 8)), shuffle=False, weigh=lambda mask: mask.astype(np.float32) + 1)
    (batch,) = feed.batches()
    assert batch.targets.shape == (1, 2, 9, 8)
    assert batch.targets[:, 1].equal(batch.targets[:, 0] + 1)


def test_normalised_values():
    feed = feed_of(numbered((9, 8)), shuffle=False)
    (batch,) = feed.batches()
    expected = (torch.from_numpy(placed(9, 8)[0]).double() / 255 - 0.5) / 0.25
    torch.testing.assert_close(batch.images[0].double(), expected, rtol=1e-6, atol=1e-6)


# Words ---------------------------------------------------------------------------------------


def test_a_mask_feed_is_a_feed_and_can_be_replaced():
    feed = feed_of(numbered(*MANY))
    assert isinstance(feed, Feed)
    assert feed.classes == 3
    some = replace(feed, rows=feed.rows[:2], shuffle=False, batch=1)
    assert [batch.rows.tolist() for batch in some.batches()] == [[0], [1]]


def test_mixup_is_refused():
    with pytest.raises(OptionError, match="mixup blends labels of whole images.*'flip,mixup=0.2'"):
        feed_of(numbered(*MANY), augment="flip,mixup=0.2")


def test_windows_are_at_least_one():
    with pytest.raises(OptionError, match="windows must be 1 or more, given 0"):
        feed_of(numbered(*MANY), windows=0)


def test_nothing_whole_gives_no_batch():
    for shuffle in (True, False):
        feed = feed_of(numbered(None, None), shuffle=shuffle)
        assert list(feed.batches()) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("words", ["flip,vflip,shift=2,erase=3", ALL])
@pytest.mark.parametrize("held", ["memory", "stream"])
def test_cuda_sees_the_same_windows(words, held):
    source = Listed([waves(70, 60, 1), waves(64, 90, 2)] * 8, ("sea", "land"))
    cuda, preprocess = torch.device("cuda"), made("same", 48, 40, channels=1)
    before = feed_of(source, preprocess, augment=words)
    store = open_mask_store(source, preprocess, cuda)
    if held == "stream":
        store = StreamMaskStore(source, preprocess, 1)
    torch.set_float32_matmul_precision("high")  # TensorFloat32, which must not move pixels
    try:
        after = list(replace(before, store=store, device=cuda).batches())
    finally:
        torch.set_float32_matmul_precision("highest")
    for one, other in zip(before.batches(), after, strict=True):
        assert other.images.is_cuda
        assert other.targets.is_cuda
        difference = (before.seen(one).int() - before.seen(other).int()).abs()
        assert (difference > 1).float().mean() < (1e-3 if "rotate" in words else 1e-9)
        assert (one.targets != other.targets.cpu()).float().mean() < 1e-3
