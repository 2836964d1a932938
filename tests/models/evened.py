"""Nets with nothing in them that chooses: what their outputs see is what their geometry says."""

import torch.nn.functional as F
from torch import nn


def evened(net):
    """Without anything that chooses: pools are means, ReLUs and norms let through."""
    for layer in net.modules():
        if isinstance(layer, nn.MaxPool2d):
            layer.forward = lambda x, p=layer: F.avg_pool2d(
                x, p.kernel_size, p.stride, p.padding, p.ceil_mode
            )
        if isinstance(layer, nn.ReLU | nn.ReLU6):
            layer.forward = lambda x: x
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    return net
