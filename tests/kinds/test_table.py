"""Which task a net and a word mean."""

import pytest

from hubel.errors import OptionError
from hubel.kinds import classify, segment
from hubel.kinds.kind import Kind
from hubel.kinds.table import KINDS, USUAL, kind_of, task_of, usual_model
from hubel.models.table import MODELS
from hubel.training.plan import TaskName


def test_every_task_has_all_the_ways():
    ways = [name for name in vars(Kind) if not name.startswith("_")]
    assert len(ways) > 10
    for task in KINDS:
        assert [name for name in ways if not callable(getattr(kind_of(task), name, None))] == []
    assert (kind_of("classify"), kind_of("segment")) == (classify, segment)


def test_tasks_are_those_of_plans_and_of_named_nets():
    assert set(KINDS) == set(TaskName.__args__)
    assert {entry.task for entry in MODELS.values()} == set(KINDS)
    assert {task: MODELS[name].task for task, name in USUAL.items()} == {t: t for t in KINDS}


@pytest.mark.parametrize(
    ("model", "asked", "task"),
    [
        ("resnet20", None, "classify"),
        ("unet", None, "segment"),
        ("unet", "segment", "segment"),
        ("mine.py:net", None, "classify"),
        ("mine.py:net", "segment", "segment"),
    ],
)
def test_the_task_of_a_net(model, asked, task):
    assert task_of(model, asked) == task


def test_a_net_for_another_task_is_refused_with_those_that_would_do():
    with pytest.raises(OptionError, match="resnet20 is a net to classify with; to segment .* unet"):
        task_of("resnet20", "segment")
    with pytest.raises(OptionError, match="unet is a net to segment with; to classify .* lenet5"):
        task_of("unet", "classify")


def test_the_usual_net():
    assert (usual_model(None), usual_model("segment")) == ("compact", "unet_padded")
    with pytest.raises(OptionError, match="'segmnt'.*segment"):
        usual_model("segmnt")
