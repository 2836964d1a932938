"""The records: ids, hashes and fingerprints that depend on content alone."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hubel.data.record import ArraySource, Batch, Sample, content_hash

RNG = np.random.default_rng(4)
IMAGES = RNG.integers(0, 256, (5, 1, 3, 4), dtype=np.uint8)
TARGETS = np.array([0, 1, 0, 1, 1])
PARTS = np.array(["train", "train", "test", "", "test"])


def source(rows=slice(None), classes=("a", "b"), **options):
    parts = options.pop("parts", PARTS[rows])
    return ArraySource(
        IMAGES[rows], TARGETS[rows], classes, name="x", origin="here", parts=parts, **options
    )


def test_samples_and_rows():
    made = source()
    assert len(made) == 5
    sample = made[2]
    assert isinstance(sample, Sample)
    np.testing.assert_array_equal(sample.image, IMAGES[2])
    assert (sample.target, sample.id) == (0, "test/00000")
    assert made.ids == ["train/00000", "train/00001", "test/00000", "00000", "test/00001"]
    assert made.rows("test").tolist() == [2, 4]
    assert made.rows("val").tolist() == []
    assert made.notice is None


def test_without_parts_nothing_is_assigned():
    made = ArraySource(IMAGES, TARGETS, ("a", "b"), name="x", origin="here")
    assert made.parts.tolist() == [""] * 5
    assert made.ids[4] == "00004"


@given(st.binary(max_size=99))
def test_content_hash_is_blake2b(data):
    digest = hashlib.blake2b(data, digest_size=8).digest()
    assert content_hash(data).to_bytes(8, "little") == digest


def test_hashes_of_images():
    hashes = source().hashes()
    assert hashes.dtype == np.uint64
    assert [int(h) for h in hashes] == [content_hash(image.tobytes()) for image in IMAGES]
    turned = ArraySource(np.asfortranarray(IMAGES), TARGETS, ("a", "b"), name="x", origin="here")
    np.testing.assert_array_equal(turned.hashes(), hashes)  # memory layout is not content


@given(st.permutations(range(5)))
def test_the_fingerprint_ignores_order_names_and_parts(order):
    rows = np.array(order)
    assert source(rows, parts=PARTS).fingerprint() == source().fingerprint()


@pytest.mark.parametrize("change", ["pixel", "label", "class name", "one less", "one twice"])
def test_the_fingerprint_sees_every_change_of_content(change):
    images, targets, classes = IMAGES.copy(), TARGETS.copy(), ["a", "b"]
    if change == "pixel":
        images[3, 0, 1, 1] ^= 1
    elif change == "label":
        targets[0] = 1
    elif change == "class name":
        classes[1] = "c"
    else:
        rows = [0, 1, 2, 3] + ([4, 4] if change == "one twice" else [])
        images, targets = images[rows], targets[rows]
    other = ArraySource(images, targets, classes, name="x", origin="here")
    assert other.fingerprint() != source().fingerprint()


def test_labels_swapped_between_images_change_the_fingerprint():
    swapped = ArraySource(IMAGES, TARGETS[[1, 0, 2, 3, 4]], ("a", "b"), name="x", origin="here")
    assert swapped.fingerprint() != source().fingerprint()


def test_a_batch_knows_its_length():
    batch = Batch(torch.zeros(3, 1, 2, 2), torch.zeros(3), torch.arange(3))
    assert len(batch) == 3
