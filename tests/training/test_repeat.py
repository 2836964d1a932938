"""The switches for repeatable bits go on, and go back to where they were, whatever happens."""

import pytest
import torch

from hubel.training.repeat import repeatable


def switches():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,
    )


def test_on_inside_and_back_after_an_error():
    before = switches()
    with pytest.raises(KeyError), repeatable():
        assert switches() == (True, True, False, False)
        raise KeyError
    assert switches() == before


def test_the_callers_chance_goes_on_as_if_nothing_had_been():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with repeatable():
        torch.manual_seed(77)
        torch.rand(10)
    assert torch.rand(2).equal(expected)
