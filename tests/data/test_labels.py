"""labels: class names and indices from words, numbers and one-hot rows, worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import LabelEncoder

from hubel.data.labels import check_classes, from_arrays, from_words, natural_key
from hubel.errors import DataError


def test_natural_order():
    names = ["img10", "img9", "img2b", "Img1", "a", "img02", "img2", "3", "20"]
    expected = ["3", "20", "a", "Img1", "img02", "img2", "img2b", "img9", "img10"]
    assert sorted(names, key=natural_key) == expected


def test_natural_order_takes_numbers_of_any_length():
    long = "9" * 5000  # int() refuses more than 4,300 digits
    assert sorted([f"1{long}", long, "7"], key=natural_key) == ["7", long, f"1{long}"]


@given(st.lists(st.text(max_size=8)))
def test_natural_order_does_not_depend_on_the_start(names):
    backwards = list(reversed(names))
    assert sorted(names, key=natural_key) == sorted(backwards, key=natural_key)


def test_words():
    classes, targets = from_words(["cat", "ant10", "ant9", "cat"])
    assert classes == ("ant9", "ant10", "cat")
    assert targets.tolist() == [2, 1, 0, 2]
    assert targets.dtype == np.int64


@given(st.lists(st.integers(0, 300), min_size=1))
def test_integers_without_names_as_scikit_learn_encodes_them(values):
    classes, targets = from_arrays({"y": np.array(values)}, None)
    encoder = LabelEncoder().fit(values)
    assert targets.tolist() == encoder.transform(values).tolist()
    assert classes == tuple(map(str, encoder.classes_.tolist()))


@pytest.mark.parametrize("dtype", ["u1", "i8", "f4", ">i2"])
def test_integers_with_names_index_them(dtype):
    classes, targets = from_arrays({"y": np.array([[2], [0]], dtype)}, ["a", "b", "c"])
    assert classes == ("a", "b", "c")
    assert targets.tolist() == [2, 0]


@pytest.mark.parametrize("dtype", ["u1", "f4", "?"])
def test_one_hot_keeps_classes_that_do_not_occur(dtype):
    labels = np.array([[0, 0, 1, 0], [1, 0, 0, 0]], dtype)
    classes, targets = from_arrays({"y": labels}, None)
    assert classes == ("0", "1", "2", "3")
    assert targets.tolist() == [2, 0]


def test_several_arrays_share_their_names():
    classes, targets = from_arrays({"a": np.array([7, 3]), "b": np.array([5])}, None)
    assert classes == ("3", "5", "7")
    assert targets.tolist() == [2, 0, 1]


def test_words_as_bytes_and_against_given_names():
    words = np.array([b"dog", b"cat"])
    assert from_arrays({"y": words}, None)[0] == ("cat", "dog")
    classes, targets = from_arrays({"y": words}, ["dog", "cat"])
    assert classes == ("dog", "cat")
    assert targets.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (np.array([0, -1]), None, "y: label 1 is -1; allowed: whole numbers from 0"),
        (np.array([0, 1.5]), None, "y: label 1 is 1.5; allowed: whole numbers"),
        (np.array([np.nan, 1]), None, "y: label 0 is nan"),
        (np.array([0, 3]), ["a", "b"], r"y: label 1 is 3; 2 classes are 0\.\.1"),
        (np.array([[1, 1], [0, 1]]), None, "y: row 0 is not one-hot"),
        (np.array([[1, 0], [0, 2]]), None, "y: row 1 is not one-hot"),
        (np.zeros((2, 2, 2), int), None, r"y: labels must be \(N,\) or one-hot \(N, K\), given"),
        (np.array([1 + 2j]), None, "y: labels must be numbers or words, given complex128"),
        (np.array(["cats"]), ["cat", "dog"], "y: unknown class 'cats': did you mean 'cat'"),
    ],
)
def test_bad_labels(labels, names, message):
    with pytest.raises(DataError, match=message):
        from_arrays({"y": labels}, names)


def test_words_and_numbers_do_not_mix():
    with pytest.raises(DataError, match="all words or all numbers: a is int64, b is <U1"):
        from_arrays({"a": np.array([1]), "b": np.array(["x"])}, None)


def test_two_classes_at_least_and_no_name_twice():
    check_classes(["a", "b"], "here")
    with pytest.raises(DataError, match="here: at least two classes are needed, given only 'a'"):
        check_classes(["a"], "here")
    with pytest.raises(DataError, match="given none"):
        check_classes([], "here")
    with pytest.raises(DataError, match="the class name 'b' stands twice"):
        check_classes(["a", "b", "b"], "here")
