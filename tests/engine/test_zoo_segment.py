"""The segmentation nets: the engine's gradients are autograd's, nothing is borrowed."""

import pytest
import torch
from against import assert_same, autograds_of, gradients_of, noise
from named_nets import SEGMENTERS
from torch import nn

from hubel.models.names import build

NETS = {
    "unet": {"width": 4, "depth": 2},
    "unet_padded": {"width": 4, "depth": 2},
    "fcn32s": {"body": "compact"},
    "fcn16s": {"body": "resnet20"},
    "fcn8s": {"body": "compact"},
    "deconvnet": {"width": 0.05, "fc": 8},
    "deeplab_v1": {"body": "resnet20"},
    "sliding_window": {"window": 13, "width": 4, "hidden": 6},
    "multiscale": {"hidden": 8},
    "recurrent": {"width": 3},
}
TOLERANCE, FLOOR = 1e-9, 1e-4  # as for the nets for photos


def mean_square(model, images):
    answers = model(images)
    answers = answers if isinstance(answers, dict) else {"logits": answers}
    return sum(answer.square().mean() for answer in answers.values())


def test_every_segmentation_net_is_here():
    assert NETS.keys() == set(SEGMENTERS)


@pytest.mark.parametrize("kernels", ["math", "torch"])
@pytest.mark.parametrize("name", NETS)
def test_every_gradient_is_autograds(name, kernels):
    torch.manual_seed(0)
    model = build(name, classes=3, channels=3, size=(20, 33), **NETS[name]).double().train()
    for parameter in model.parameters():
        if not parameter.any():  # scores that begin at zero, biases
            nn.init.normal_(parameter, std=0.1)
    images = noise(2, 3, 20, 33)
    torch.manual_seed(5)
    expected, theirs, _ = autograds_of(mean_square, model, [images])
    torch.manual_seed(5)
    tape, value, ours = gradients_of(mean_square, model, [images], kernels=kernels)
    assert not [r.spelling for r in tape.records if r.borrowed]
    top = max(float(g.abs().max()) for g in theirs.values() if g is not None)
    assert_same(ours, theirs, TOLERANCE, floor=FLOOR * top)
    torch.testing.assert_close(value, expected, rtol=TOLERANCE, atol=TOLERANCE)
    layers = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)}
    assert layers <= {record.path for record in tape.records}
