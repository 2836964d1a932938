"""Curvature before an epoch: on which images, when, and that a resumed training has it too."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hubel.data.augment import Augment
from hubel.data.feed import Feed
from hubel.data.preprocess import Preprocess
from hubel.data.record import ArraySource
from hubel.data.store import MemoryStore
from hubel.engine.curvature import curvature
from hubel.errors import ModelError
from hubel.tasks.classify import Classify
from hubel.training import survey as module
from hubel.training.distribute import Crew
from hubel.training.fit import Epoch, Feeds, fit
from hubel.training.lr_range import lr_range
from hubel.training.plan import make_plan
from hubel.training.speed import Choice
from hubel.training.state import State
from hubel.training.survey import survey

CPU = torch.device("cpu")
ALONE = Crew(0, 1, CPU)
TASK = Classify(("left", "right", "both"))
SDLM = {"name": "sdlm", "lr": 0.05, "mu": 0.1}


def feed_of(plan, count=90):
    """9x7 noise, bright at the left, at the right or at both sides."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 60, (count, 1, 9, 7), dtype=np.uint8)
    targets = np.arange(count) % 3
    images[targets != 1, ..., :2] += 150
    images[targets != 0, ..., -2:] += 150
    source = ArraySource(images, targets, TASK.classes, name="bars", origin="made here")
    store = MemoryStore(source, Preprocess(1, 9, 7, "stretch", (0.3,), (0.3,)), CPU)
    rows, labels = torch.arange(count), torch.from_numpy(source.targets)
    return Feed(store, rows, labels, 3, plan.batch, CPU, plan.seed, True, plan.augment)


def net(*between, seed=0):
    torch.manual_seed(seed)
    head = [nn.Flatten(), nn.Dropout(0.2), nn.Linear(140, 3)]
    return nn.Sequential(nn.Conv2d(1, 4, 3), *between, nn.Tanh(), *head)


def plan_of(**words):
    start = {"source": "bars", "model": "own", "epochs": 3, "batch": 20, "optimiser": SDLM}
    return make_plan(**{**start, **words})


def training(state, plan):
    return fit(state, TASK, Feeds(feed_of(plan), None), plan, Choice(), ALONE)


def weights(state):
    return torch.cat([p.detach().flatten() for p in state.model.parameters()])


def test_it_is_the_mean_over_all_images_where_there_are_few():
    plan = plan_of()
    state = State.start(net().eval(), plan)
    found = survey(state, TASK, feed_of(plan), 0, ALONE)
    whole = next(feed_of(plan_of(batch=90)).batches())
    expected = curvature(state.model, whole.images, whole.targets, F.cross_entropy)
    assert {id(p) for p in found} == {id(p) for p in state.model.parameters()}
    for name, parameter in state.model.named_parameters():
        torch.testing.assert_close(found[parameter], expected[name])


def test_500_images_drawn_anew_for_every_epoch_and_by_seed(monkeypatch):
    plan, seen = plan_of(), []

    def fake(model, images, targets, loss):
        seen.append(images)
        return {name: torch.zeros_like(p) for name, p in model.named_parameters()}

    monkeypatch.setattr(module, "curvature", fake)
    state, feed = State.start(net(), plan), feed_of(plan, 700)
    drawn = []
    for epoch, seed in ((0, 0), (1, 0), (0, 1), (0, 0)):
        state.epoch = epoch
        survey(state, TASK, feed, seed, ALONE)
        assert max(map(len, seen)) <= module.PIECE
        drawn.append(torch.cat(seen))
        seen.clear()
    assert [len(images) for images in drawn] == [500] * 4
    assert len(drawn[0].flatten(1).unique(dim=0)) == 500  # no image twice
    assert drawn[0].equal(drawn[3])
    assert not drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])


def test_it_is_taken_once_an_epoch_before_the_first_step():
    plan = plan_of()
    state = State.start(net(), plan)
    held = []
    for record in training(state, plan):
        if not isinstance(record, Epoch):
            held.append(state.optimiser.state_dict()["state"][0]["h"].clone())
    assert len(held) == 15
    per_epoch = [held[at : at + 5] for at in (0, 5, 10)]
    assert all(h.equal(hs[0]) for hs in per_epoch for h in hs)
    assert not per_epoch[0][0].equal(per_epoch[1][0])
    assert not per_epoch[1][0].equal(per_epoch[2][0])


def test_it_learns():
    plan = plan_of(epochs=12)
    state = State.start(net(), plan)
    *_, last = training(state, plan)
    assert last.train["accuracy"] == 1


@pytest.mark.parametrize("augment", [Augment(), Augment(shift=1, mixup=0.3)])
def test_cut_at_any_record_and_go_on_bit_for_bit(augment):
    plan = plan_of(augment=augment, epochs=2)
    whole = State.start(net(), plan)
    records = list(training(whole, plan))
    for cut in range(len(records)):
        state = State.start(net(), plan)
        list(itertools.islice(training(state, plan), cut))
        tensors, record = state.export()
        again = State.start(net(seed=7), plan)
        again.restore({name: t.clone() for name, t in tensors.items()}, record)
        list(training(again, plan))
        assert weights(again).equal(weights(whole)), f"cut after record {cut}"


def test_what_thaws_is_measured_then():
    """The head alone in the first epoch; the body, which then moves too, has its curvature."""
    plan = plan_of(head_epochs=1)
    state = State.start(net(), plan)
    body = state.model[0].weight
    before = body.detach().clone()
    list(training(state, plan))
    assert not body.equal(before)
    assert set(state.optimiser.state_dict()["state"]) == {0, 1, 2, 3}


def test_the_range_test_takes_it_too():
    plan = plan_of()
    steps = list(lr_range(net(), TASK, feed_of(plan), plan, ALONE, steps=20))
    assert len(steps) > 10


def test_a_net_that_it_cannot_be_known_for_is_refused_before_any_step():
    plan = plan_of()
    state = State.start(net(nn.BatchNorm2d(4)), plan)
    with pytest.raises(ModelError, match=r"known for batch_norm in training \(in 1\)"):
        next(training(state, plan))
    assert state.step == 0
