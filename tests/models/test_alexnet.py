"""Both AlexNets: shapes and counts by hand, the paper's norm in NumPy, groups that do not mix."""

import numpy as np
import pytest
import torch
from torch import nn

from hubel.errors import ModelError
from hubel.models.alexnet import alexnet, alexnet_2012
from hubel.models.names import build
from hubel.models.watch import watch
from hubel.probe.costs import costs

PHOTO = {"classes": 1000, "channels": 3}
BOTH = pytest.mark.parametrize("make", [alexnet_2012, alexnet])


def blank(make, side, **options):
    """Without memory."""
    with torch.device("meta"):
        return make(size=(side, side), **{**PHOTO, **options}), torch.zeros(1, 3, side, side)


def shapes(net, images, kinds):
    """(C, H, W) or (C,) of every layer of these kinds, in their order."""
    rows = costs(net, images, repeats=0, sight=False).layers
    return [row.shape[1:] for row in rows if row.kind in kinds]


@pytest.mark.parametrize("side", [227, 224])
def test_maps_of_2012_are_the_papers_at_227_and_at_224_padded_by_2(side):
    net, images = blank(alexnet_2012, side)
    assert net.features[0].padding == ((0, 0) if side == 227 else (2, 2))
    convolved = [(96, 55, 55), (256, 27, 27), (384, 13, 13), (384, 13, 13), (256, 13, 13)]
    assert shapes(net, images, {"Conv2d"}) == convolved
    assert shapes(net, images, {"MaxPool2d"}) == [(96, 27, 27), (256, 13, 13), (256, 6, 6)]
    assert shapes(net, images, {"Linear"}) == [(4096,), (4096,), (1000,)]


def test_each_axis_is_padded_by_itself():
    with torch.device("meta"):
        net = alexnet_2012(size=(227, 226), **PHOTO)
        assert net.features[0].padding == (0, 2)
        assert net(torch.zeros(1, 3, 227, 226)).shape == (1, 1000)


# maps in that one output sees x kernel area, +1 for the bias, x maps
COUNTS = {
    "features.0": ((3 * 121 + 1) * 96, 34_944),
    "features.4": ((48 * 25 + 1) * 256, 307_456),
    "features.8": ((256 * 9 + 1) * 384, 885_120),
    "features.10": ((192 * 9 + 1) * 384, 663_936),
    "features.12": ((192 * 9 + 1) * 256, 442_624),
    "classifier.1": ((256 * 36 + 1) * 4096, 37_752_832),
    "classifier.4": (4097 * 4096, 16_781_312),
    "classifier.7": (4097 * 1000, 4_097_000),
}
PLACES = (55**2, 27**2, 13**2, 13**2, 13**2, 1, 1, 1)


def test_parameters_and_multiply_adds_of_2012_layer_by_layer():
    found = costs(*blank(alexnet_2012, 227), repeats=0, sight=False)
    rows = {row.layer: row for row in found.layers if row.parameters}
    assert rows.keys() == COUNTS.keys()
    for (layer, (by_hand, printed)), places in zip(COUNTS.items(), PLACES, strict=True):
        row = rows[layer]
        assert row.parameters == by_hand == printed
        biases = row.shape[1]
        assert row.macs == (printed - biases) * places
    assert found.parameters == 60_965_224
    assert found.macs == 724_406_816


def test_neurons_of_2012_are_659272():
    """What the paper rounds to 650,000: one for every output of a layer with weights."""
    net, images = blank(alexnet_2012, 227)
    made = shapes(net, images, {"Conv2d", "Linear"})
    by_hand = 290_400 + 186_624 + 64_896 + 64_896 + 43_264 + 4096 + 4096 + 1000
    assert sum(int(np.prod(shape)) for shape in made) == by_hand == 659_272


def kinds(net):
    """The classes of its layers, in the order in which they run."""
    ran = []
    images = torch.zeros(1, 3, 63, 63)
    with watch(net, enter=lambda *what: ran.append(type(what[1]).__name__), leave=lambda *_: None):
        net.eval()(images)
    return [kind for kind in ran if kind not in ("Sequential", "PaperAlexNet", "AlexNet")]


def test_order_of_the_layers_of_2012():
    seen = kinds(alexnet_2012(size=(63, 63), classes=2, channels=3))
    first = ["Conv2d", "ReLU", "LocalResponseNorm", "MaxPool2d"]
    last = ["Conv2d", "ReLU"] * 3 + ["MaxPool2d", "Flatten"]
    assert seen == first * 2 + last + ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]


def test_order_of_the_layers_of_2014():
    seen = kinds(alexnet(size=(63, 63), classes=2, channels=3))
    first = ["Conv2d", "ReLU", "MaxPool2d"] * 2 + ["Conv2d", "ReLU"] * 3
    middle = ["MaxPool2d", "AdaptiveAvgPool2d", "Flatten"]
    assert seen == first + middle + ["Dropout", "Linear", "ReLU"] * 2 + ["Linear"]


def maps_that_change(net, layer, into, changed):
    """Which maps of `layer` change when the maps `changed` of its input do."""
    torch.manual_seed(4)
    one = torch.rand(1, into, 7, 7)
    other = one.clone()
    other[:, changed] += 1
    apart = (net.features[layer](one) - net.features[layer](other)).abs().amax((0, 2, 3))
    return apart.nonzero().flatten().tolist()


@pytest.mark.parametrize(("layer", "into", "maps"), [(4, 96, 256), (10, 384, 384), (12, 384, 256)])
def test_groups_do_not_mix(layer, into, maps):
    net = alexnet_2012(size=(63, 63), classes=2, channels=3)
    half = range(into // 2)
    assert maps_that_change(net, layer, into, list(half)) == list(range(maps // 2))
    assert maps_that_change(net, layer, into, [into - 1]) == list(range(maps // 2, maps))


def test_the_third_convolution_sees_both_groups():
    net = alexnet_2012(size=(63, 63), classes=2, channels=3)
    assert maps_that_change(net, 8, 256, [0]) == list(range(384))


def response(a, k=2.0, n=5, alpha=1e-4, beta=0.75):
    """The paper's b, section 3.3, for a (N, maps, H, W): a plain sum of n squares."""
    b = np.empty_like(a)
    maps = a.shape[1]
    for i in range(maps):
        window = a[:, max(0, i - n // 2) : min(maps - 1, i + n // 2) + 1]
        b[:, i] = a[:, i] / (k + alpha * (window**2).sum(1)) ** beta
    return b


@pytest.mark.parametrize("layer", [2, 6])
def test_response_normalisation_is_the_papers_at_the_ends_too(layer):
    """With activities of some hundreds: there alpha decides, at ordinary ones k alone."""
    norm = alexnet_2012(size=(63, 63), classes=2, channels=3).features[layer]
    a = np.random.default_rng(0).normal(0, 300, (2, 9, 3, 2))
    found, expected = norm(torch.from_numpy(a)).numpy(), response(a)
    for i in (0, 1, 4, 7, 8):
        np.testing.assert_allclose(found[:, i], expected[:, i], rtol=1e-12)
    assert not np.allclose(found, response(a, alpha=1e-4 / 5), rtol=0.05)  # torch's reading


def test_response_normalisation_crosses_the_groups():
    """Neighbours are the maps of one kernel map in the paper's sum, over all of them."""
    norm = alexnet_2012(size=(63, 63), classes=2, channels=3).features[2]
    a = torch.zeros(1, 96, 1, 1)
    a[0, 47] = a[0, 48] = 1000.0
    assert norm(a)[0, 47].item() == pytest.approx(1000 / (2 + 1e-4 * 2e6) ** 0.75, rel=1e-5)


def test_2012_forward_spelt_out():
    torch.manual_seed(1)
    net = build("alexnet_2012", classes=5, channels=2, size=(67, 75)).eval()
    x, w = torch.randn(2, 2, 67, 75), net.state_dict()

    def conv(x, number, groups=1, **places):
        weight, bias = w[f"features.{number}.weight"], w[f"features.{number}.bias"]
        halves = zip(x.chunk(groups, 1), weight.chunk(groups), bias.chunk(groups), strict=True)
        return torch.cat([nn.functional.conv2d(*half, **places) for half in halves], 1).relu()

    def normed(x):
        return torch.from_numpy(response(x.numpy().astype(float))).float()

    def pool(x):
        return nn.functional.max_pool2d(x, 3, 2)

    y = pool(normed(conv(x, 0, stride=4, padding=2)))
    y = pool(normed(conv(y, 4, 2, padding=2)))
    y = conv(conv(conv(y, 8, padding=1), 10, 2, padding=1), 12, 2, padding=1)
    y = pool(y).flatten(1)
    for number in (1, 4, 7):
        y = y @ w[f"classifier.{number}.weight"].T + w[f"classifier.{number}.bias"]
        y = y if number == 7 else y.relu()
    with torch.no_grad():
        torch.testing.assert_close(net(x), y, rtol=1e-4, atol=1e-4)


@BOTH
def test_channels_classes_and_dropout(make):
    with torch.device("meta"):
        net = make(classes=7, channels=4, size=(64, 70), dropout=0.3)
        assert net(torch.zeros(2, 4, 64, 70)).shape == (2, 7)
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.3, 0.3]
    assert [m.p for m in blank(make, 64)[0].modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]


@BOTH
@pytest.mark.parametrize("dropout", [1, -0.1, 1.5, "half", True])
def test_dropout_out_of_range_is_named(make, dropout):
    with pytest.raises(
        ModelError, match=f"dropout must be .* from 0 to below 1, given {dropout!r}"
    ):
        make(size=(64, 64), dropout=dropout, **PHOTO)


@BOTH
def test_too_small_says_how_large_and_why(make):
    name = make.__name__
    words = (
        f"{name} needs images at least 63 pixels wide, given 63x62: .* after 1[24], a window of 3"
    )
    with torch.device("meta"), pytest.raises(ModelError, match=words):
        make(size=(63, 62), **PHOTO)
