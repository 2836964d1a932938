"""Small ResNets: the family's counts, option A by hand, and the whole forward pass spelt out."""

import pytest
import torch
import torch.nn.functional as F

from hubel.models.initialise import initialise
from hubel.models.resnet import Shortcut, SmallResNet, resnet20


def count(net):
    return sum(p.numel() for p in net.parameters())


COUNTS = {3: 269_722, 5: 464_154, 7: 658_586, 9: 853_018, 18: 1_727_962}


@pytest.mark.parametrize(("blocks", "parameters"), COUNTS.items())
def test_the_family_counts_exactly_and_plain_twins_alike(blocks, parameters):
    assert count(SmallResNet(blocks, classes=10, channels=3)) == parameters
    assert count(SmallResNet(blocks, classes=10, channels=3, residual=False)) == parameters


def test_option_a_by_hand():
    x = torch.arange(2 * 3 * 3.0).view(1, 2, 3, 3)
    expected = torch.zeros(1, 3, 2, 2)
    expected[0, 0] = torch.tensor([[0.0, 2.0], [6.0, 8.0]])
    expected[0, 1] = torch.tensor([[9.0, 11.0], [15.0, 17.0]])
    assert Shortcut(1, 2)(x).equal(expected)


def test_names_are_torchvisions():
    names = set(resnet20(classes=10, channels=3, size=(32, 32)).state_dict())
    for name in ("conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "fc.bias"):
        assert name in names
    assert "layer3.2.bn2.num_batches_tracked" in names
    assert not any("downsample" in name for name in names)  # option A learns nothing


def spelt_out(w, x, residual=True):
    """ResNet-20 from its state dict alone."""

    def conv_bn(x, conv, bn, stride=1):
        x = F.conv2d(x, w[f"{conv}.weight"], stride=stride, padding=1)
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(w[f"{bn}.{key}"] for key in keys))

    x = conv_bn(x, "conv1", "bn1").relu()
    for stage in (1, 2, 3):
        for block in (0, 1, 2):
            path = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = conv_bn(x, f"{path}.conv1", f"{path}.bn1", stride).relu()
            y = conv_bn(y, f"{path}.conv2", f"{path}.bn2")
            if stride == 2:
                x = x[:, :, ::2, ::2]
                x = torch.cat([x, torch.zeros_like(x)], dim=1)
            x = (y + x if residual else y).relu()
    return x.mean(dim=(2, 3)) @ w["fc.weight"].T + w["fc.bias"]


@pytest.mark.parametrize("residual", [True, False])
def test_forward_spelt_out_on_an_odd_size(residual):
    torch.manual_seed(0)
    net = initialise(SmallResNet(3, classes=7, channels=2, residual=residual))
    x = torch.randn(4, 2, 13, 18)
    net(x)  # batch norms learn statistics worth comparing
    torch.testing.assert_close(net.eval()(x), spelt_out(net.state_dict(), x, residual))
