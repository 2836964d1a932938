"""FCN on VGG-16: counts, crops by arithmetic, the passes spelt out; and on small bodies."""

import pytest
import torch
import torch.nn.functional as F
from evened import evened
from torch import nn

from hubel.errors import ModelError
from hubel.models.fcn import CROP_POOL3, CROP_POOL4, CROPS, transplant
from hubel.models.head import head_keys
from hubel.models.names import build

VOC = {"classes": 21, "channels": 3, "size": (500, 500)}
NAMES = {"fcn32s": 32, "fcn16s": 16, "fcn8s": 8}
SIZES = [(1, 1), (7, 13), (33, 70)]
every_net = pytest.mark.parametrize("name", NAMES)


def count(net):
    return sum(p.numel() for p in net.parameters())


def blank(name, **options):
    with torch.device("meta"):
        return build(name, **{**VOC, **options})


@pytest.mark.parametrize(
    ("name", "weights"),
    [("fcn32s", 136_152_917), ("fcn16s", 134_815_994), ("fcn8s", 134_489_759)],
)
def test_weights_of_the_release(name, weights):
    assert count(blank(name)) == weights


@every_net
def test_upsampling_stands_still_unless_asked(name):
    still = {n for n, p in blank(name).named_parameters() if not p.requires_grad}
    assert {n.split(".")[0] for n in still} == {
        "fcn32s": {"upscore"},
        "fcn16s": {"upscore2", "upscore16"},
        "fcn8s": {"upscore2", "upscore_pool4", "upscore8"},
    }[name]
    assert all(p.requires_grad for p in blank(name, learn_upsampling=True).parameters())


# Where places lie, as (pixel of the image under place 0, pixels between places). ------------------


def convolved(at, kernel, stride=1, padding=0):
    first, step = at
    return first + step * ((kernel - 1) / 2 - padding), step * stride


def enlarged(at, kernel, stride):
    """A transposed convolution: place i of the input is the middle of its kernel in the output."""
    first, step = at
    return first - step / stride * (kernel - 1) / 2, step / stride


def places():
    """Of pool3, pool4 and the scores of fc7."""
    at, pools = convolved((0, 1), 3, padding=100), []
    for _ in range(5):
        at = convolved(at, 2, 2)
        pools.append(at)
    return pools[2], pools[3], convolved(at, 7)


def test_crops_bring_the_same_pixels_together():
    """What is added, and what comes out, lies over the same pixels to the hair."""
    pool3, pool4, score = places()
    assert enlarged(score, 64, 32) == (-CROPS[32], 1)
    twice = enlarged(score, 4, 2)
    assert twice == (pool4[0] + CROP_POOL4 * pool4[1], 16)
    assert enlarged(twice, 32, 16) == (-CROPS[16], 1)
    again = enlarged(twice, 4, 2)
    assert again == (pool3[0] + CROP_POOL3 * pool3[1], 8)
    assert enlarged(again, 16, 8) == (-CROPS[8], 1)


@every_net
def test_every_size_from_one_pixel(name):
    net = blank(name)
    for height in (*range(1, 68), 100, 333, 500):
        width = 3 * height % 71 + 1
        image = torch.zeros(1, 3, height, width, device="meta")
        assert net(image).shape == (1, 21, height, width)


def spelt_out(net, x, stride):
    """The release's net from its state dict alone."""
    w = net.state_dict()

    def conv(x, path, **more):
        return F.conv2d(x, w[f"{path}.weight"], w[f"{path}.bias"], **more)

    def up(x, path, stride):
        return F.conv_transpose2d(x, w[f"{path}.weight"], stride=stride)

    size, number, pools, border = x.shape[2:], 0, [], 100
    for count in (2, 2, 3, 3, 3):
        for _ in range(count):
            x = conv(x, f"features.{number}", padding=border).relu()
            number, border = number + 2, 1
        x = F.max_pool2d(x, 2, ceil_mode=True)
        number += 1
        pools.append(x)
    x = conv(conv(conv(x, "fc6").relu(), "fc7").relu(), "score_fr")
    if stride == 32:
        return up(x, "upscore", 32)[..., 19 : 19 + size[0], 19 : 19 + size[1]]
    x = up(x, "upscore2", 2)
    y = conv(pools[3], "score_pool4")
    x = x + y[..., 5 : 5 + x.shape[2], 5 : 5 + x.shape[3]]
    if stride == 16:
        return up(x, "upscore16", 16)[..., 27 : 27 + size[0], 27 : 27 + size[1]]
    x = up(x, "upscore_pool4", 2)
    y = conv(pools[2], "score_pool3")
    x = x + y[..., 9 : 9 + x.shape[2], 9 : 9 + x.shape[3]]
    return up(x, "upscore8", 8)[..., 31 : 31 + size[0], 31 : 31 + size[1]]


@pytest.fixture(scope="module")
def eight():
    """fcn8s with scores that are no longer zero."""
    torch.manual_seed(0)
    net = build("fcn8s", classes=3, channels=3, dropout=0.0)
    assert not net(torch.randn(1, 3, 1, 1)).any()
    for score in (net.score_fr, net.score_pool4, net.score_pool3):
        nn.init.normal_(score.weight, std=0.02)
    return net


def test_forward_spelt_out_and_backward(eight):
    x = torch.randn(1, 3, 7, 13)
    found = eight(x)
    assert found.std() > 1e-3
    torch.testing.assert_close(found, spelt_out(eight, x, 8), rtol=1e-4, atol=1e-5)
    found.square().mean().backward()
    for path, p in eight.named_parameters():
        assert (p.grad is not None and p.grad.abs().sum() > 0) == p.requires_grad, path
    eight.zero_grad()


@pytest.mark.parametrize("name", ["fcn32s", "fcn16s"])
def test_the_others_spelt_out(name, eight):
    with torch.device("meta"):
        net = build(name, classes=3, channels=3)
    net = net.to_empty(device="cpu").eval()
    own = net.state_dict()
    shared = {k: t for k, t in eight.state_dict().items() if k in own and "upscore" not in k}
    net.load_state_dict(shared, strict=False, assign=True)
    for layer in net.children():
        if isinstance(layer, nn.ConvTranspose2d):
            nn.init.normal_(layer.weight)
    x = torch.randn(1, 3, 5, 9)
    with torch.no_grad():
        torch.testing.assert_close(net(x), spelt_out(net, x, NAMES[name]), rtol=1e-4, atol=1e-4)


def test_upsampling_begins_bilinear_class_by_class(eight):
    weight = eight.upscore2.weight
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    for i in range(3):
        for j in range(3):
            expected = line[:, None] * line if i == j else torch.zeros(4, 4)
            assert weight[i, j].equal(expected)


@every_net
def test_its_head_is_all_its_scores(name):
    keys = {key.rpartition(".")[0] for key in head_keys(blank(name))}
    assert keys == {n for n, _ in blank(name).named_children() if "score" in n}


# Weights of VGG-16 --------------------------------------------------------------------------------


class Small(nn.Module):
    """The shapes of FCN in small: features, fc6 of 3x3, fc7."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU())
        self.fc6, self.fc7 = nn.Conv2d(5, 6, 3), nn.Conv2d(6, 7, 1)
        self.score_fr = nn.Conv2d(7, 4, 1)


def test_fully_connected_layers_become_convolutions():
    vgg = nn.Module()
    vgg.features = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU())
    layers = [nn.Linear(45, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 7), nn.ReLU()]
    vgg.classifier = nn.Sequential(*layers, nn.Dropout(), nn.Linear(7, 9)).eval()
    net = Small()
    score = net.score_fr.weight.clone()
    transplant(net, vgg.state_dict())
    x = torch.randn(2, 2, 3, 3)
    expected = vgg.classifier[:5](vgg.features(x).flatten(1))
    found = net.fc7(net.fc6(net.features(x)).relu()).relu()
    torch.testing.assert_close(found, expected[:, :, None, None])
    assert net.score_fr.weight.equal(score)


def test_vgg16s_own_shapes_fit():
    with torch.device("meta"):
        state = build("vgg16", classes=1000, channels=3).state_dict()
        net = build("fcn32s", **VOC)
    transplant(net, state)


def test_weights_that_do_not_fit_are_refused():
    with torch.device("meta"):
        state = build("vgg16", classes=1000, channels=3).state_dict()
        net = build("fcn32s", **VOC)
        with pytest.raises(ModelError, match=r"fc6\.weight .* made of VGG's classifier\.0\.weight"):
            transplant(net, {k: t for k, t in state.items() if not k.startswith("classifier.0")})
        with pytest.raises(ModelError, match=r"features\.0\.weight must have the shape"):
            transplant(build("fcn32s", **{**VOC, "channels": 1}), state)
        with pytest.raises(ModelError, match="BodyFCN lacks features, fc6 and fc7"):
            transplant(build("fcn8s", **VOC, body="compact"), state)


# On other bodies ----------------------------------------------------------------------------------


@every_net
@pytest.mark.parametrize("body", ["compact", "resnet18"])
@pytest.mark.parametrize("size", SIZES)
def test_any_size_on_small_bodies(name, body, size):
    torch.manual_seed(0)
    net = build(name, classes=3, channels=2, size=size, body=body, learn_upsampling=True)
    x = torch.randn(2, 2, *size)
    assert not net(x).any()  # scores begin at zero
    for score in net.scores:
        nn.init.normal_(score.weight, std=0.1)
    found = net(x)
    assert found.shape == (2, 3, *size)
    found.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_small_bodies_spelt_out():
    torch.manual_seed(0)
    net = build("fcn8s", classes=3, channels=2, body="resnet18", dropout=0.0).eval()
    for score in net.scores:
        nn.init.normal_(score.weight, std=0.1)
    x = torch.randn(1, 2, 33, 70)
    eighth, sixteenth, last = net.body(F.pad(x, (0, 27, 0, 0)))[-3:]  # 33 x 97: 32 n + 1
    w = net.state_dict()

    def score(x, n):
        return F.conv2d(x, w[f"scores.{n}.weight"], w[f"scores.{n}.bias"])

    def up(x, height, width):
        return F.interpolate(x, (height, width), mode="bilinear", align_corners=True)

    y = up(score(last, 2), 3, 7) + score(sixteenth, 1)
    y = up(y, 5, 13) + score(eighth, 0)
    torch.testing.assert_close(net(x), up(y, 33, 97)[..., :33, :70], rtol=1e-4, atol=1e-5)


@every_net
@pytest.mark.parametrize("body", ["compact", "resnet18", "mobilenet_v2", "efficientnet_lite0"])
def test_what_a_pixel_is_called_is_seen_around_it(name, body):
    """With even kernels and nothing that chooses, the middle of what moves the scores of 32 pixels
    is theirs."""
    torch.manual_seed(0)
    net = build(name, classes=1, channels=1, dropout=0.0, body=body).double().eval()
    for path, p in net.named_parameters():
        if not path.startswith("ups"):
            nn.init.constant_(p, 1 / p[0].numel())
    evened(net)
    x = torch.ones(1, 1, 1, 1536, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(net(x)[..., 752:784].sum(), x)
    seen = grad.flatten() / grad.sum()
    assert abs((seen * torch.arange(1536)).sum() - 767.5) < 1e-6


def test_skips_are_taken_from_the_two_maps_before():
    assert blank("fcn32s", body="resnet18").strides == (32,)
    assert blank("fcn16s", body="resnet18").strides == (16, 32)
    assert blank("fcn8s", body="resnet18").strides == (8, 16, 32)
    assert blank("fcn8s", body="compact").strides == (1, 2, 4)
    assert head_keys(blank("fcn8s", body="compact"))[0] == "scores.0.weight"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"body": "resnet"}, "unknown body 'resnet'"),
        ({"learn_upsampling": 1}, "learn_upsampling must be True or False"),
        ({"dropout": 1}, "dropout must be"),
    ],
)
def test_what_does_not_fit_is_said(options, message):
    with pytest.raises(ModelError, match=message):
        blank("fcn8s", **options)
