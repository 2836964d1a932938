"""The plan's door: one line for every mistake, naming the nearest right word."""

import pytest

from hubel.errors import OptionError
from hubel.training.plan import Plan, make_plan


def plan(**words):
    return make_plan(source="sample", model="lenet5", **words)


def test_round_trip_through_json():
    made = plan(epochs=3, optimiser={"name": "adam", "lr": 0.01}, size=(32, 48), fold=(2, 5))
    assert Plan(**made.model_dump(mode="json")) == made


def test_a_path_to_weights_is_a_word_too(tmp_path):
    assert plan(weights=tmp_path / "w.pth").weights == str(tmp_path / "w.pth")
    assert plan(weights="imagenet").weights == "imagenet"
    with pytest.raises(OptionError, match="weights: .*string, given 3"):
        plan(weights=3)


def test_a_layer_may_stand_still_beside_head_epochs():
    made = plan(freeze="features.conv1", head_epochs=2, epochs=4, body_rate=0.1)
    assert (made.freeze, made.head_epochs) == ("features.conv1", 2)


def test_plans_of_older_runs_still_load():
    """They say nothing of weights, freezing or sizes."""
    record = plan().model_dump(mode="json")
    for word in ("weights", "freeze", "head_epochs", "body_rate", "resize"):
        del record[word]
    assert Plan(**record) == plan()


def test_frozen():
    with pytest.raises(Exception, match="frozen"):
        plan().epochs = 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"epoch": 3}, r"unknown option 'epoch': did you mean 'epochs'\?"),
        ({"optimiser": {"lrate": 3}}, r"unknown option 'optimiser.lrate'.*'optimiser.lr'"),
        ({"epochs": 0}, r"epochs: .*greater than or equal to 1, given 0"),
        ({"epochs": "many"}, r"epochs: .*integer.*given 'many'"),
        ({"optimiser": {"lr": float("nan")}}, r"optimiser.lr: .*finite.*nan"),
        ({"optimiser": {"lr": -1}}, r"optimiser.lr: .*greater than 0, given -1"),
        ({"optimiser": {"name": "adamm"}}, r"optimiser.name: .*'adam'.*given 'adamm'"),
        ({"val": 0.6, "test": 0.5}, r"val \+ test must stay below 1, given 0.6 \+ 0.5"),
        ({"batch": 4, "accumulate": 8}, r"accumulate \(8\) cannot exceed batch \(4\)"),
        ({"fold": (6, 5)}, r"fold must be one of two or more, as 1/5, given 6/5"),
        ({"fold": (1, 1)}, r"fold must be one of two or more, as 1/5, given 1/1"),
        ({"split_seed": -1}, r"split_seed: .*greater than or equal to 0, given -1"),
        ({"schedule": {"name": "table"}}, "schedule: the table schedule needs rates"),
        ({"schedule": {"name": "table", "rates": (1, 2)}}, r"schedule.rates.1: .*equal to 1"),
        (
            {"head_epochs": 3, "epochs": 3},
            r"head_epochs \(3\) must stay below epochs \(3\); to tra",
        ),
        (
            {"freeze": "body", "head_epochs": 1},
            "a frozen body takes no head_epochs and no body_rate",
        ),
        (
            {"freeze": "body", "body_rate": 0.1},
            "a frozen body takes no head_epochs and no body_rate",
        ),
        ({"body_rate": 1.5}, r"body_rate: .*less than or equal to 1, given 1.5"),
        ({"resize": "random"}, r"resize: .*'progressive'.*given 'random'"),
        (
            {"resize": "mixed", "task": "segment"},
            "resize 'mixed' would change images and not their",
        ),
        ({"fit": "squeeze"}, r"fit: .*'stretch'.*given 'squeeze'"),
    ],
)
def test_mistakes_in_one_line(words, message):
    with pytest.raises(OptionError, match=message) as error:
        plan(**words)
    assert "\n" not in str(error.value)
