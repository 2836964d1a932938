"""Feature maps: the true answers of the layers, the most active maps, a fair spread over depth."""

import numpy as np
import pytest
import torch
from named_nets import SMALL, every, shape
from torch import nn

from hubel.models.names import build
from hubel.probe.features import feature_maps


def lenet():
    torch.manual_seed(0)
    return build("lenet5", classes=10, channels=1, size=(28, 28))


def test_every_stage_of_a_small_net_in_order():
    found = feature_maps(lenet(), torch.randn(3, 1, 28, 28))
    assert [f.layer for f in found] == [
        f"features.{stage}{n}" for n in (1, 2) for stage in ("conv", "relu", "pool")
    ]
    assert [f.kind for f in found[:3]] == ["Conv2d", "ReLU", "MaxPool2d"]
    assert [f.maps.shape for f in found[::3]] == [(3, 6, 28, 28), (3, 16, 10, 10)]
    assert all(f.maps.dtype == np.float32 for f in found)


def test_values_are_the_layers_own():
    net, images = lenet(), torch.randn(2, 1, 28, 28)
    found = {f.layer: f for f in feature_maps(net, images)}
    with torch.no_grad():
        truth = net.features[:4](images)
    np.testing.assert_array_equal(found["features.conv2"].maps, truth.numpy())
    np.testing.assert_array_equal(found["features.conv2"].indices, np.arange(16))


def test_most_active_maps_are_kept_in_order():
    conv = nn.Conv2d(1, 5, 1, bias=False)
    strengths = torch.tensor([0.1, -9.0, 3.0, 0.0, 4.0])
    conv.weight.data = strengths.view(5, 1, 1, 1)
    (found,) = feature_maps(nn.Sequential(conv), torch.ones(2, 1, 4, 4), most_maps=3)
    assert found.indices.tolist() == [1, 2, 4]
    assert found.maps[0, :, 0, 0].tolist() == [-9.0, 3.0, 4.0]


def test_deep_nets_are_spread_from_first_to_last_activation():
    net = build("resnet20", classes=10, channels=3, size=(32, 32))
    found = [f.layer for f in feature_maps(net, torch.randn(2, 3, 32, 32), most_layers=5)]
    assert len(found) == len(set(found)) == 5
    assert found[0] == "relu"
    assert found[-1] == "layer3.2.relu2"
    assert {name.split(".")[0] for name in found} == {"relu", "layer1", "layer2", "layer3"}


def test_reused_and_in_place_layers_show_what_each_gave():
    class Reused(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu = nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True)

        def forward(self, x):
            return self.relu(self.relu(self.conv(x)) - 1)

    net, images = Reused(), torch.randn(2, 1, 3, 3)
    conv, first, second = feature_maps(net, images)
    assert [first.layer, second.layer] == ["relu", "relu#2"]
    with torch.no_grad():
        np.testing.assert_array_equal(conv.maps, net.conv(images).numpy())  # before the ReLU
    np.testing.assert_array_equal(first.maps, conv.maps.clip(min=0))
    np.testing.assert_array_equal(second.maps, (first.maps - 1).clip(min=0))


def test_single_pixels_and_flat_nets_have_no_maps():
    assert (
        feature_maps(build("mlp", classes=3, channels=1, size=(8, 8)), torch.ones(1, 1, 8, 8)) == []
    )
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1))
    assert [f.kind for f in feature_maps(net, torch.ones(1, 1, 8, 8))] == ["Conv2d"]


def test_nan_maps_do_not_stop_it():
    found = feature_maps(lenet(), torch.full((1, 1, 28, 28), float("nan")))
    assert np.isnan(found[0].maps).all()


@pytest.mark.parametrize("name", SMALL)
def test_leaves_the_model_as_it_was(name):
    _, channels, *size = shape(name)
    net = build(name, classes=3, channels=channels, size=tuple(size))
    images = torch.randn(shape(name, images=4))
    every(net(images)).backward()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    gradients = {key: p.grad.clone() for key, p in net.named_parameters()}
    chance = torch.get_rng_state()
    feature_maps(net, images)
    assert all(net.state_dict()[key].equal(value) for key, value in before.items())
    assert all(p.grad.equal(gradients[key]) for key, p in net.named_parameters())
    assert all(module.training and not module._forward_hooks for module in net.modules())
    assert torch.get_rng_state().equal(chance)
