"""The loop: it learns, repeats, resumes bit for bit, stops when told, and never spoils weights."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from hubel.data.augment import Augment
from hubel.data.feed import Feed
from hubel.data.preprocess import Preprocess
from hubel.data.record import ArraySource
from hubel.data.store import MemoryStore
from hubel.errors import TrainingError
from hubel.tasks.classify import Classify
from hubel.training.distribute import Crew
from hubel.training.fit import Diverged, Epoch, Feeds, Step, fit
from hubel.training.plan import make_plan
from hubel.training.speed import Choice
from hubel.training.state import State

CPU = torch.device("cpu")
ALONE = Crew(0, 1, CPU)
CLASSES = ("left", "right", "both")
TASK = Classify(CLASSES)
AUGMENT = Augment(flip=True, shift=1)


def bars(count=90, seed=0):
    """9x7 noise with a bright bar at the top, at the bottom or at both: learnable in seconds."""
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 60, (count, 1, 9, 7), dtype=np.uint8)
    targets = np.arange(count) % 3
    images[targets != 1, :, :3] += 150
    images[targets != 0, :, -3:] += 150
    return ArraySource(images, targets, CLASSES, name="bars", origin="made here")


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(36, 3),
    )


def smooth_net(seed=0):
    """No batch norm and no chance: what is cut in pieces must add up."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(140, 3))


def plan_of(**words):
    start = {"source": "bars", "model": "own", "epochs": 3, "batch": 16, "augment": AUGMENT}
    optimiser = {"lr": 0.05, "weight_decay": 1e-3}
    return make_plan(**{**start, "optimiser": optimiser, **words})


def feeds_of(plan, source=None, crew=ALONE):
    source = source or bars()
    store = MemoryStore(source, Preprocess(1, 9, 7, "stretch", (0.3,), (0.3,)), CPU)
    targets = torch.from_numpy(source.targets)
    train = Feed(
        store, torch.arange(60), targets, 3, plan.batch, CPU, plan.seed, True, plan.augment,
        crew.rank, crew.world,
    )  # fmt: skip
    return Feeds(train, Feed(store, torch.arange(60, 90), targets, 3, 64, CPU))


def trained(plan, model=None, feeds=None):
    state = State.start(model or net(), plan)
    records = list(fit(state, TASK, feeds or feeds_of(plan), plan, Choice(), ALONE))
    return state, records


def weights(state):
    return torch.cat([t.double().flatten() for t in state.model.state_dict().values()])


def test_it_learns():
    state, records = trained(plan_of(epochs=15))
    epochs = [r for r in records if isinstance(r, Epoch)]
    assert epochs[-1].val["accuracy"] == 1.0
    assert epochs[-1].train["loss"] < 0.3 * epochs[0].train["loss"]
    assert [e.epoch for e in epochs] == list(range(15))
    steps = [r for r in records if isinstance(r, Step)]
    assert [s.step for s in steps] == list(range(1, len(steps) + 1))
    assert state.images == sum(s.images for s in steps)


def test_same_seed_same_bits_other_seed_other_weights():
    one, other = (trained(plan_of(seed=4))[0] for _ in range(2))
    assert weights(one).equal(weights(other))
    assert not weights(one).equal(weights(trained(plan_of(seed=5))[0]))


def test_callers_random_state_does_not_matter():
    torch.manual_seed(99)
    model = net()
    torch.manual_seed(123)
    one = weights(trained(plan_of(), copy.deepcopy(model))[0])
    torch.manual_seed(321)
    assert one.equal(weights(trained(plan_of(), copy.deepcopy(model))[0]))


RESUMED = {
    "plain": {},
    "ema": {"ema": 0.9},
    "plateau": {"schedule": {"name": "plateau", "wait": 1, "factor": 0.5}},
    "adam": {"optimiser": {"name": "adamw", "lr": 0.01, "weight_decay": 0.01}},
    "rmsprop": {"optimiser": {"name": "rmsprop", "lr": 0.001}},
    "adagrad": {"optimiser": {"name": "adagrad", "lr": 0.01}},
    "mixup": {"augment": Augment(mixup=0.3, erase=3)},
    "patience": {"patience": 1, "epochs": 6},
}


@pytest.mark.parametrize("words", RESUMED.values(), ids=RESUMED)
def test_cut_at_any_record_and_go_on_bit_for_bit(words):
    """Stop after record k, carry the state through export and restore, go on: the same bits."""
    plan = plan_of(**words)
    whole, records = trained(plan)
    for cut in range(0, len(records), 2):
        state = State.start(net(), plan)
        training = fit(state, TASK, feeds_of(plan), plan, Choice(), ALONE)
        list(itertools.islice(training, cut))
        tensors, record = state.export()
        tensors = {name: t.clone() for name, t in tensors.items()}
        again = State.start(net(seed=7), plan)
        again.restore(tensors, record)
        rest = list(fit(again, TASK, feeds_of(plan), plan, Choice(), ALONE))
        assert weights(again).equal(weights(whole)), f"cut after record {cut}"
        assert again.best.score == whole.best.score
        for name, tensor in whole.best.weights.items():
            assert again.best.weights[name].equal(tensor)
        assert _timeless(again.history) == _timeless(whole.history)
        assert len(rest) == len(records) - cut


def _timeless(history):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


def test_accumulated_micro_batches_make_the_whole_gradient():
    """20 images at once, or in 3 pieces of 7, 7 and 6: weights differ by rounding only."""
    words = {"epochs": 1, "batch": 20, "augment": Augment()}
    one, _ = trained(plan_of(**words), smooth_net())
    cut, _ = trained(plan_of(**words, accumulate=3), smooth_net())
    assert cut.micro == 7
    torch.testing.assert_close(weights(one), weights(cut), rtol=1e-4, atol=1e-6)


def test_clipping_bounds_the_step():
    """With momentum 0 and the norm cut to 0.01 at rate 1, no step moves the weights by more."""
    optimiser = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    schedule = {"name": "constant"}
    plan = plan_of(epochs=1, clip=0.01, optimiser=optimiser, schedule=schedule)
    state = State.start(smooth_net(), plan)
    before = weights(state)
    for record in fit(state, TASK, feeds_of(plan), plan, Choice(), ALONE):
        if isinstance(record, Step):
            moved = (weights(state) - before).norm().item()
            assert moved == pytest.approx(min(record.norm, 0.01), rel=1e-3)
            before = weights(state)


class Hungry(nn.Module):
    """Runs out of memory above `most` images."""

    def __init__(self, most):
        super().__init__()
        self.inner, self.most = smooth_net(), most

    def forward(self, images):
        if self.training and len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner(images)


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_step():
    words = {"epochs": 1, "augment": Augment()}
    state, records = trained(plan_of(**words), Hungry(5))
    assert state.micro == 4
    assert "4 images at a time from now on; a step still takes 16" in records[0].note
    assert records[1].note is None
    plain, _ = trained(plan_of(**words), smooth_net())
    torch.testing.assert_close(weights(state), weights(plain), rtol=1e-4, atol=1e-6)


def test_out_of_memory_with_one_image_says_what_to_do():
    with pytest.raises(TrainingError, match="single image: use a smaller --size"):
        trained(plan_of(), Hungry(0))


def test_other_runtime_errors_are_not_taken_for_memory():
    with pytest.raises(RuntimeError, match="shape"):
        trained(plan_of(), nn.Sequential(nn.Flatten(), nn.Linear(5, 3)))


class Poisoned(nn.Module):
    """Feeds NaN from its layer `log` to batch norm after `healthy` calls in training."""

    def __init__(self, healthy):
        super().__init__()
        self.log, self.rest, self.healthy = Log(), net(), healthy

    def forward(self, images):
        if self.training:
            self.healthy -= 1
        return self.rest(self.log(images) if self.healthy < 0 else images)


class Log(nn.Module):
    def forward(self, x):
        return torch.log(-x.abs() - 1)


def test_divergence_stops_before_the_weights_are_spoilt():
    plan = plan_of(epochs=2)
    state = State.start(Poisoned(healthy=5), plan)
    good = None
    with pytest.raises(Diverged, match=r"step 6 \(epoch 2, batch 2\).*learning rate.*log") as bad:
        for record in fit(state, TASK, feeds_of(plan), plan, Choice(), ALONE):
            good = weights(state) if isinstance(record, Step) else good
    assert state.step == 5
    assert weights(state).equal(good)
    assert torch.isfinite(weights(state)).all()
    assert bad.value.batch.number == 1


def test_patience_stops_and_the_best_weights_are_kept():
    """With a rate that wrecks the net after the first epochs, the best epoch is an early one."""
    schedule = {"name": "step", "milestones": (0.2,), "factor": 0.999}
    plan = plan_of(epochs=30, patience=3, schedule=schedule)
    state, records = trained(plan)
    epochs = [r for r in records if isinstance(r, Epoch)]
    assert len(epochs) < 30
    assert not any(e.best for e in epochs[-3:])
    best = max(epochs, key=lambda e: e.val["accuracy"])
    assert state.best.epoch == best.epoch
    assert state.best.score == best.val["accuracy"]


def test_plateau_lowers_the_rate_after_waiting():
    plan = plan_of(epochs=12, schedule={"name": "plateau", "wait": 2, "factor": 0.1})
    _, records = trained(plan, Constant())
    rates = [r.rate for r in records if isinstance(r, Epoch)]
    assert rates[:3] == pytest.approx([0.05] * 3)
    assert rates[3:5] == pytest.approx([0.005] * 2)
    assert rates[5:7] == pytest.approx([0.0005] * 2)


class Constant(nn.Module):
    """Learns nothing that shows: the score never moves."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))

    def forward(self, images):
        return self.w.expand(len(images), 3) * 0 + torch.tensor([1.0, 0.0, 0.0])


def test_ema_is_the_average_by_hand():
    """d = min(decay, (1 + t) / (10 + t)): replayed from the weights after each step."""
    plan = plan_of(epochs=1, ema=0.25)
    state = State.start(smooth_net(), plan)
    expected, count = None, 0
    for record in fit(state, TASK, feeds_of(plan), plan, Choice(), ALONE):
        if isinstance(record, Step):
            d = min(0.25, (1 + count) / (10 + count))
            now = weights(state)
            expected = now if count == 0 else d * expected + (1 - d) * now
            count += 1
    average = torch.cat([t.double().flatten() for t in state.ema.module.state_dict().values()])
    torch.testing.assert_close(average, expected, rtol=1e-5, atol=1e-6)


def test_no_validation_part_judges_by_training_loss():
    plan = plan_of()
    feeds = Feeds(feeds_of(plan).train, None)
    state, records = trained(plan, feeds=feeds)
    epochs = [r for r in records if isinstance(r, Epoch)]
    assert all(e.val is None for e in epochs)
    assert state.best.score == pytest.approx(max(-e.train["loss"] for e in epochs))


class Blind(Classify):
    """Can judge nothing, as where no pixel of the validation part has a label."""

    def scores(self, tally):
        return dict.fromkeys(super().scores(tally), math.nan)


def test_a_validation_part_that_judges_nothing_leaves_it_to_the_training_loss():
    plan = plan_of()
    state = State.start(net(), plan)
    records = list(fit(state, Blind(CLASSES), feeds_of(plan), plan, Choice(), ALONE))
    epochs = [r for r in records if isinstance(r, Epoch)]
    losses = [epoch.train["loss"] for epoch in epochs]
    assert state.best.epoch == losses.index(min(losses))
    assert state.best.weights.keys() == state.model.state_dict().keys()


def test_bf16_trains_too():
    state = State.start(net(), plan_of(epochs=15))
    plan = plan_of(epochs=15)
    choice = Choice(precision="bf16", channels_last=True)
    *_, last = fit(state, TASK, feeds_of(plan), plan, choice, ALONE)
    assert last.val["accuracy"] > 0.9
    assert all(p.dtype == torch.float32 for p in state.model.parameters())


def test_training_leaves_no_nan_in_scores_of_a_healthy_run():
    _, records = trained(plan_of())
    epochs = [r for r in records if isinstance(r, Epoch)]
    assert all(math.isfinite(v) for e in epochs for v in (*e.train.values(), *e.val.values()))
