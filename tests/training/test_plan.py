"""The plan's door: one line for every mistake, naming the nearest right word."""

import pytest

from hubel.errors import OptionError
from hubel.training.plan import Plan, make_plan


def plan(**words):
    return make_plan(source="sample", model="lenet5", **words)


def test_round_trip_through_json():
    made = plan(epochs=3, optimiser={"name": "adam", "lr": 0.01}, size=(32, 48))
    assert Plan(**made.model_dump(mode="json")) == made


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
        ({"fit": "squeeze"}, r"fit: .*'stretch'.*given 'squeeze'"),
    ],
)
def test_mistakes_in_one_line(words, message):
    with pytest.raises(OptionError, match=message) as error:
        plan(**words)
    assert "\n" not in str(error.value)
