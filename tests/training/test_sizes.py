"""Small images first, or all sizes mixed: which sizes come when, and that nothing else changes."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import hubel
from hubel.data.augment import Augment
from hubel.data.feed import Feed
from hubel.data.preprocess import Preprocess
from hubel.data.record import ArraySource
from hubel.data.store import MemoryStore
from hubel.errors import ModelError
from hubel.models.names import build
from hubel.tasks.classify import Classify
from hubel.training.distribute import Crew
from hubel.training.fit import Feeds, Step, fit
from hubel.training.plan import make_plan
from hubel.training.sizes import must_resize, resized, share_of
from hubel.training.speed import Choice
from hubel.training.state import State

CPU = torch.device("cpu")
ALONE = Crew(0, 1, CPU)


def plan_of(resize, **words):
    start = {"source": "noise", "model": "own", "epochs": 3, "batch": 16, "augment": Augment()}
    return make_plan(resize=resize, **{**start, "optimiser": {"lr": 0.05}, **words})


# How large


@pytest.mark.parametrize(
    ("epochs", "shares"),
    [
        (6, [0.5, 0.625, 0.75, 0.875, 1, 1]),
        (3, [0.5, 0.75, 1]),
        (2, [0.5, 1]),
        (1, [1]),
    ],
)
def test_progressive_shares_by_hand(epochs, shares):
    """From half the side to all of it in two thirds of the epochs; the last one is always whole."""
    plan = plan_of("progressive", epochs=epochs)
    assert [share_of(plan, epoch, 5) for epoch in range(epochs)] == pytest.approx(shares)


def test_progressive_only_grows_and_ends_whole():
    for epochs in range(1, 40):
        plan = plan_of("progressive", epochs=epochs)
        shares = [share_of(plan, epoch, 0) for epoch in range(epochs)]
        assert shares == sorted(shares)
        assert shares[-1] == 1
        assert sum(share == 1 for share in shares) >= epochs // 3


def test_mixed_is_a_function_of_seed_and_step():
    shares = [share_of(plan_of("mixed", seed=3), 0, step) for step in range(400)]
    assert shares == [share_of(plan_of("mixed", seed=3), 9, step) for step in range(400)]
    assert shares != [share_of(plan_of("mixed", seed=4), 0, step) for step in range(400)]
    assert len(set(shares)) > 390
    assert 0.5 <= min(shares) < 0.52
    assert 0.98 < max(shares) <= 1
    assert np.mean(shares) == pytest.approx(0.75, abs=0.03)  # uniform over 0.5 to 1


def test_mixed_leaves_the_callers_chance_alone():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    share_of(plan_of("mixed"), 0, 0)
    assert torch.rand(2).equal(expected)


def test_none_is_whole():
    assert [share_of(plan_of("none"), epoch, epoch) for epoch in range(3)] == [1, 1, 1]


# The images


@given(st.integers(1, 70), st.integers(1, 70), st.floats(0.5, 1))
def test_sides_are_multiples_of_eight_near_the_share_or_whole(height, width, share):
    found = resized(torch.zeros(1, 1, height, width), share).shape[2:]
    for side, after in zip((height, width), found, strict=True):
        assert after <= side
        assert after == side or after % 8 == 0
        assert abs(after - share * side) <= max(4, 8 - share * side)


@pytest.mark.parametrize(("share", "size"), [(0.5, (16, 24)), (0.75, (24, 32)), (1, (32, 46))])
def test_sizes_by_hand(share, size):
    """32 x 46: halves 16 and 23, which is nearest to 24; three quarters 24 and 34.5, to 32."""
    assert resized(torch.zeros(1, 1, 32, 46), share).shape[2:] == size


def test_whole_images_are_not_touched():
    images = torch.rand(2, 3, 28, 28)
    assert resized(images, 1) is images


def test_pixels_are_pillows_antialiased_bilinear():
    draw = np.random.default_rng(0)
    image = draw.normal(size=(48, 32)).astype(np.float32)
    expected = Image.fromarray(image).resize((24, 32), Image.Resampling.BILINEAR)
    found = resized(torch.from_numpy(image)[None, None], 0.7)[0, 0]
    np.testing.assert_allclose(found.numpy(), np.asarray(expected), atol=1e-5)


# The nets


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2", "googlenet"])
def test_nets_with_global_pooling_may(name):
    net = build(name, classes=3, channels=3, size=(32, 32))
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    must_resize(net, (3, 32, 32))
    assert net.training
    assert all(tensor.equal(before[key]) for key, tensor in net.state_dict().items())


@pytest.mark.parametrize("name", ["lenet5", "mlp", "softmax"])
def test_nets_of_one_size_may_not(name):
    net = build(name, classes=3, channels=1, size=(28, 28))
    with pytest.raises(ModelError, match=r"any image size, with global pooling .*\(2, 1, 16, 16\)"):
        must_resize(net, (1, 28, 28))
    assert net.training


def test_a_net_that_answers_small_images_otherwise_may_not():
    """No error from torch, but 3 numbers for an image of 24 x 8 are 2 for 16 x 8."""
    net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten())
    with pytest.raises(ModelError, match=r"it gives \(2, 2\) in place of \(2, 3\)"):
        must_resize(net, (1, 24, 8))


def test_the_verb_refuses_them_and_leaves_no_run(tmp_path):
    with pytest.raises(ModelError, match="resizing needs a net that takes any image size"):
        hubel.train("lenet5", "sample", out=tmp_path / "runs", resize="mixed", epochs=1)
    assert not list(tmp_path.glob("runs/*"))


# The training


class Watched(nn.Module):
    """A small residual-free net with a norm, dropout and global pooling; notes what comes in."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 5, 3, padding=1),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(5, 3),
        )
        self.seen = []

    def forward(self, images):
        self.seen.append((self.training, images.shape[2], images.shape[3]))
        return self.layers(images)


def feeds_of(plan):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (60, 1, 32, 24), dtype=np.uint8)
    source = ArraySource(images, np.arange(60) % 3, ("a", "b", "c"), name="noise", origin="here")
    store = MemoryStore(source, Preprocess(1, 32, 24, "stretch", (0.5,), (0.3,)), CPU)
    targets = torch.from_numpy(source.targets)
    train = Feed(store, torch.arange(48), targets, 3, plan.batch, CPU, plan.seed, True)
    return Feeds(train, Feed(store, torch.arange(48, 60), targets, 3, 64, CPU))


def trained(plan, state=None, steps=None):
    state = state or State.start(Watched(), plan)
    walk = fit(state, Classify(("a", "b", "c")), feeds_of(plan), plan, Choice(), ALONE)
    return state, list(itertools.islice(walk, steps))


def test_steps_see_their_size_and_judging_sees_whole_images():
    state, _ = trained(plan_of("progressive"))
    training = [size for training, *size in state.model.seen if training]
    judging = [size for training, *size in state.model.seen if not training]
    assert training == [[16, 16]] * 3 + [[24, 16]] * 3 + [[32, 24]] * 3  # 18 is nearest to 16
    assert judging == [[32, 24]] * 3


def test_mixed_trains_at_many_sizes():
    state, _ = trained(plan_of("mixed", epochs=8))
    sizes = {tuple(size) for training, *size in state.model.seen if training}
    assert sizes == {(16, 16), (24, 16), (24, 24), (32, 24)}


@pytest.mark.parametrize("engine", ["torch", "explicit"])
@pytest.mark.parametrize("resize", ["progressive", "mixed"])
def test_cut_at_any_record_and_go_on_bit_for_bit(resize, engine):
    plan = plan_of(resize, engine=engine)
    whole, records = trained(plan)
    for cut in range(1, len(records), 2):
        state, _ = trained(plan, steps=cut)
        tensors, record = state.export()
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        again = State.start(Watched(seed=5), plan)
        again.restore(tensors, record)
        trained(plan, again)
        for name, tensor in whole.model.state_dict().items():
            assert again.model.state_dict()[name].equal(tensor), f"{name}, cut after {cut}"


@pytest.mark.parametrize("resize", ["progressive", "mixed"])
def test_both_engines_take_the_same_path(resize):
    losses = []
    for engine in ("torch", "explicit"):
        _, records = trained(plan_of(resize, engine=engine))
        losses.append([record.loss for record in records if isinstance(record, Step)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert len(set(losses[0])) == 9
