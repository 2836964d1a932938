"""Plans: no two buffers that live together share a place, and who waits for whom."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_kernel import MACHINES, every_machine
from torch import nn

from hubel.engine.native.graph import NotCovered
from hubel.engine.native.join import joined
from hubel.engine.native.plan import Aim, At, Buffer, Mine
from hubel.engine.native.read import read_graph
from hubel.engine.native.schedule import _pack, make_plan

CACHE = 1 << 20


def planned(model, machine, *shape, cache=CACHE, **aim):
    images = torch.randn(2, *(shape or (3, 8, 8)))
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    weights = {name: tuple(t.shape) for name, t in tensors.items()}
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    graph = joined(read_graph(model, images))
    return make_plan(graph, weights, learns, machine, Aim(**({"loss": True} | aim)), cache)


def normed():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, 2), nn.BatchNorm2d(8),
        nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


def plain():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 7, 3), nn.Tanh(), nn.Flatten(),
        nn.Linear(7, 20), nn.ReLU(), nn.Linear(20, 5),
    )  # fmt: skip


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.end = nn.Linear(12 * 64, 5)

    def forward(self, x):
        y = torch.tanh(self.a(x))
        z = torch.relu(self.b(y) + y)
        return self.end(torch.cat([y, z, z * y], 1).flatten(1))


def uses(plan):
    """Every buffer with the numbers of the calls that it is given to."""
    found, number = {}, 0
    for phase in plan.phases:
        for call in phase.calls:
            number += 1
            for argument in call.arguments:
                buffer = argument.buffer if isinstance(argument, At) else argument
                if isinstance(buffer, Buffer):
                    found.setdefault(buffer, []).append(number)
    return found


@every_machine
@pytest.mark.parametrize("make", [normed, plain, Branches])
@pytest.mark.parametrize("backward", [True, False])
def test_buffers_that_live_together_stand_apart(make, backward, machine):
    plan = planned(make(), machine, backward=backward)
    found = uses(plan)
    assert len(found) > 3
    shared = 0
    for one, mine in found.items():
        assert one.offset % 64 == 0
        assert one.offset + one.size(machine) <= (
            plan.tile_bytes if one.lasting else plan.thread_bytes
        )
        assert one.lasting or one.offset >= plan.sums  # clear of the sums
        for other, theirs in found.items():
            if other is one or other.lasting != one.lasting:
                continue
            apart = (
                one.offset + one.size(machine) <= other.offset
                or other.offset + other.size(machine) <= one.offset
            )
            alive = min(mine) <= max(theirs) and min(theirs) <= max(mine)
            assert apart or not alive
            shared += not apart
    assert shared or not backward  # places are used again


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(st.integers(1, 400), st.integers(0, 40), st.integers(0, 12), st.booleans()),
        min_size=1, max_size=40,
    ),
    st.sampled_from(MACHINES), st.sampled_from([0, 64, 4096]),
)  # fmt: skip
def test_packing_never_lets_living_buffers_overlap(wanted, machine, start):
    buffers = []
    for elements, first, length, bytes_ in wanted:
        buffer = Buffer(elements, bytes_)
        buffer.first, buffer.last = first, first + length
        buffers.append(buffer)
    total = _pack(buffers, machine, start)
    for n, one in enumerate(buffers):
        assert start <= one.offset
        assert one.offset % 64 == start % 64
        assert one.offset + one.size(machine) <= start + total
        for other in buffers[:n]:
            if one.first <= other.last and other.first <= one.last:
                assert (
                    one.offset + one.size(machine) <= other.offset
                    or other.offset + other.size(machine) <= one.offset
                )
    most = max(sum(b.size(machine) for b in buffers if b.first <= at <= b.last) for at in range(60))
    assert most <= total <= sum(b.size(machine) for b in buffers)


@every_machine
def test_what_another_phase_or_all_tiles_together_read_lasts(machine):
    for make in (normed, plain):
        plan = planned(make(), machine)
        single = sum(bool(phase.calls) for phase in plan.phases) == 1
        for number, phase in enumerate(plan.phases):
            for call in phase.calls:
                for argument in call.arguments:
                    if isinstance(argument, Buffer) and call.together and single:
                        assert argument.lasting
                    if isinstance(argument, Buffer) and not argument.lasting:
                        others = [q for q in plan.phases if q is not phase]
                        assert all(argument not in c.arguments for q in others for c in q.calls)
            assert phase.after or number == len(plan.phases) - 1


def test_a_norm_over_the_batch_makes_all_threads_wait_and_a_fixed_one_does_not():
    machine = MACHINES[0]
    # forward 2 norms, back 2 norms: 4 times that all have to meet, and what remains
    assert len(planned(normed(), machine).phases) == 5
    assert len(planned(plain(), machine).phases) == 1
    fixed = planned(normed().eval(), machine)
    assert sum(bool(phase.calls) for phase in fixed.phases) <= 3
    assert len([phase for phase in fixed.phases if not phase.calls]) == 1


def test_tiles_go_together_only_as_far_as_the_cache_holds_them():
    machine = MACHINES[0]
    dense = nn.Sequential(nn.Flatten(), nn.Linear(192, 30), nn.ReLU(), nn.Linear(30, 5))
    assert planned(dense, machine, cache=1 << 26).tiles == 4
    assert planned(dense, machine, cache=1).tiles == 1
    assert planned(normed(), machine, cache=1 << 26).tiles == 1  # its phases end at every norm


@every_machine
def test_sums_of_all_gradients_stand_apart(machine):
    plan = planned(normed(), machine)
    assert {part.name for part in plan.parts} == {n for n, _ in normed().named_parameters()}
    places = sorted(
        part.offset for part in plan.parts if part.spec.kind not in ("ready", "counted")
    )
    assert len(set(places)) == len(places)
    assert all(place < plan.sums for place in places)
    mine = [
        argument.offset for phase in plan.phases for call in phase.calls
        for argument in call.arguments if isinstance(argument, Mine)
    ]  # fmt: skip
    assert max(mine) < plan.thread_bytes


def test_without_backward_nothing_is_learnt():
    plan = planned(plain(), MACHINES[0], backward=False)
    assert not plan.parts
    assert len(uses(plan)) < len(uses(planned(plain(), MACHINES[0])))


def test_a_window_too_large_for_a_byte_is_refused():
    model = nn.Sequential(nn.MaxPool2d(12), nn.Flatten(), nn.Linear(3, 5))
    with pytest.raises(NotCovered, match="max_pool in 0.*127"):
        planned(model, MACHINES[0], 3, 12, 12)
