"""A head over a frozen body: the body works once, and the head learns as in the whole net."""

import numpy as np
import pytest
import torch
from torch import nn

import hubel
from hubel.data.augment import Augment
from hubel.data.record import ArraySource
from hubel.runs.drive import Interrupted
from hubel.training import head_alone
from hubel.training.head_alone import is_head_alone
from hubel.training.plan import make_plan

WORDS = {"epochs": 3, "batch": 8, "tune": "off", "device": "cpu", "augment": Augment()}


@pytest.fixture(scope="module")
def data():
    chance = np.random.default_rng(0)
    targets = np.arange(60) % 3
    images = chance.integers(0, 90, (60, 1, 12, 12), dtype=np.uint8)
    images += (targets * 60).astype(np.uint8)[:, None, None, None]
    parts = np.where(np.arange(60) < 45, "train", "test")
    return ArraySource(images, targets, ("a", "b", "c"), name="greys", origin="", parts=parts)


class Net(nn.Module):
    """Counts how many images its body sees; its head's answer may be changed afterwards."""

    def __init__(self, after=None):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.head = nn.Linear(16, 3)
        self.after = after or (lambda x: x)
        self.images = 0

    def forward(self, x):
        if torch.is_grad_enabled() or not torch.is_inference_mode_enabled():
            self.images += len(x)
        return self.after(self.head(self.body(x)))


def trained(data, tmp_path, name, after=None, **words):
    torch.manual_seed(0)
    net = Net(after)
    result = hubel.train(net, data, out=tmp_path, name=name, **(WORDS | words))
    return result, net


def test_the_body_sees_every_training_image_once(data, tmp_path):
    result, net = trained(data, tmp_path, "once", freeze="body")
    train = len(hubel.load_run(tmp_path / "once", model=net).run.split(data).train)
    assert train <= net.images < 2 * train  # the report looks at a few more; epochs are three
    assert result.metrics["train"]["accuracy"] > 0.4


def test_it_learns_what_the_whole_net_would(data, tmp_path, monkeypatch):
    """Against training that sends every batch through the body, in eval mode as well."""
    _, quick = trained(data, tmp_path, "quick", freeze="body")
    monkeypatch.setattr("hubel.training.update.is_head_alone", lambda plan: False)
    _, slow = trained(data, tmp_path, "slow", freeze="body")
    torch.testing.assert_close(quick.head.weight, slow.head.weight, rtol=1e-4, atol=1e-6)
    assert quick.body[0].weight.equal(slow.body[0].weight)
    assert quick.body[1].running_mean.equal(slow.body[1].running_mean)


def test_a_net_that_goes_on_behind_its_head_trains_as_a_whole(data, tmp_path):
    _, net = trained(data, tmp_path, "behind", after=lambda z: z.log_softmax(1) * 2, freeze="body")
    assert net.images > 100


def test_features_without_room_train_as_a_whole(data, tmp_path, monkeypatch):
    monkeypatch.setattr(head_alone, "ROOM", 100)
    _, net = trained(data, tmp_path, "room", freeze="body")
    assert net.images > 100


def test_resumed_it_ends_bit_equal(data, tmp_path):
    whole, _ = trained(data, tmp_path, "whole", freeze="body")

    def stop(event):
        if getattr(event, "step", 0) == 7 and not hasattr(event, "val"):
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, Interrupted)):
        trained(data, tmp_path, "parts", freeze="body", tell=stop, checkpoint_steps=1)
    torch.manual_seed(0)
    rest = hubel.resume(tmp_path / "parts", model=Net(), data=data)
    assert rest.model.head.weight.equal(whole.model.head.weight)


@pytest.mark.parametrize(
    ("words", "alone"),
    [
        ({"freeze": "body"}, True),
        ({"freeze": "body", "augment": Augment(flip=True)}, False),
        ({"freeze": "body", "resize": "mixed"}, False),
        ({"freeze": "body", "engine": "explicit"}, False),
        ({"freeze": "layer2"}, False),
        ({}, False),
    ],
)
def test_which_plans_keep_features(words, alone):
    assert is_head_alone(make_plan(source="", model="m", **words)) == alone
