"""Schedules against torch's, and against numbers worked by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hubel.training.plan import Schedule
from hubel.training.schedule import learning_rate


def rates(plan, total=100, highest=0.4, drops=0):
    return [learning_rate(plan, highest, step, total, drops) for step in range(total)]


def torch_rates(make, total=100, highest=0.4):
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], highest)
    schedule, found = make(optimiser), []
    for _ in range(total):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return found


def test_constant():
    assert rates(Schedule(name="constant")) == [0.4] * 100


def test_step_equals_torch_multistep():
    plan = Schedule(name="step", milestones=(0.5, 0.75), factor=0.1)
    oracle = torch_rates(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [50, 75], 0.1))
    assert rates(plan) == pytest.approx(oracle)


def test_cosine_equals_torch():
    plan = Schedule(name="cosine", final=0.25)
    oracle = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 100, eta_min=0.1))
    assert rates(plan) == pytest.approx(oracle)


def test_one_cycle_by_hand():
    """A quarter up from 1/25 to the whole, then down to `final`; halves of cosines: midpoints."""
    found = rates(Schedule(name="one-cycle", final=0.0), total=80, highest=1.0)
    assert found[0] == pytest.approx(0.04)
    assert found[10] == pytest.approx((1 + 0.04) / 2)
    assert found[20] == pytest.approx(1.0)
    assert found[50] == pytest.approx(0.5)
    assert found[79] < 0.001


def test_warm_up_is_linear_and_reaches_the_rate():
    found = rates(Schedule(name="constant", warmup=0.1), highest=1.0)
    assert found[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert found[10:] == [1.0] * 90


def test_plateau_multiplies_per_drop():
    plan = Schedule(name="plateau", factor=0.5)
    assert learning_rate(plan, 0.4, 7, 100, drops=3) == pytest.approx(0.05)


def test_a_table_by_hand():
    """Seven steps in three parts: steps 0-2, 3-4 and 5-6 begin before 7/3, 14/3 and 7."""
    plan = Schedule(name="table", rates=(0.5, 1.0, 0.1))
    found = rates(plan, total=7, highest=0.2)
    assert found == pytest.approx([0.1, 0.1, 0.1, 0.2, 0.2, 0.02, 0.02])


def test_a_table_with_a_rate_per_pass_is_the_papers():
    """LeCun et al. 1998: two passes at 0.0005, three at 0.0002, ...; here of 30 steps each."""
    paper = [5e-4] * 2 + [2e-4] * 3 + [1e-4] * 3 + [5e-5] * 4 + [1e-5] * 8
    plan = Schedule(name="table", rates=tuple(rate / 5e-4 for rate in paper))
    found = rates(plan, total=20 * 30, highest=5e-4)
    assert found == pytest.approx([rate for rate in paper for _ in range(30)])


@given(
    name=st.sampled_from(["constant", "step", "plateau", "cosine", "one-cycle", "table"]),
    warmup=st.none() | st.floats(0, 0.9),
    total=st.integers(1, 500),
    highest=st.floats(1e-5, 10),
)
def test_rate_is_positive_and_never_above_the_highest(name, warmup, total, highest):
    plan = Schedule(name=name, warmup=warmup, rates=(0.3, 1.0, 0.1))
    for step in range(total):
        assert 0 <= learning_rate(plan, highest, step, total) <= highest * (1 + 1e-12)
