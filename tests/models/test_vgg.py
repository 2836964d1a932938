"""VGG's four configurations layer by layer, counts by hand, the forward pass spelt out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hubel.errors import ModelError
from hubel.models import vgg
from hubel.models.names import build
from hubel.probe.costs import costs

# Table 1 of the paper, a column each: maps of every 3x3 convolution, M for a pool.
TABLE = {
    "vgg11": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "vgg13": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    "vgg16": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "vgg19": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}
MACS = {  # of one 224 x 224 image; torchvision prints 7.61, 11.31, 15.47 and 19.63 thousand million
    "vgg11": 7_609_090_048,
    "vgg13": 11_308_466_176,
    "vgg16": 15_470_264_320,
    "vgg19": 19_632_062_464,
}
MILLIONS = {"vgg11": 133, "vgg13": 133, "vgg16": 138, "vgg19": 144}  # table 2 of the paper
PHOTO = {"classes": 1000, "channels": 3, "size": (224, 224)}

every_depth = pytest.mark.parametrize("name", TABLE)
both_norms = pytest.mark.parametrize("norm", ["", "_bn"], ids=["plain", "norm"])


def blank(name, **options):
    with torch.device("meta"):
        return getattr(vgg, name)(**{**PHOTO, **options})


@every_depth
@both_norms
def test_every_layer_is_the_tables(name, norm):
    expected, maps_in = [], 3
    for word in TABLE[name].split():
        if word == "M":
            expected.append(("MaxPool2d", 2, 2, 0))
            continue
        expected.append(("Conv2d", maps_in, int(word), (3, 3), (1, 1), (1, 1)))
        expected += [("BatchNorm2d", int(word))] if norm else []
        expected.append(("ReLU",))
        maps_in = int(word)
    words = {
        nn.Conv2d: ("in_channels", "out_channels", "kernel_size", "stride", "padding"),
        nn.MaxPool2d: ("kernel_size", "stride", "padding"),
        nn.BatchNorm2d: ("num_features",),
        nn.ReLU: (),
    }
    found = [
        (type(layer).__name__, *(getattr(layer, word) for word in words[type(layer)]))
        for layer in blank(name + norm).features
    ]
    assert found == expected


@every_depth
def test_as_many_layers_with_weights_as_the_name_says(name):
    weighted = [m for m in blank(name).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weighted) == int(name.removeprefix("vgg"))


def by_hand(name):
    """Parameters of the convolutions and of the whole; multiply-adds at 224 x 224."""
    convs, macs, maps_in, side = 0, 0, 3, 224
    for word in TABLE[name].split():
        if word == "M":
            side //= 2
            continue
        convs += (9 * maps_in + 1) * int(word)
        macs += 9 * maps_in * int(word) * side**2
        maps_in = int(word)
    full = [512 * 7 * 7 * 4096, 4096 * 4096, 4096 * 1000]
    return convs, convs + sum(full) + 4096 + 4096 + 1000, macs + sum(full)


@every_depth
def test_parameters_and_multiply_adds_by_hand(name):
    convs, parameters, macs = by_hand(name)
    net = blank(name)
    assert sum(p.numel() for p in net.features.parameters()) == convs
    found = costs(net, torch.zeros(1, 3, 224, 224, device="meta"), repeats=0, sight=False)
    assert found.parameters == parameters
    assert round(parameters / 1e6) == MILLIONS[name]
    assert found.macs == macs == MACS[name]


def test_convolutions_of_the_deepest_hold_20024384():
    assert by_hand("vgg19")[0] == 20_024_384


@every_depth
def test_maps_at_224(name):
    images = torch.zeros(1, 3, 224, 224, device="meta")
    rows = costs(blank(name), images, repeats=0, sight=False).layers
    pooled = [row.shape[1:] for row in rows if row.kind == "MaxPool2d"]
    assert pooled == [(64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (512, 7, 7)]


def test_the_adaptive_pool_changes_nothing_at_224():
    maps = torch.randn(2, 512, 7, 7)
    assert blank("vgg11").avgpool(maps).equal(maps)


@pytest.mark.parametrize("size", [(32, 32), (33, 64), (100, 63), (223, 256), (300, 448)])
def test_other_sizes_work(size):
    with torch.device("meta"):
        net = vgg.vgg11_bn(classes=3, channels=1, size=size)
        assert net(torch.zeros(2, 1, *size)).shape == (2, 3)


@both_norms
def test_forward_spelt_out_on_a_small_size(norm):
    """vgg11 at 34 x 68: one row of two numbers, each repeated to fill the 7 x 7."""
    torch.manual_seed(2)
    net = build("vgg11" + norm, classes=5, channels=2, size=(34, 68)).eval()
    x, w, number = torch.randn(2, 2, 34, 68), net.state_dict(), 0
    generator = torch.Generator().manual_seed(3)
    for key in w:
        if key.startswith("features") and w[key].ndim == 1 and w[key].is_floating_point():
            w[key] += torch.rand(w[key].shape, generator=generator) * 0.5
    y = x
    for word in TABLE["vgg11"].split():
        if word == "M":
            y, number = F.max_pool2d(y, 2), number + 1
            continue
        y = F.conv2d(y, w[f"features.{number}.weight"], w[f"features.{number}.bias"], padding=1)
        if norm:
            keys = ("running_mean", "running_var", "weight", "bias")
            y = F.batch_norm(y, *(w[f"features.{number + 1}.{key}"] for key in keys))
        y, number = y.relu(), number + (3 if norm else 2)
    assert y.shape[2:] == (1, 2)
    left, right = y[..., :1], y[..., 1:]
    middle = (left + right) / 2  # the fourth column lies over both
    y = torch.cat([left] * 3 + [middle] + [right] * 3, 3).expand(-1, -1, 7, -1).flatten(1)
    for layer in (0, 3, 6):
        y = y @ w[f"classifier.{layer}.weight"].T + w[f"classifier.{layer}.bias"]
        y = y if layer == 6 else y.relu()
    with torch.no_grad():
        torch.testing.assert_close(net(x), y, rtol=1e-4, atol=1e-4)


@every_depth
@both_norms
def test_channels_classes_and_dropout(name, norm):
    net = blank(name + norm, classes=7, channels=4, dropout=0.3)
    assert net.features[0].in_channels == 4
    assert net.classifier[-1].out_features == 7
    kinds = [type(layer).__name__ for layer in net.classifier]
    assert kinds == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.3, 0.3]
    assert blank(name).classifier[2].p == 0.5


@every_depth
@both_norms
def test_wrong_words_are_named_with_the_nets_own_name(name, norm):
    with pytest.raises(ModelError, match="dropout must be .* from 0 to below 1, given 1.0"):
        blank(name + norm, dropout=1.0)
    with pytest.raises(ModelError, match=f"^{name}{norm} needs images at least 32 pixels high"):
        blank(name + norm, size=(31, 32))
