"""arrays: layouts, scales and every way in which arrays do not fit together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hubel.data import arrays
from hubel.data.arrays import source_from_arrays
from hubel.errors import DataError

RNG = np.random.default_rng(5)
IMAGES = RNG.integers(0, 256, (6, 3, 5, 7), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def source(images, labels=LABELS, **options):
    return source_from_arrays({"": (images, labels)}, titles={"": ("X", "y")}, **options)


@pytest.mark.parametrize(
    "given",
    [IMAGES, IMAGES.transpose(0, 2, 3, 1), np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1))],
)
def test_colour_layouts(given):
    got = source(given)
    np.testing.assert_array_equal(got.images, IMAGES)
    assert got.images.flags.c_contiguous
    assert got.images.flags.writeable
    assert got.classes == ("0", "1", "2")
    assert got[4].target == 1
    assert got[4].id == "00004"


@pytest.mark.parametrize("given", [IMAGES[:, 0], IMAGES[:, :1], IMAGES[:, 0, :, :, None]])
def test_grey_layouts(given):
    np.testing.assert_array_equal(source(given).images, IMAGES[:, :1])


@pytest.mark.parametrize("dtype", ["i2", "i8", "u2", ">i4", "f4", "f8"])
def test_0_to_255_in_any_type(dtype):
    np.testing.assert_array_equal(source(IMAGES.astype(dtype)).images, IMAGES)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_0_to_1_comes_back_bit_for_bit(dtype):
    np.testing.assert_array_equal(source((IMAGES / 255).astype(dtype)).images, IMAGES)


def test_bool_is_black_and_white():
    np.testing.assert_array_equal(source(IMAGES > 99).images, (IMAGES > 99) * 255)


def test_a_little_overshoot_of_resizing_is_still_0_to_1():
    images = (IMAGES / 255).astype("f4")
    images[0, 0, 0, :2] = 1.0002, -0.0002
    got = source(images).images
    assert got[0, 0, 0, :2].tolist() == [255, 0]
    np.testing.assert_array_equal(got[1:], IMAGES[1:])


def test_one_scale_for_all_parts():
    dark = np.full((2, 5, 7), 1.0)  # within 0..1, but its partner shows that 255 is white
    parts = {"train": (np.full((2, 5, 7), 200.0), [0, 1]), "test": (dark, [0, 1])}
    parts = {part: (x, np.array(y)) for part, (x, y) in parts.items()}
    got = source_from_arrays(parts, titles={"train": ("a", "b"), "test": ("c", "d")})
    assert got.images[2:].max() == 1
    assert got.parts.tolist() == ["train", "train", "test", "test"]
    assert got.ids == ["train/00000", "train/00001", "test/00000", "test/00001"]


def test_chunks_change_nothing(monkeypatch):
    whole = source(IMAGES / 255).images
    monkeypatch.setattr(arrays, "CHUNK", 2 * 105)
    np.testing.assert_array_equal(source(IMAGES / 255).images, whole)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_nan_or_infinity_is_named(value, monkeypatch):
    monkeypatch.setattr(arrays, "CHUNK", 105)  # one image at a time
    images = IMAGES / 255
    images[4, 2, 3, 6] = images[5, 0, 0, 0] = value
    message = f"X: image 4 has {value} at channel 2, row 3, column 6; allowed: finite numbers"
    with pytest.raises(DataError, match=message):
        source(images)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES[:5], LABELS, "X: 5 images, but y: 6 labels"),
        (IMAGES, np.array(3), "X: 6 images, but y: 0 labels"),
        (IMAGES[:, :2], LABELS, r"X: images must be .* with C = 1 or 3, given \(6, 2, 5, 7\)"),
        (IMAGES.reshape(6, -1), LABELS, r"given \(6, 105\)"),
        (IMAGES[:0], LABELS[:0], r"given \(0, 3, 5, 7\)"),
        (IMAGES.astype("c8"), LABELS, "X: pixels must be numbers, given complex64"),
        (IMAGES - 128.0, LABELS, r"X: pixels run from -128 to 127; allowed: integers 0\.\.255"),
        (IMAGES.astype("u2") * 16, LABELS, "X: pixels run from .* to 4080; allowed"),
        (IMAGES, np.zeros(6, int), "at least two classes are needed, given only '0'"),
    ],
)
def test_bad_arrays(images, labels, message):
    with pytest.raises(DataError, match=message):
        source(images, labels)


def test_parts_of_different_shape():
    parts = {"train": (IMAGES, LABELS), "test": (IMAGES[..., :6], LABELS)}
    with pytest.raises(DataError, match=r"one shape .* a \(3, 5, 7\), c \(3, 5, 6\)"):
        source_from_arrays(parts, titles={"train": ("a", "b"), "test": ("c", "d")})


def test_read_only_arrays_are_copied():
    frozen = IMAGES.copy()
    frozen.flags.writeable = False
    got = source(frozen).images
    got[0] = 0
    assert frozen[0].any()


@given(hnp.arrays("f4", (3, 4, 2), elements=st.floats(0, 255, width=32)))
def test_floats_round_to_the_nearest_byte(images):
    got = source(images, np.array([0, 1, 2])).images[:, 0]
    scale = 1 if images.max() > 1.001 else 255
    assert (abs(got - images.astype(float) * scale) <= 0.5 + 0.255).all()
