"""The compact net: counts by hand, the forward pass spelt out, its options."""

import pytest
import torch
import torch.nn.functional as F

from hubel.errors import ModelError
from hubel.models.compact import compact


@pytest.mark.parametrize("w", [8, 24])
def test_parameters_by_hand(w):
    net = compact(classes=10, channels=1, size=(28, 28), width=w)
    convs = 9 * (w + w * 2 * w + 2 * w * 2 * w + 2 * w * 4 * w + 4 * w * 4 * w)
    norms = 2 * (w + 2 * w + 2 * w + 4 * w + 4 * w)
    assert sum(p.numel() for p in net.parameters()) == convs + norms + (4 * w + 1) * 10


def test_forward_spelt_out():
    net = compact(classes=5, channels=3, size=(13, 18), width=4, dropout=0.5)
    x = torch.randn(4, 3, 13, 18)
    net(x)  # batch norms learn statistics worth comparing
    net.eval()
    w, y = net.state_dict(), x

    def conv_bn_relu(y, stage, number):
        y = F.conv2d(y, w[f"features.{stage}.conv{number}.weight"], padding=1)
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(y, *(w[f"features.{stage}.bn{number}.{key}"] for key in keys)).relu()

    y = F.max_pool2d(conv_bn_relu(y, "stage1", 1), 2)
    y = F.max_pool2d(conv_bn_relu(conv_bn_relu(y, "stage2", 1), "stage2", 2), 2)
    y = conv_bn_relu(conv_bn_relu(y, "stage3", 1), "stage3", 2).amax(dim=(2, 3))
    torch.testing.assert_close(net(x), y @ w["fc.weight"].T + w["fc.bias"])


def test_too_small_and_wrong_options_are_named():
    with pytest.raises(ModelError, match=r"compact needs .* 4 pixels high, given 3x9.*after pool2"):
        compact(classes=5, channels=3, size=(3, 9))
    with pytest.raises(ModelError, match="width must be a whole number of at least 1, given 0"):
        compact(classes=5, channels=3, size=(9, 9), width=0)
    with pytest.raises(ModelError, match="dropout must be"):
        compact(classes=5, channels=3, size=(9, 9), dropout=-0.1)
