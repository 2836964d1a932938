"""Dense layers: the strided net at every place it could begin."""

import torch
import torch.nn.functional as F

from hubel.models.dense import DenseConv2d, DensePool2d


def test_conv_pool_conv_is_the_strided_one_from_every_place():
    torch.manual_seed(0)
    one, two, pool = DenseConv2d(2, 3, 4), DenseConv2d(3, 4, 3), DensePool2d()
    x = torch.randn(1, 2, 15, 18)
    found = two(pool(one(x)), 2)
    for y in (0, 1):
        for z in (0, 1):
            strided = F.max_pool2d(F.conv2d(x[..., y:, z:], one.weight, one.bias), 2)
            strided = F.conv2d(strided, two.weight, two.bias)
            places = found[..., y::2, z::2][..., : strided.shape[2], : strided.shape[3]]
            torch.testing.assert_close(places, strided)


def test_at_rate_1_they_are_the_usual_ones():
    conv, x = DenseConv2d(2, 3, 4), torch.randn(1, 2, 7, 9)
    assert conv(x).equal(F.conv2d(x, conv.weight, conv.bias))
    assert DensePool2d()(x).equal(F.max_pool2d(x, 2, 1))
    assert DensePool2d()(x, 3).shape == (1, 2, 4, 6)
