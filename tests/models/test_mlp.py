"""The multilayer perceptron: its count by hand, its forward by matrix products, its dropout."""

import pytest
import torch

from hubel.errors import ModelError
from hubel.models.mlp import mlp


def test_parameters_by_hand():
    net = mlp(classes=10, channels=1, size=(28, 28))
    by_hand = (784 * 256 + 256) + (256 * 128 + 128) + (128 * 10 + 10)
    assert sum(p.numel() for p in net.parameters()) == by_hand == 235_146


def test_forward_by_matrix_products():
    net = mlp(classes=4, channels=3, size=(3, 5), dropout=0.5).eval()
    x = torch.randn(6, 3, 3, 5)
    hidden = (x.reshape(6, 45) @ net.fc1.weight.T + net.fc1.bias).clamp(min=0)
    hidden = (hidden @ net.fc2.weight.T + net.fc2.bias).clamp(min=0)
    torch.testing.assert_close(net(x), hidden @ net.fc3.weight.T + net.fc3.bias)


def test_dropout_silences_its_share_in_training_only():
    net = mlp(classes=4, channels=1, size=(4, 4), dropout=0.25)
    with torch.no_grad():
        net.fc1.bias.fill_(100.0)  # so that no unit is silent by itself
    silent = (net[:4](torch.randn(200, 1, 4, 4)) == 0).double().mean()
    assert silent == pytest.approx(0.25, abs=0.01)
    assert (net.eval()[:4](torch.randn(200, 1, 4, 4)) != 0).all()


def test_dropout_of_all_is_refused():
    with pytest.raises(ModelError, match="dropout must be a number from 0 to below 1, given 1"):
        mlp(classes=4, channels=1, size=(4, 4), dropout=1)
