"""He initialisation: a signal keeps its strength through 20 layers, and others do not."""

import pytest
import torch
from named_nets import SMALL, logits, shape
from torch import nn

from hubel.models.initialise import initialise
from hubel.models.names import build


def deep(kind):
    """20 wide layers with ReLU, and a last one. Narrow ones would stray: chance adds up."""
    if kind == "linear":
        layers = [nn.Linear(512, 512) for _ in range(21)]
    else:
        layers = [nn.Conv2d(32, 32, 3, padding=1, padding_mode="circular") for _ in range(21)]
    pairs = [[layer, nn.ReLU()] for layer in layers[:-1]]
    return nn.Sequential(*(module for pair in pairs for module in pair), layers[-1])


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_power_survives_20_layers(kind):
    """The mean square after every layer stays within a factor of 4 of the input's."""
    torch.manual_seed(0)
    net = initialise(deep(kind))
    x = torch.randn(64, 512) if kind == "linear" else torch.randn(8, 32, 8, 8)
    with torch.no_grad():
        for layer in net[:-1]:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                power = 2 * x.square().mean().item()  # a ReLU lets half through
                assert 0.25 < power < 4


def test_torchs_own_initialisation_does_not_pass_that_test():
    torch.manual_seed(0)
    with torch.no_grad():
        assert 2 * deep("linear")[:-1](torch.randn(64, 512)).square().mean() < 0.01


def test_spread_is_of_the_fan_in_and_the_last_layer_is_calmer():
    torch.manual_seed(0)
    net = initialise(
        nn.Sequential(nn.Conv2d(6, 500, 3, groups=2), nn.Flatten(), nn.Linear(900, 500))
    )
    assert net[0].weight.std().item() == pytest.approx((2 / 27) ** 0.5, rel=0.02)
    assert net[2].weight.std().item() == pytest.approx((1 / 900) ** 0.5, rel=0.02)
    assert not net[0].bias.any()
    assert not net[2].bias.any()


def test_batch_norms_start_anew():
    net = nn.Sequential(nn.BatchNorm2d(3))
    net(torch.randn(4, 3, 5, 5) * 7 + 2)
    nn.init.constant_(net[0].weight, 5)
    nn.init.constant_(net[0].bias, 5)
    initialise(net)
    fresh = nn.BatchNorm2d(3).state_dict()
    assert all(net[0].state_dict()[name].equal(value) for name, value in fresh.items())


@pytest.mark.parametrize("name", [name for name in SMALL if name != "lenet5_1998"])
def test_every_model_starts_with_logits_of_order_one(name):
    """A fresh net is about as unsure as it can be: its loss is near ln 10, far from 10."""
    torch.manual_seed(0)
    _, channels, *size = shape(name)
    net = build(name, classes=10, channels=channels, size=tuple(size))
    assert 0.1 < logits(net(torch.randn(shape(name, images=32)))).std() < 4


def test_a_net_may_draw_its_weights_itself():
    torch.manual_seed(0)
    net = build("lenet5_1998", classes=10, channels=1, size=(32, 32))
    assert 0.9 * 2.4 / 5 < net.c1.weight.abs().max() <= 2.4 / 5
