"""A label for every image: size, channels and scale of what the net is fed; what it must answer."""

import numpy as np
import pytest
import torch
from made_sources import arrays, whole
from PIL import Image

from hubel.data.files import FileSource
from hubel.data.folder import read_folder
from hubel.data.preprocess import Preprocess
from hubel.data.split import Split
from hubel.errors import DataError, ModelError, OptionError
from hubel.kinds import classify
from hubel.kinds.classify import choose_preprocess
from hubel.kinds.kind import must_fit
from hubel.training.plan import make_plan


def plan_of(model="m", **words):
    return make_plan(source="s", model=model, batch=8, **words)


def photos(folder, sizes, mode="RGB"):
    for number, size in enumerate(sizes):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, 40 * (number % 5)).save(path)
    return read_folder(folder)


def test_small_images_of_one_size_are_taken_as_they_are():
    source = arrays()
    found = choose_preprocess(plan_of(), source, whole(source), None)
    assert (found.channels, found.height, found.width) == (1, 20, 24)
    pixels = source.images[:30] / 255
    assert found.mean[0] == pytest.approx(pixels.mean(), abs=1e-4)
    assert found.std[0] == pytest.approx(pixels.std(), abs=1e-4)


def test_the_mean_is_of_training_images_alone():
    source = arrays()
    source.images[30:] = 255
    found = choose_preprocess(plan_of(), source, whole(source), None)
    assert found.mean[0] == pytest.approx((source.images[:30] / 255).mean(), abs=1e-4)


def test_large_or_mixed_images_come_to_the_models_size(tmp_path):
    mixed = photos(tmp_path / "mixed", [(50, 40), (40, 50)] * 10)
    large = photos(tmp_path / "large", [(90, 70)] * 20)
    for source in (mixed, large):
        split = Split(np.arange(12), np.arange(12, 16), np.arange(16, 20))
        for model, side in (("lenet5", 64), ("efficientnet_lite1", 240)):
            found = choose_preprocess(plan_of(model), source, split, None)
            assert (found.channels, found.height, found.width) == (3, side, side)


@pytest.mark.parametrize(
    ("model", "size"),
    [("softmax", (20, 24)), ("lenet5", (20, 24)), ("alexnet", (224, 224)), ("own", (20, 24))],
)
def test_small_images_are_enlarged_for_a_model_that_takes_none_so_small(model, size):
    source = arrays()
    found = choose_preprocess(plan_of(model), source, whole(source), None)
    assert (found.height, found.width) == size


def test_the_plans_size_wins_and_grey_stays_grey(tmp_path):
    source = photos(tmp_path, [(50, 40)] * 20, mode="L")
    split = Split(np.arange(12), np.arange(12, 16), np.arange(16, 20))
    found = choose_preprocess(plan_of(size=(16, 24)), source, split, None)
    assert (found.channels, found.height, found.width) == (1, 16, 24)


def test_trained_weights_are_fed_as_they_were_but_for_the_plans_size():
    source = arrays()
    theirs = Preprocess(3, 224, 224, "crop", (0.5,) * 3, (0.2,) * 3, 0.875, "bicubic")
    found = choose_preprocess(plan_of(fit="crop"), source, whole(source), theirs)
    assert (found.height, found.width, found.kept, found.filter) == (224, 224, 1.0, "bicubic")
    small = choose_preprocess(plan_of(fit="pad", size=(96, 64)), source, whole(source), theirs)
    assert (small.height, small.width, small.fit) == (96, 64, "pad")


def test_constant_images_do_not_divide_by_zero():
    source = arrays()
    source.images[:] = 7
    assert choose_preprocess(plan_of(), source, whole(source), None).std[0] > 0


def test_nothing_readable(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    source = FileSource(tmp_path, ["a.png"] * 4, np.zeros(4), ("a", "b"), name="f", origin="f")
    split = Split(np.arange(4), np.empty(0, np.int64), np.empty(0, np.int64))
    with pytest.raises(DataError, match=r"none of the first 4 training images can be read: a\.png"):
        choose_preprocess(plan_of(), source, split, None)


def test_the_scale_of_images_cannot_be_kept():
    source = arrays()
    with pytest.raises(OptionError, match="fit 'same' is for masks: to name images stretch, crop"):
        choose_preprocess(plan_of(fit="same"), source, whole(source), None)


def test_a_net_must_answer_with_one_logit_per_class():
    source = arrays()
    card = classify.card(source, choose_preprocess(plan_of(), source, whole(source), None))
    must_fit(classify, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(480, 2)), card)
    three = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(480, 3))
    with pytest.raises(ModelError, match=r"with \(2, 2\) logits, one per class; it gave \(2, 3\)"):
        must_fit(classify, three, card)
    with pytest.raises(ModelError, match=r"cannot take images \(2, 1, 20, 24\): "):
        must_fit(classify, torch.nn.Linear(7, 2), card)


def test_classes_are_matched_by_name():
    source = arrays()
    card = classify.card(source, Preprocess(1, 20, 24, "stretch", (0.5,), (0.5,)))
    turned = arrays()
    turned.classes = ("b", "a")
    classify.match(turned, card)
    assert turned.classes == ("a", "b")
    assert turned.targets.tolist() == (1 - source.targets).tolist()
    strange = arrays()
    strange.classes = ("a", "z")
    with pytest.raises(DataError, match="class 'z' of s is not one of the run's: a, b"):
        classify.match(strange, card)
