"""Ensembles over files: the mean of probabilities, classes by name, each file read once."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hubel.data.preprocess import Preprocess
from hubel.deploy import ensemble
from hubel.deploy.ensemble import EnsemblePredictor, class_places
from hubel.deploy.predictor import Predictor
from hubel.errors import DataError
from hubel.runs.weights import Card

CPU = torch.device("cpu")


class Says(nn.Module):
    """The same probabilities for every image, plus what its mean brightness adds to the first."""

    def __init__(self, *chances):
        super().__init__()
        self.log = torch.tensor(chances).log()

    def forward(self, images):
        return self.log.repeat(len(images), 1)


def member(*chances, classes=("cat", "dog", "owl"), side=4, mean=0.5, fit="stretch"):
    card = Card(None, classes, Preprocess(1, side, side, fit, (mean,), (0.5,)))
    return Predictor(Says(*chances), card, CPU)


@pytest.fixture
def files(tmp_path):
    for name in "ab":
        Image.fromarray(np.full((9, 7), 90, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_text("no picture")
    return [tmp_path / "a.png", tmp_path / "broken.png", tmp_path / "b.png"]


def test_the_mean_of_probabilities_by_hand(files):
    """(0.6 + 0.1) / 2, (0.3 + 0.7) / 2, (0.1 + 0.2) / 2: dog, though the first says cat."""
    both = EnsemblePredictor([member(0.6, 0.3, 0.1), member(0.1, 0.7, 0.2)], top=2)
    first, broken, last = both(files)
    assert first.label == last.label == "dog"
    assert first.top == (("dog", pytest.approx(0.5)), ("cat", pytest.approx(0.35)))
    assert broken.label is None
    assert broken.error
    assert both(files[1:2])[0].error  # nothing whole at all


def test_classes_are_matched_by_name(files):
    turned = member(0.2, 0.1, 0.7, classes=("owl", "cat", "dog"))
    (found,) = EnsemblePredictor([member(0.6, 0.3, 0.1), turned])(files[:1])
    assert dict(found.top) == pytest.approx({"dog": 0.5, "cat": 0.35, "owl": 0.15})
    assert [place.tolist() for place in class_places([("a", "b", "c"), ("c", "a", "b")])] == [
        [0, 1, 2], [1, 2, 0],
    ]  # fmt: skip


def test_other_classes_are_refused():
    with pytest.raises(DataError, match="same classes: 'cow' is known to one and not to another"):
        EnsemblePredictor([member(0.6, 0.4, 0.1), member(1, 1, 1, classes=("cat", "cow", "owl"))])


def test_a_file_is_read_once_for_each_way_it_is_prepared(files, monkeypatch):
    asked = []
    read = ensemble.read_image
    monkeypatch.setattr(
        ensemble, "read_image", lambda file, way: asked.append((file.name, way)) or read(file, way)
    )
    some = [member(0.5, 0.3, 0.2, mean=mean) for mean in (0.3, 0.4)]
    EnsemblePredictor(some)(files)
    assert len(asked) == 3  # means differ: the pixels do not
    asked.clear()
    EnsemblePredictor([*some, member(0.5, 0.3, 0.2, side=6)])(files[:1])
    assert [way.height for _, way in asked] == [4, 6]
    asked.clear()
    EnsemblePredictor([member(0.5, 0.3, 0.2, mean=m, fit="pad") for m in (0.3, 0.4)])(files[:1])
    assert len(asked) == 2  # the padding has the mean's colour
