"""Errors that help: the nearest right word first, one line, whole across processes."""

import pickle

import pytest

from hubel.errors import BrokenImage, HubelError, nearest, unknown


@pytest.mark.parametrize(
    ("given", "expected"),
    [("lenet", "lenet5"), ("LENET5", "lenet5"), ("resnet2O", "resnet20"), ("zzz", None)],
)
def test_nearest(given, expected):
    assert nearest(given, ["lenet5", "resnet20", "mlp"]) == expected


def test_unknown_names_the_nearest_and_all_that_are_allowed():
    text = unknown("model", "lenet", ["mlp", "lenet5"])
    assert text == "unknown model 'lenet': did you mean 'lenet5'? allowed: lenet5, mlp"
    assert unknown("model", "zzz", ["mlp"]) == "unknown model 'zzz': allowed: mlp"


def test_broken_image_crosses_processes_whole():
    error = pickle.loads(pickle.dumps(BrokenImage("a.jpg", "cut short")))
    assert isinstance(error, HubelError)
    assert (str(error), error.where, error.reason) == ("a.jpg: cut short", "a.jpg", "cut short")
