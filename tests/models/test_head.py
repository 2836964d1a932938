"""The head: the layer that has a row for every class, in each net of the table and in odd ones."""

import pytest
import torch
from torch import nn

from hubel.errors import ModelError
from hubel.models.head import body_of, head_keys, head_of
from hubel.models.names import build
from hubel.models.table import MODELS

SEVERAL = {"lenet5_1998", "fcn32s", "fcn16s", "fcn8s"}  # layers of the classes


def blank(name, classes=7):
    channels, *size = MODELS[name].usual
    with torch.device("meta"):
        return build(name, classes=classes, channels=channels, size=tuple(size))


@pytest.mark.parametrize("name", [n for n in MODELS if n not in SEVERAL])
def test_every_named_nets_head_has_a_row_for_every_class_and_is_its_last_layer(name):
    net = blank(name)
    head = net.get_submodule(head_of(net))
    assert head.weight.shape[0] == head.bias.shape[0] == 7
    assert head_keys(net) == (f"{head_of(net)}.weight", f"{head_of(net)}.bias")
    assert list(net.state_dict())[-2:] == list(head_keys(net))


@pytest.mark.parametrize(
    ("name", "head"),
    [("resnet50", "fc"), ("vgg16", "classifier.6"), ("mobilenet_v2", "classifier.1")],
)
def test_heads_are_where_the_papers_nets_have_them(name, head):
    assert head_of(blank(name)) == head


@pytest.mark.parametrize(
    ("name", "options", "body"),
    [
        ("unet_padded", {"body": "resnet18"}, {"body"}),
        ("fcn8s", {"body": "resnet18"}, {"body"}),
        ("fcn8s", {}, {"features", "fc6", "fc7"}),
        ("deeplab_v1", {"body": "resnet18"}, {"body"}),
        ("deeplab_v1", {}, {"features"}),
        ("deeplab_v1", {"field": "7x7"}, {"features", "fc6", "fc7"}),
        ("deconvnet", {}, {"features"}),
    ],
)
def test_the_body_of_a_net_for_pixels_is_what_a_classifier_fills(name, options, body):
    """All else is drawn anew and has to learn: `begin` fills the very same layers."""
    with torch.device("meta"):
        net = build(name, classes=7, channels=3, size=(224, 224), **options)
    own = body_of(net)
    assert {n.split(".")[0] for n, p in net.named_parameters() if id(p) in own} == body


def test_lenets_fixed_codes_belong_to_its_head():
    """The last layer that learns has a row per pixel of a code, the codes one per class."""
    net = blank("lenet5_1998")
    assert head_keys(net) == ("f6.weight", "f6.bias", "output.codes")
    assert net.state_dict()["output.codes"].shape == (7, 84)


def test_a_net_names_the_first_of_several():
    """FCN's scores of three maps, and the transposed convolutions from class to class."""
    net = blank("fcn8s")
    assert head_of(net) == "score_pool3"
    layers = {key.rpartition(".")[0] for key in head_keys(net)}
    scores = {"score_pool3", "score_pool4", "score_fr"}
    assert layers == scores | {"upscore2", "upscore_pool4", "upscore8"}
    assert all(7 in net.state_dict()[key].shape for key in head_keys(net))


def test_auxiliary_heads_are_not_taken_for_the_head():
    net = blank("googlenet")
    assert net.aux2 is not None
    assert head_of(net) == "fc"


def test_the_body_is_everything_else():
    net = build("resnet20", classes=3, channels=3)
    body = body_of(net)
    assert {n for n, p in net.named_parameters() if id(p) not in body} == {"fc.weight", "fc.bias"}
    assert body <= {id(p) for p in net.parameters()}


def test_a_norm_of_the_classes_belongs_to_the_head():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Linear(5, 3), nn.BatchNorm1d(3))
    assert head_of(net) == "2"
    assert [key.split(".")[0] for key in head_keys(net)] == ["2"] * 2 + ["3"] * 5
    assert body_of(net) == {id(p) for p in net[1].parameters()}


def test_a_net_of_one_layer_is_all_head():
    net = build("softmax", classes=3, channels=1)
    assert body_of(net) == set()


def test_a_weight_that_the_head_shares_is_the_heads():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    net[2].weight = net[0].weight
    assert body_of(net) == {id(net[0].bias)}


def test_a_convolution_may_be_the_head():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1), nn.AdaptiveAvgPool2d(1))
    assert head_of(net) == "1"


def test_no_layer_to_be_the_head():
    with pytest.raises(ModelError, match="no fully connected or convolutional layer to be its he"):
        head_of(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3)))
