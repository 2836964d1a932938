"""Receptive fields of layers: worked by hand, and where gradients really come from."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hubel.models.names import build
from hubel.probe.fields import WHOLE, Field, fields


def of(net, *shape):
    return fields(net, torch.zeros(shape))


def blank(name, **options):
    with torch.device("meta"):
        return build(name, classes=10, channels=3, size=(224, 224), **options)


# (size, step) by hand: r grows by (kernel - 1) x step, the step by the stride
NETS = {
    ("vgg16", "features.28"): (196, 16),
    ("vgg16", "features.30"): (212, 32),
    ("alexnet", "features.0"): (11, 4),
    ("alexnet", "features.12"): (195, 32),
    ("resnet18", "layer4"): (435, 32),
    ("resnet50", "layer4"): (427, 32),  # stride on the 3x3
    ("resnet50", "conv1"): (7, 2),
}


@pytest.mark.parametrize(("place", "seen"), NETS.items())
def test_nets_by_hand(place, seen):
    name, layer = place
    found = fields(blank(name), torch.zeros(1, 3, 224, 224, device="meta")).layers[layer]
    assert found == Field((seen[0],) * 2, (float(seen[1]),) * 2)


def test_the_papers_stride_lets_resnet50_see_more():
    net = blank("resnet50", stride_on="1x1")
    found = fields(net, torch.zeros(1, 3, 224, 224, device="meta"))
    assert found.layers["layer4"].size == (483, 483)
    assert found.pooled == found.layers["layer4"]


def positive(net):
    """All slopes above zero: no pixel that is seen goes unnoticed."""
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.1)
    return net.double().eval()


def reach(net, image, layer):
    """Rows and columns between the farthest pixels that move the middle number of a layer."""
    kept = {}
    handle = net.get_submodule(layer).register_forward_hook(
        lambda module, args, out: kept.update(out=out)
    )
    net(image)
    handle.remove()
    middle = tuple(side // 2 for side in kept["out"].shape[2:])
    (slopes,) = torch.autograd.grad(kept["out"][0, 0][middle], image)
    rows, columns = slopes[0].sum(0).nonzero(as_tuple=True)
    return tuple(int(v.max() - v.min()) + 1 for v in (rows, columns))


CHAIN = nn.Sequential(
    nn.Conv2d(1, 2, (3, 5), stride=(1, 2)), nn.ReLU(inplace=True), nn.AvgPool2d(2),
    nn.Conv2d(2, 2, 3, dilation=2, groups=2), nn.AvgPool2d(3, 1), nn.Conv2d(2, 1, (1, 3), 2),
)  # fmt: skip


@pytest.mark.parametrize("place", range(len(CHAIN)))
def test_gradients_come_from_the_field_of_a_chain(place):
    net = positive(CHAIN)
    image = torch.ones(1, 1, 61, 103, dtype=torch.float64, requires_grad=True)
    assert fields(net, image).layers[str(place)].size == reach(net, image, str(place))


@pytest.mark.parametrize("layer", ["conv1", "layer1", "layer2.0.conv1", "layer2", "layer3"])
def test_gradients_come_from_the_field_of_a_resnet(layer):
    net = positive(build("resnet20", classes=2, channels=1, size=(32, 32)))
    image = torch.ones(1, 1, 128, 136, dtype=torch.float64, requires_grad=True)
    assert fields(net, image).layers[layer].size == reach(net, image, layer)


def test_the_last_use_of_a_layer_counts():
    layer = nn.Conv2d(1, 1, 3, padding=1)
    assert of(nn.Sequential(layer, nn.ReLU(), layer), 1, 1, 9, 9).layers["0"].size == (5, 5)


def test_functions_and_layers_that_do_nothing():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.nothing, self.conv, self.drop = nn.Identity(), nn.Conv2d(1, 2, 3), nn.Dropout()

        def forward(self, x):
            return self.drop(F.max_pool2d(self.conv(self.nothing(x)).relu_(), 2))

    found = of(Mixed(), 1, 1, 9, 9).layers
    assert found["nothing"] == Field((1, 1), (1.0, 1.0))
    assert found["conv"].size == (3, 3)
    assert found["drop"] == found[""] == Field((4, 4), (2.0, 2.0))


def test_a_fully_connected_layer_sees_the_whole_image():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 4 * 4, 3))
    assert of(net, 1, 1, 6, 6).layers["2"] is WHOLE
    assert str(WHOLE) == "all"
    assert WHOLE.covers((512, 512))


POOLS = {
    "a layer": nn.AdaptiveAvgPool2d(1),
    "the largest": nn.AdaptiveMaxPool2d(1),
    "a window of its size": nn.AvgPool2d(6),
}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_what_a_global_pooling_takes(pool):
    found = of(nn.Sequential(nn.Conv2d(1, 2, 3), pool, nn.Flatten(), nn.Linear(2, 3)), 1, 1, 8, 8)
    assert found.pooled == Field((3, 3), (1.0, 1.0))
    assert found.pooled.covers((3, 2))
    assert not found.pooled.covers((3, 4))


@pytest.mark.parametrize("way", [lambda x: x.mean((2, 3)), lambda x: x.amax((2, 3))])
def test_a_global_pooling_by_a_function(way):
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x):
            return way(self.conv(x))

    assert of(Pooled(), 2, 1, 8, 8).pooled.size == (3, 3)


def test_a_net_that_only_flattens_pools_nothing():
    assert of(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), 1, 1, 8, 8).pooled is None


def test_what_the_image_does_not_reach_has_no_field():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.offset, self.conv = nn.Linear(1, 1), nn.Conv2d(1, 1, 3)

        def forward(self, x):
            return self.conv(x) + self.offset(torch.ones(1, 1))

    found = of(Constant(), 1, 1, 5, 5).layers
    assert "offset" not in found
    assert found["conv"].size == (3, 3)


def test_a_model_that_the_engine_cannot_follow_has_no_fields():
    class Spectrum(nn.Module):
        def forward(self, x):
            return torch.fft.fft2(x).abs()

    net = Spectrum()
    assert of(net, 1, 1, 4, 4).layers == {}
    assert of(nn.Linear(3, 2), 5, 3).layers == {}  # no places


def test_images_and_model_are_left_as_they_were():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(1)

        def forward(self, x):
            return self.norm(x.sub_(3))

    net, images = Writes().train(), torch.ones(2, 1, 4, 4)
    assert fields(net, images).layers["norm"].size == (1, 1)
    assert images.eq(1).all()
    assert net.norm.training
    assert net.norm.num_batches_tracked == 0


def test_a_compiled_model_sees_what_its_layers_see():
    net = torch.compile(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), backend="eager")
    assert of(net, 1, 1, 8, 8).layers["_orig_mod.1"].size == (3, 3)
