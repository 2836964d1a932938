"""What stands still stands still bit for bit, and moves from the epoch that it may move in."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from hubel.data.augment import Augment
from hubel.data.feed import Feed
from hubel.data.preprocess import Preprocess
from hubel.data.record import ArraySource
from hubel.data.store import MemoryStore
from hubel.errors import ModelError
from hubel.models.names import build
from hubel.tasks.classify import Classify
from hubel.training.distribute import Crew
from hubel.training.fit import Epoch, Feeds, Step, fit
from hubel.training.freeze import Freezer, freeze
from hubel.training.plan import make_plan
from hubel.training.speed import Choice
from hubel.training.state import State

CPU = torch.device("cpu")
ALONE = Crew(0, 1, CPU)
CLASSES = ("left", "right", "both")
HEAD = ("11.weight", "11.bias")
ENGINES = pytest.mark.parametrize("engine", ["torch", "explicit", "native"])


def net(seed=0):
    """Two norms with weights (1 and 7), and one without (4). No bias that a norm would cancel."""
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6, affine=False), nn.ReLU()),
        *(nn.Conv2d(6, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3)),
    )


def plan_of(**words):
    start = {"source": "noise", "model": "own", "epochs": 3, "batch": 16, "augment": Augment()}
    return make_plan(**{**start, "optimiser": {"lr": 0.05, "weight_decay": 1e-2}, **words})


def feeds_of(plan):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (60, 1, 9, 7), dtype=np.uint8)
    source = ArraySource(images, np.arange(60) % 3, CLASSES, name="noise", origin="here")
    store = MemoryStore(source, Preprocess(1, 9, 7, "stretch", (0.5,), (0.3,)), CPU)
    targets = torch.from_numpy(source.targets)
    train = Feed(store, torch.arange(48), targets, 3, plan.batch, CPU, plan.seed, True)
    return Feeds(train, Feed(store, torch.arange(48, 60), targets, 3, 64, CPU))


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def moved(before, after):
    return {name for name in before if not before[name].equal(after[name])}


def going(state, plan):
    """The training from `state` on, record by record, by the plan's engine."""
    choice = Choice(native=plan.engine == "native")
    return fit(state, Classify(CLASSES), feeds_of(plan), plan, choice, ALONE)


def walk(plan, model):
    """(record, what the whole state was after it) of every record, the fresh state first."""
    freeze(model, plan.freeze)
    state = State.start(model, plan)
    yield None, snapshot(state.model)
    for record in going(state, plan):
        yield record, snapshot(state.model)


# For good


@ENGINES
@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop"])
def test_a_frozen_body_is_bit_equal_while_the_head_moves(engine, name):
    optimiser = {"name": name, "lr": 0.01, "weight_decay": 0.1}
    states = list(walk(plan_of(freeze="body", engine=engine, optimiser=optimiser), net()))
    assert len(states) == 1 + 3 * 3 + 3
    for (_, before), (record, after) in itertools.pairwise(states):
        assert moved(before, after) == (set(HEAD) if isinstance(record, Step) else set())


def test_the_loss_of_a_frozen_net_is_that_of_its_eval_mode():
    """Norms with learned statistics, far from those of the batch: the loss says which were used."""
    model = net()
    for norm in (model[1], model[4], model[7]):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(2, 3)
    plan = plan_of(freeze="body", epochs=2)
    feed = feeds_of(plan).train
    first = next(feed.batches(0))
    expected = nn.functional.cross_entropy(model.eval()(first.images), first.targets).item()
    model.train()
    losses = [record.loss for record, _ in walk(plan, model) if isinstance(record, Step)]
    assert losses[0] == pytest.approx(expected, rel=1e-5)


@ENGINES
def test_a_layer_and_all_before_it(engine):
    """Up to norm 1: convolution 0 and norm 1 stand, what comes after moves, statistics too."""
    *_, (_, last) = states = list(walk(plan_of(freeze="1", engine=engine), net()))
    still = {name for name in last if name.split(".")[0] in ("0", "1")}
    assert moved(states[0][1], last) == set(last) - still


def test_a_path_inside_holds_what_was_registered_before_it():
    model = build("resnet20", classes=3, channels=3)
    freeze(model, "layer2.0.conv1")
    still = [name for name, p in model.named_parameters() if not p.requires_grad]
    order = [name for name, _ in model.named_parameters()]
    assert still == order[: order.index("layer2.0.conv1.weight") + 1]


def test_a_whole_stage():
    model = build("mobilenet_v2", classes=3, channels=3)
    freeze(model, "features")
    still = {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad}
    assert still == {"features"}
    moving = [name for name, p in model.named_parameters() if p.requires_grad]
    assert moving == ["classifier.1.weight", "classifier.1.bias"]


def test_nothing_asked_nothing_frozen():
    model = net()
    freeze(model, None)
    assert all(p.requires_grad for p in model.parameters())


def test_an_unknown_layer_is_named_with_the_nearest():
    model = build("resnet20", classes=3, channels=3)
    with pytest.raises(
        ModelError, match=r"unknown layer to freeze up to 'layr2': did you mean 'la"
    ):
        freeze(model, "layr2")
    assert all(p.requires_grad for p in model.parameters())


def test_freezing_everything_is_refused():
    with pytest.raises(ModelError, match="freezing up to 'fc' leaves nothing to learn"):
        freeze(build("resnet20", classes=3, channels=3), "fc")


# For the first epochs


@ENGINES
def test_the_body_thaws_at_its_epoch(engine):
    """Two epochs of the head alone, statistics included; then everything, statistics included."""
    plan = plan_of(head_epochs=2, epochs=4, engine=engine)
    states = list(walk(plan, net()))
    for (_, before), (record, after) in itertools.pairwise(states):
        if isinstance(record, Epoch):
            assert moved(before, after) == set()
        else:
            expected = set(HEAD) if record.epoch < 2 else set(after)
            assert moved(before, after) == expected, f"step {record.step}"


def test_what_was_frozen_for_good_does_not_thaw():
    plan = plan_of(head_epochs=1, freeze="1")
    *_, (_, last) = states = list(walk(plan, net()))
    assert moved(states[0][1], last) == {
        name for name in last if name.split(".")[0] not in ("0", "1")
    }


@ENGINES
def test_cut_at_any_record_and_go_on_bit_for_bit_across_the_thaw(engine):
    """Half the cuts lie before the thaw, half behind it, one just at it."""
    optimiser = {"name": "adamw", "lr": 0.01, "weight_decay": 0.1}
    words = {"head_epochs": 1, "body_rate": 0.1, "epochs": 2, "ema": 0.9, "optimiser": optimiser}
    plan = plan_of(engine=engine, **words)
    whole = State.start(net(), plan)
    records = list(going(whole, plan))
    for cut in range(1, len(records)):
        state = State.start(net(), plan)
        list(itertools.islice(going(state, plan), cut))
        tensors, record = state.export()
        tensors = {name: t.clone() for name, t in tensors.items()}
        again = State.start(net(seed=7), plan)
        again.restore(tensors, record)
        list(going(again, plan))
        assert not moved(snapshot(whole.model), snapshot(again.model)), f"cut after record {cut}"
        assert not moved(whole.best.weights, again.best.weights)


def test_the_mode_is_right_whatever_it_was_before():
    """Between two steps somebody may judge the net, or set its mode."""
    model = net()
    freeze(model, "body")
    freezer = Freezer(model, plan_of(freeze="body"))
    freezer(0)
    for before in (model.train, model.eval, model[1].train, model[1].eval):
        before()
        freezer.train()
        assert model.training
        assert [n for n, layer in enumerate(model) if not layer.training] == [1, 4, 7]


def test_a_freezer_says_when_something_is_new():
    freezer = Freezer(net(), plan_of(head_epochs=2, epochs=4))
    assert [freezer(epoch) for epoch in (0, 0, 1, 2, 2, 3)] == [
        True,
        False,
        False,
        True,
        False,
        False,
    ]


# The body's share of the rate


def velocities(body_rate):
    """What the first step of SGD adds to every weight, by name."""
    plan = plan_of(body_rate=body_rate, optimiser={"lr": 0.1, "momentum": 0.0})
    state = State.start(net(), plan)
    next(going(state, plan))
    return {name: state.optimiser.state[p]["v"] for name, p in state.model.named_parameters()}


def test_the_bodys_first_step_is_its_share_exactly():
    """A quarter, a power of two: scaling the rate by it changes no digit of the product."""
    whole, quarter = velocities(1.0), velocities(0.25)
    for name in whole:
        assert whole[name].abs().max() > 0
        assert quarter[name].equal(whole[name] * (1.0 if name in HEAD else 0.25)), name


def test_the_share_stays_through_the_schedule():
    plan = plan_of(body_rate=0.1, schedule={"name": "cosine"})
    state = State.start(net(), plan)
    seen = []
    for record in going(state, plan):
        if isinstance(record, Step):
            seen.append(record.rate)
            rates = sorted({group["lr"] for group in state.optimiser.param_groups})
            assert rates == [pytest.approx(0.1 * record.rate), record.rate]
    assert seen[0] > 10 * seen[-1]
