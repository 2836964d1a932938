"""LeNet-5 and net32: counts by hand, the forward pass spelt out, paddings, smallest images."""

import pytest
import torch
import torch.nn.functional as F

from hubel.errors import ModelError
from hubel.models.lenet import lenet5, net32


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("side", [28, 32])
def test_lenet5_has_61706_parameters_at_28_and_at_32(side):
    net = lenet5(classes=10, channels=1, size=(side, side))
    assert net.classifier.fc1.in_features == 400
    assert count(net) == 156 + 2416 + 48_120 + 10_164 + 850 == 61_706


def test_net32_by_hand():
    by_hand = (3 * 25 + 1) * 6 + (6 * 25 + 1) * 16 + 401 * 120 + 121 * 84 + 85 * 10
    assert count(net32(classes=10, channels=3, size=(32, 32))) == by_hand == 62_006


@pytest.mark.parametrize(("size", "padding"), [((28, 28), 2), ((32, 40), 0), ((20, 36), (2, 0))])
def test_lenet5_spelt_out(size, padding):
    net = lenet5(classes=7, channels=2, size=size)
    x = torch.randn(3, 2, *size)
    w = net.state_dict()
    y = F.conv2d(x, w["features.conv1.weight"], w["features.conv1.bias"], padding=padding)
    y = F.max_pool2d(y.relu(), 2)
    y = F.conv2d(y, w["features.conv2.weight"], w["features.conv2.bias"])
    y = F.max_pool2d(y.relu(), 2).flatten(1)
    for layer in ("fc1", "fc2", "fc3"):
        y = y @ w[f"classifier.{layer}.weight"].T + w[f"classifier.{layer}.bias"]
        y = y.relu() if layer != "fc3" else y
    torch.testing.assert_close(net(x), y)


def test_too_small_says_how_large_and_why():
    with pytest.raises(
        ModelError, match=r"lenet5 needs .* 12 pixels high, given 11x40.*after pool2"
    ):
        lenet5(classes=2, channels=1, size=(11, 40))
    with pytest.raises(
        ModelError, match=r"net32 needs .* 16 pixels wide, given 16x15.*after pool2"
    ):
        net32(classes=2, channels=1, size=(16, 15))
