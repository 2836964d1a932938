"""Segmentation nets that begin by a trained classifier."""

import pytest
import torch

from hubel.errors import ModelError
from hubel.models.begin import begin, body_name
from hubel.models.names import build


def net_of(name, **options):
    return build(name, classes=3, channels=3, size=(64, 64), **options)


@pytest.mark.parametrize(
    ("model", "asked", "found"),
    [
        ("resnet20", None, "resnet20"),
        ("fcn8s", None, "vgg16"),
        ("fcn8s", "resnet18", "resnet18"),
        ("unet_padded", "efficientnet_lite0", "efficientnet_lite0"),
        ("unet_padded", None, "unet_padded"),
        ("deconvnet", None, "vgg16_bn"),
        ("mine.py:net", None, "mine.py:net"),
    ],
)
def test_whose_weights_a_net_begins_by(model, asked, found):
    assert body_name(model, asked) == found


@pytest.mark.parametrize("name", ["unet_padded", "fcn16s", "deeplab_v1"])
def test_a_body_takes_the_classifiers_tensors_and_the_rest_stays(name):
    torch.manual_seed(0)
    classifier, net = net_of("mobilenet_v2"), net_of(name, body="mobilenet_v2")
    before = {key: t.clone() for key, t in net.state_dict().items()}
    begin(net, classifier.state_dict())
    theirs = classifier.state_dict()
    for key, tensor in net.state_dict().items():
        own = key.removeprefix("body.")
        expected = theirs[own] if key.startswith("body.") else before[key]
        assert torch.equal(tensor, expected), key


def test_fully_connected_layers_of_vgg_become_convolutions_of_an_fcn():
    with torch.device("meta"):
        classifier = build("vgg16", classes=2, channels=3)
        net = net_of("fcn32s")
    state = {key: torch.empty(t.shape) for key, t in classifier.state_dict().items()}
    state["classifier.0.weight"].normal_()
    net.to_empty(device="cpu")
    begin(net, state)
    kernel = net.fc6.weight[5, 7]
    assert torch.equal(kernel.flatten(), state["classifier.0.weight"][5].view(512, 49)[7])


def test_a_net_without_a_body_says_what_to_ask_for():
    net = net_of("unet_padded", width=4)
    with pytest.raises(
        ModelError, match=r"does not begin by a classifier: ask for a body \(--body"
    ):
        begin(net, net_of("mobilenet_v2").state_dict())
