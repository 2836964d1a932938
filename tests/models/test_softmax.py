"""Softmax regression is one matrix product."""

import torch

from hubel.models.softmax import softmax


def test_is_one_matrix_product_over_the_pixels():
    net = softmax(classes=3, channels=2, size=(5, 7))
    images = torch.randn(4, 2, 5, 7)
    expected = images.reshape(4, 70) @ net.fc.weight.T + net.fc.bias
    torch.testing.assert_close(net(images), expected)
    assert sum(p.numel() for p in net.parameters()) == 3 * 70 + 3
