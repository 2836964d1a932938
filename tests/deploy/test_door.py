"""The door: which predictor for which task, and what each of them refuses."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hubel.data.preprocess import Preprocess
from hubel.deploy.door import answers, equipped, labels_alone, predictor_for
from hubel.deploy.mask_predictor import MaskPredictor
from hubel.deploy.predictor import Predictor
from hubel.errors import OptionError
from hubel.runs.weights import Card

CPU = torch.device("cpu")
WAY = Preprocess(1, 6, 6, "stretch", (0.5,), (0.5,))
LABELS, MASKS = Card(None, ("a", "b", "c", "d"), WAY), Card(None, ("a", "b"), WAY, task="segment")


def label_net():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).eval()


def mask_net():
    return nn.Conv2d(1, 2, 3, padding=1).eval()


def test_the_predictor_is_the_tasks():
    assert isinstance(predictor_for(label_net(), LABELS, CPU, tta="flip"), Predictor)
    masks = predictor_for(mask_net(), MASKS, CPU, tta="scales", refine="crf")
    assert isinstance(masks, MaskPredictor)


def test_classifiers_refuse_what_is_of_masks(tmp_path):
    words = "--refine is for nets that label pixels .*, given 'crf'; this one names whole images"
    with pytest.raises(OptionError, match=rf"{words} \(a, b, c, ...\)"):
        predictor_for(label_net(), LABELS, CPU, refine="crf")
    with pytest.raises(OptionError, match=words):
        equipped(label_net(), LABELS, "none", "crf")
    with pytest.raises(OptionError, match="--out is for nets that label pixels"):
        answers(predictor_for(label_net(), LABELS, CPU), [], tmp_path)
    labels_alone(("a", "b"), refine="none", out=None)


def test_masks_refuse_what_is_of_classifiers():
    for make in (lambda tta: predictor_for(mask_net(), MASKS, CPU, tta=tta),
                 lambda tta: equipped(mask_net(), MASKS, tta, "none")):  # fmt: skip
        with pytest.raises(OptionError, match="tta 'dense' is for nets that name whole images"):
            make("dense")


def test_files_to_answers(tmp_path):
    Image.fromarray(np.zeros((9, 7), np.uint8)).save(tmp_path / "x.png")
    files = [tmp_path / "x.png"]
    (label,) = answers(predictor_for(label_net(), LABELS, CPU), files, None)
    assert label.label in LABELS.classes
    (mask,) = answers(predictor_for(mask_net(), MASKS, CPU), files, tmp_path / "out")
    assert mask.mask.shape == (9, 7)
    assert (tmp_path / "out" / "x.png").exists()


@torch.no_grad()
def test_nets_for_masks_are_judged_as_they_are_where_nothing_follows():
    net = mask_net()
    judged, found = equipped(net, MASKS, "none", "none")
    assert found is MASKS
    assert not judged.training
    x = torch.randn(1, 1, 7, 5)
    assert judged(x).equal(net(x))


def test_classifiers_are_judged_as_before():
    net = label_net()
    assert equipped(net, LABELS, "none", "none") == (net, LABELS)
    assert equipped(net, LABELS, "ten-crop", "none")[1].preprocess.height == 7
