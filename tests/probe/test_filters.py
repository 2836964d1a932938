"""The first layer as pictures."""

import numpy as np
import torch
from torch import nn

from hubel.models.names import build
from hubel.probe.filters import first_filters


def test_first_convolution_as_it_is():
    net = build("lenet5", classes=10, channels=1, size=(28, 28))
    found = first_filters(net)
    assert found.name == "features.conv1"
    assert found.weights.dtype == np.float32
    np.testing.assert_array_equal(found.weights, net.features.conv1.weight.detach())
    found.weights[:] = 0
    assert net.features.conv1.weight.abs().sum() > 0  # a copy


def test_fully_connected_layer_from_pixels():
    """The picture of class 2 is where that class's logit gets its light from."""
    net = build("softmax", classes=4, channels=3, size=(5, 6))
    found = first_filters(net, (3, 5, 6))
    assert found.weights.shape == (4, 3, 5, 6)
    image = torch.zeros(1, 3, 5, 6)
    image[0, 1, 4, 2] = 1
    assert net(image)[0, 2].item() == found.weights[2, 1, 4, 2]


def test_none_where_there_is_nothing_to_draw():
    net = build("mlp", classes=4, channels=3, size=(5, 6))
    assert first_filters(net) is None
    assert first_filters(net, (3, 5, 5)) is None
    assert first_filters(nn.ReLU(), (3, 5, 5)) is None
    late = nn.Sequential(nn.Linear(7, 9), nn.Conv2d(1, 1, 3))
    assert first_filters(late, (3, 5, 5)) is None


def test_half_precision_comes_as_float32():
    assert first_filters(nn.Conv2d(1, 2, 3).bfloat16()).weights.dtype == np.float32
