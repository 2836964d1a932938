"""The parsers of CIFAR's forms: all forms of one set give the same images and labels."""

import io
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from hubel.data.cifar_forms import FORMS, form_of
from hubel.errors import DataError

MAKERS = {
    "CIFAR-10 (binary)": "binary10",
    "CIFAR-10 (python version)": "python10",
    "CIFAR-10 (PNG sprites)": "sprites",
    "CIFAR-100 (binary)": "binary100",
    "CIFAR-100 (python version)": "python100",
}
BY_TITLE = {form.title: form for form in FORMS}
BINARY10, BINARY100 = BY_TITLE["CIFAR-10 (binary)"], BY_TITLE["CIFAR-100 (binary)"]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.title)
def test_every_form_holds_the_same(form, small_cifar):
    files = getattr(small_cifar, MAKERS[form.title])()
    assert form_of(files) is form
    for names, rows in ((form.train, slice(20)), (form.test, slice(20, None))):
        images, labels = form.parse(names, files)
        np.testing.assert_array_equal(images, small_cifar.images[rows])
        np.testing.assert_array_equal(labels, small_cifar.labels[rows])


def test_number_of_classes():
    assert {form.name: len(form.classes) for form in FORMS} == {"cifar10": 10, "cifar100": 100}


@settings(max_examples=30, deadline=None)
@given(
    records=hnp.arrays("u1", st.tuples(st.integers(1, 4), st.just(3074))),
    cut=st.integers(1, 3072),
)
def test_binary_records(records, cut):
    images, labels = BINARY100.parse(("a", "a"), {"a": records.tobytes()})
    np.testing.assert_array_equal(labels, np.tile(records[:, 1], 2))
    np.testing.assert_array_equal(images[: len(records)].reshape(-1, 3072), records[:, 2:])
    # Red, then green, then blue, each by rows: pixel (y, x) of channel c.
    assert images[0, 2, 5, 7] == records[0, 2 + 2 * 1024 + 5 * 32 + 7]
    with pytest.raises(DataError, match=r"a has .* expected a multiple of 3,074"):
        BINARY100.parse(("a",), {"a": records.tobytes()[:-cut]})


def test_empty_binary_file():
    with pytest.raises(DataError, match="a has 0 bytes; expected a multiple of 3,073"):
        BINARY10.parse(("a",), {"a": b""})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": [1, 2]}, r"'data' must be uint8 \(N, 3072\)"),
        ({"data": np.zeros((4, 3071), np.uint8)}, r"'data' must be uint8 \(N, 3072\)"),
        ({"labels": [1, 2, 3]}, "4 images but 3 labels"),
        ({"labels": [1, 2, 3, "x"]}, "must be a list of whole numbers"),
        ({"labels": [1, 2, 3, 10**30]}, "must be a list of whole numbers"),
        ({"labels": None}, "must be a list of whole numbers"),
    ],
)
def test_python_batches_that_lack_something(small_cifar, change, message):
    batch = pickle.loads(small_cifar.python10()["test_batch"]) | change
    form = form_of(small_cifar.python10())
    with pytest.raises(DataError, match=f"test_batch: .*{message}"):
        form.parse(("test_batch",), {"test_batch": pickle.dumps(batch, 2)})


def test_a_pickle_that_is_no_batch(small_cifar):
    form = form_of(small_cifar.python10())
    with pytest.raises(DataError, match="x: 'data' must be"):
        form.parse(("x",), {"x": b"\x80\2K\1."})


@pytest.mark.parametrize("labels", [b"{}", b"[1, 2.5]", b"[1,", b"[" * 100_000, b"\xff"])
def test_sprite_labels_that_are_no_list(small_cifar, labels):
    form = form_of(small_cifar.sprites())
    files = small_cifar.sprites() | {"test_lables.json": labels}
    with pytest.raises(DataError, match=r"test_lables\.json: the labels must be a list of whole"):
        form.parse(form.test, files)


def test_sprite_labels_may_be_spelt_right_or_be_missing(small_cifar):
    files = small_cifar.sprites()
    form = form_of(files)
    files["train_labels.json"] = files.pop("train_lables.json")
    np.testing.assert_array_equal(form.parse(form.train, files)[1], small_cifar.labels[:20])
    del files["train_labels.json"]
    with pytest.raises(DataError, match=r"expected train_lables\.json or train_labels\.json"):
        form.parse(form.train, files)


def test_a_sprite_of_another_shape(small_cifar):
    files = small_cifar.sprites()
    files["test_batch.png"] = files["test_batch.png"][:60]
    form = form_of(files)
    with pytest.raises(DataError, match=r"test_batch\.png: truncated"):
        form.parse(form.test, files)
    stream = io.BytesIO()
    Image.new("RGB", (32, 32)).save(stream, "PNG")
    with pytest.raises(DataError, match=r"\(3, 32, 32\); expected \(3, images, 1024\)"):
        form.parse(form.test, files | {"test_batch.png": stream.getvalue()})
