"""Which score heads a table, whatever the task."""

import pytest

from hubel.kinds.table import KINDS
from hubel.runs.headline import HEADLINES, headline, headline_score
from hubel.tasks.classify import Classify
from hubel.tasks.segment import Segment


@pytest.mark.parametrize(
    ("scores", "key", "value"),
    [
        ({"accuracy": 0.9, "loss": 0.1}, "accuracy", 0.9),
        ({"pixel_accuracy": 0.9, "miou": 0.5}, "miou", 0.5),
        ({}, "accuracy", None),
        ({"loss": 0.1}, "accuracy", None),
        (None, "accuracy", None),
    ],
)
def test_the_headline_of_a_record(scores, key, value):
    assert headline(scores or {}) == key
    assert headline_score(scores) == value


def test_every_tasks_own_headline_is_known():
    assert len(KINDS) == 2
    assert {Classify.headline, Segment.headline} == set(HEADLINES)
