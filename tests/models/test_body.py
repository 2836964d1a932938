"""Bodies: the classifier's own maps and weights, at any size; holes where strides are held."""

import pytest
import torch
from torch import nn

from hubel.errors import ModelError
from hubel.models.body import BODIES, Body, take, vgg_features
from hubel.models.names import build
from hubel.models.table import MODELS

# Maps by hand, from the papers' tables; of a VGG the answers before each pool and behind the last.
MAPS = {
    "vgg16": ((1, 2, 4, 8, 16, 32), (64, 128, 256, 512, 512, 512)),
    "vgg11_bn": ((1, 2, 4, 8, 16, 32), (64, 128, 256, 512, 512, 512)),
    "resnet18": ((2, 4, 8, 16, 32), (64, 64, 128, 256, 512)),
    "resnet50": ((2, 4, 8, 16, 32), (64, 256, 512, 1024, 2048)),
    "plain34": ((2, 4, 8, 16, 32), (64, 64, 128, 256, 512)),
    "resnet20": ((1, 2, 4), (16, 32, 64)),
    "mobilenet_v2": ((2, 4, 8, 16, 32), (16, 24, 32, 96, 320)),
    "efficientnet_lite0": ((2, 4, 8, 16, 32), (16, 24, 40, 112, 320)),
    "compact": ((1, 2, 4), (32, 64, 128)),
}
SMALL = ["resnet18", "resnet20", "mobilenet_v2", "efficientnet_lite0", "compact"]


def settled(net, seed=0):
    """Random weights and statistics worth comparing, in eval mode."""
    chance = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=chance)
        elif tensor.is_floating_point() and tensor.ndim < 2:
            tensor.normal_(0.5 if name.endswith("weight") else 0, 0.2, generator=chance)
    return net.eval()


@pytest.mark.parametrize("name", MAPS)
def test_strides_and_widths_by_hand(name):
    with torch.device("meta"):
        body = Body(name, 3)
        found = body(torch.zeros(2, 3, 128, 96))
    assert (body.strides, body.widths) == MAPS[name]
    expected = [(2, w, 128 // s, 96 // s) for s, w in zip(*MAPS[name], strict=True)]
    assert [tuple(m.shape) for m in found] == expected


@pytest.mark.parametrize("name", [*MAPS, "vgg19", "efficientnet_lite2", "resnet101"])
def test_every_tensor_is_the_classifiers_in_its_order(name):
    with torch.device("meta"):
        own = Body(name, 3).state_dict()
        whole = build(name, classes=5, channels=3).state_dict()
    assert [(k, t.shape) for k, t in own.items()] == [
        (k, t.shape) for k, t in whole.items() if k in own
    ]
    left = [k for k in whole if k not in own]
    assert all(
        k.split(".")[0] in ("classifier", "fc", "conv_head", "bn2", "features") for k in left
    )


def test_every_classifier_of_these_families_is_a_body():
    assert {n for n, e in MODELS.items() if e.make.startswith(("vgg", "resnet"))} < set(BODIES)
    assert not {"alexnet", "lenet5", "unet", "fcn8s"} & set(BODIES)


@pytest.mark.parametrize("name", SMALL)
def test_with_its_weights_the_last_map_gives_the_classifiers_logits(name):
    torch.manual_seed(0)
    net = settled(build(name, classes=5, channels=3, size=(64, 96)))
    body = Body(name, 3)
    body.take(net.state_dict())
    x = torch.randn(2, 3, 64, 96)
    last = body.eval()(x)[-1]
    if name == "compact":
        found = net.fc(last.amax((2, 3)))
    elif name == "mobilenet_v2":
        found = net.classifier(net.features[18](last).mean((2, 3)))
    elif name == "efficientnet_lite0":
        found = net.classifier(net.act2(net.bn2(net.conv_head(last))).mean((2, 3)))
    else:
        found = net.fc(last.mean((2, 3)))
    torch.testing.assert_close(found, net(x), rtol=1e-4, atol=1e-4)


def test_vggs_maps_are_its_features():
    torch.manual_seed(0)
    body = Body("vgg11", 3)
    x = torch.randn(1, 3, 64, 32)
    y, maps = x, []
    for layer in body.features:
        if isinstance(layer, nn.MaxPool2d):
            maps.append(y)
            y = torch.nn.functional.max_pool2d(y, 2)
        else:
            y = layer(y)
    for found, expected in zip(body(x), [*maps, y], strict=True):
        assert found.equal(expected)


@pytest.mark.parametrize("name", ["vgg11", *SMALL, "resnet50"])
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (33, 70)])
def test_any_size_rounds_up(name, size):
    body = Body(name, 2).eval()
    x = torch.randn(2, 2, *size)
    for stride, width, found in zip(body.strides, body.widths, body(x), strict=True):
        assert found.shape == (2, width, *(-(-n // stride) for n in size))
        assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "plain18", "resnet20"])
@pytest.mark.parametrize("size", [(64, 64), (47, 61)])
def test_held_strides_give_the_strided_nets_numbers_and_those_between(name, size):
    torch.manual_seed(0)
    body = settled(Body(name, 3))
    most = body.strides[-3]
    held = Body(name, 3, output_stride=most).eval()
    held.load_state_dict(body.state_dict())
    x = torch.randn(1, 3, *size)
    expected, found = body(x)[-1], held(x)[-1]
    assert held.strides == tuple(s for s in body.strides if s <= most)
    assert found.shape[2:] == tuple(-(-n // most) for n in size)
    torch.testing.assert_close(found[..., ::4, ::4], expected, rtol=1e-4, atol=1e-4)


def test_held_strides_with_tensorflows_borders():
    """An even side gets its border below and at the right: what is kept are the odd places."""
    torch.manual_seed(0)
    body = settled(Body("efficientnet_lite0", 3))
    held = Body("efficientnet_lite0", 3, output_stride=16).eval()
    held.load_state_dict(body.state_dict())
    x = torch.randn(1, 3, 64, 64)
    block, wide = body.blocks[5][0], held.blocks[5][0]
    below = body(x)[-2]
    torch.testing.assert_close(wide(below)[..., 1::2, 1::2], block(below), rtol=1e-4, atol=1e-4)
    assert held(x)[-1].shape == (1, 320, 4, 4)


def test_vgg_with_holes_is_deeplabs():
    """conv5 looks twice as far; pool4 and pool5 have three places and no stride."""
    with torch.device("meta"):
        features = vgg_features("vgg16", 3, output_stride=8)
    rates = [layer.dilation[0] for layer in features if isinstance(layer, nn.Conv2d)]
    assert rates == [1] * 10 + [2] * 3
    pools = [layer for layer in features if isinstance(layer, nn.MaxPool2d)]
    assert [(p.kernel_size, p.stride, p.padding) for p in pools[3:]] == [(3, 1, 1)] * 2
    assert [(p.kernel_size, p.stride) for p in pools[:3]] == [(2, 2)] * 3


def test_options_are_the_classifiers():
    assert Body("compact", 1, width=8).widths == (8, 16, 32)
    assert Body("resnet18", 3, shortcut="A").layer2[0].downsample.stride == 2


def test_it_learns_through_every_map():
    body = Body("resnet20", 1)
    sum(m.square().mean() for m in body(torch.randn(2, 1, 9, 11))).backward()
    assert all(p.grad.abs().sum() > 0 for p in body.parameters())


def test_what_does_not_fit_is_said():
    with pytest.raises(ModelError, match="unknown body 'resnet19': did you mean"):
        Body("resnet19", 3)
    with pytest.raises(ModelError, match="resnet20 has the strides 1, 2, 4, given 8"):
        Body("resnet20", 3, output_stride=8)
    body = Body("resnet20", 3)
    whole = build("resnet20", classes=4, channels=3).state_dict()
    before = body.conv1.weight.clone()
    with pytest.raises(ModelError, match=r"the weights lack layer2\.0\.conv1\.weight"):
        body.take({k: t for k, t in whole.items() if k != "layer2.0.conv1.weight"})
    grey = build("resnet20", classes=4, channels=1).state_dict()
    with pytest.raises(ModelError, match=r"conv1.weight must have the shape \(16, 3, 3, 3\)"):
        body.take(grey)
    assert body.conv1.weight.equal(before)


def test_take_minds_only_what_it_is_asked_for():
    net = build("resnet20", classes=4, channels=3)
    other = build("resnet20", classes=7, channels=3)
    take(net, other.state_dict(), ("layer1.",))
    assert net.layer1[0].conv1.weight.equal(other.layer1[0].conv1.weight)
    assert not net.conv1.weight.equal(other.conv1.weight)
