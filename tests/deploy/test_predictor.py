"""Predictions: the right road from file to answer, in order, whatever some files hold."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hubel.data.preprocess import Preprocess
from hubel.deploy.predictor import Predictor, find_images
from hubel.errors import DataError
from hubel.runs.weights import Card

CPU = torch.device("cpu")
CARD = Card(None, ("dark", "middle", "bright"), Preprocess(1, 4, 4, "stretch", (0.5,), (0.5,)))


class Brightness(nn.Module):
    """Logits that grow with how close the mean is to 0, 127 and 255."""

    def forward(self, images):
        mean = images.mean(dim=(1, 2, 3))
        return torch.stack([-((mean - m) ** 2) * 10 for m in (-1.0, 0.0, 1.0)], dim=1)


@pytest.fixture
def predictor():
    return Predictor(Brightness(), CARD, CPU)


@pytest.fixture
def files(tmp_path):
    for name, value in (("c", 0), ("a", 255), ("b", 128)):
        Image.fromarray(np.full((9, 7, 3), value, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "d.png").write_text("no picture")
    return tmp_path


def test_in_the_order_asked_with_the_broken_one_named(predictor, files):
    found = predictor([files / n for n in ("c.png", "d.png", "a.png", "b.png")], batch=2)
    assert [p.label for p in found] == ["dark", None, "bright", "middle"]
    assert found[1].error
    assert found[1].to_json().keys() == {"file", "label", "error"}
    assert found[0].confidence == found[0].top[0][1] > 0.9
    chances = [p for _, p in found[0].top]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(1)


def test_top_is_no_more_than_asked_or_than_there_are(files):
    assert len(Predictor(Brightness(), CARD, CPU, top=2)([files / "a.png"])[0].top) == 2
    assert len(Predictor(Brightness(), CARD, CPU, top=9)([files / "a.png"])[0].top) == 3


def test_finding_files_folders_and_patterns(files, monkeypatch):
    monkeypatch.chdir(files)
    names = [p.name for p in find_images([str(files)])]
    assert names == ["a.png", "b.png", "c.png", "d.png"]
    assert [p.name for p in find_images(["[ab].png"])] == ["a.png", "b.png"]
    assert len(find_images(["a.png", "a.png"])) == 1
    (files / "deep" / "er").mkdir(parents=True)
    Image.new("L", (3, 3)).save(files / "deep" / "er" / "x.JPG", "JPEG")
    assert [p.name for p in find_images(["deep"])] == ["x.JPG"]


@pytest.mark.parametrize("word", ["none.png", "*.tif", "empty"])
def test_a_word_that_leads_nowhere(files, monkeypatch, word):
    monkeypatch.chdir(files)
    (files / "empty").mkdir()
    with pytest.raises(DataError, match=r"no image at '.*': give files, folders of images"):
        find_images([word])
