"""Recipes: every named model and data set gets words that make a valid plan."""

import numpy as np
import pytest

from hubel.data.augment import Augment
from hubel.data.files import FileSource
from hubel.data.record import ArraySource
from hubel.models.table import MODELS
from hubel.training.plan import make_plan
from hubel.training.recipes import DATA, LEAST, MOST, OPTIMISERS, mask_recipe, recipe


def arrays(name):
    return ArraySource(np.zeros((2, 1, 8, 8), np.uint8), np.zeros(2), ("a",), name=name, origin="")


@pytest.mark.parametrize("model", [*MODELS, "mine.py:net"])
@pytest.mark.parametrize("name", [*DATA, "other"])
def test_every_recipe_is_a_plan(model, name):
    words = recipe(model, arrays(name), images=1000, side=28)
    assert make_plan(source="s", model=model, **words).epochs >= 1


@pytest.mark.parametrize("model", [*MODELS, "mine.py:net"])
@pytest.mark.parametrize("freeze", [None, "body", "layer1"])
def test_every_recipe_from_trained_weights_is_a_plan(model, freeze):
    asked = make_plan(source="s", model=model, weights="imagenet", freeze=freeze)
    words = recipe(model, arrays("other"), 1000, 28, asked)
    made = make_plan(source="s", model=model, freeze=freeze, **words)
    assert (made.head_epochs, made.body_rate) == ((0, 1.0) if freeze == "body" else (1, 0.1))
    assert made.optimiser.name == "adamw"


def test_a_frozen_body_without_trained_weights_keeps_the_models_recipe():
    asked = make_plan(source="s", model="lenet5", freeze="body")
    assert recipe("lenet5", arrays("x"), 100, 28, asked) == recipe("lenet5", arrays("x"), 100, 28)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_has_a_usual_rate(name):
    words = recipe("compact", arrays("x"), 1000, 28)
    words["optimiser"] = {**words["optimiser"], **OPTIMISERS[name]}
    assert make_plan(source="s", model="compact", **words).optimiser.name == name


def test_few_images_are_gone_through_more_often_within_bounds():
    epochs = [recipe("compact", arrays("x"), n, 28)["epochs"] for n in (10, 55_000, 1_200_000)]
    assert epochs == [MOST, 12, LEAST]


def test_digits_are_never_mirrored_and_photos_shift_with_their_size(tmp_path):
    assert not recipe("lenet5", arrays("mnist"), 1000, 28)["augment"].flip
    assert recipe("lenet5", arrays("fashion-mnist"), 1000, 28)["augment"].flip
    photos = FileSource(tmp_path, ["a.png"], np.zeros(1), ("a",), name="p", origin="p")
    assert recipe("compact", photos, 100, 64)["augment"] == Augment(flip=True, shift=8)
    assert recipe("compact", arrays("unknown"), 100, 64)["augment"] == Augment()


NETS = [name for name, entry in MODELS.items() if entry.task == "segment"]


@pytest.mark.parametrize("freeze", [None, "body", "body.layer1"])
@pytest.mark.parametrize("weights", [None, "imagenet"])
@pytest.mark.parametrize("model", NETS)
def test_every_mask_recipe_is_a_plan(model, weights, freeze):
    said = {"source": "s", "model": model, "task": "segment", "weights": weights, "freeze": freeze}
    words = mask_recipe(make_plan(**said), windows=2, shown=300, channels=3)
    assert make_plan(**said, **words).body_rate == (0.2 if weights and freeze != "body" else 1.0)


@pytest.mark.parametrize(
    ("model", "body", "rate"),
    [
        ("unet", None, 5e-4), ("fcn8s", None, 5e-4), ("fcn8s", "vgg16", 5e-4),
        ("unet_padded", "vgg11", 5e-4), ("deeplab_v1", "vgg16", 5e-4), ("unet_padded", None, 2e-3),
        ("fcn8s", "resnet18", 2e-3), ("fcn8s", "vgg16_bn", 2e-3), ("deconvnet", None, 2e-3),
    ],
)  # fmt: skip
def test_nets_without_batch_norm_take_smaller_steps(model, body, rate):
    plan = make_plan(source="s", model=model, task="segment", body=body)
    assert mask_recipe(plan, 2, 300, 3)["optimiser"]["lr"] == rate
