"""What a net returned, read alike by all tasks."""

import pytest
import torch

from hubel.errors import ModelError
from hubel.tasks.answer import logits_of, wide


def test_logits_stand_alone_or_in_a_dict():
    z = torch.zeros(2, 3)
    assert logits_of(z, 2, "w") is z
    assert logits_of({"aux1": 1, "logits": z}, 2, "w") is z


@pytest.mark.parametrize(
    ("outputs", "given"),
    [
        (torch.zeros(2, 3, 4), r"shape \(2, 3, 4\)"),
        ({"logits": torch.zeros(2)}, r"shape \(2,\)"),
        ({"scores": 1}, "a dict with 'scores'"),
        ({}, "a dict with nothing"),
        ([torch.zeros(2, 3)], "a list"),
        (None, "a NoneType"),
    ],
)
def test_what_has_no_logits_is_named(outputs, given):
    with pytest.raises(ModelError, match=f'^wanted, or a dict .* "logits"; it returned {given}$'):
        logits_of(outputs, 2, "wanted")


def test_precision_is_float32_at_least():
    assert wide(torch.zeros(1).bfloat16()).dtype == torch.float32
    assert wide(torch.zeros(1).double()).dtype == torch.float64
