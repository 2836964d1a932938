"""DeepLab: four fields by their counts, the pass spelt out, and where its scores lie."""

import pytest
import torch
import torch.nn.functional as F
from evened import evened
from torch import nn

from hubel.errors import ModelError
from hubel.models.deeplab import FIELDS
from hubel.models.names import build
from hubel.tasks.segmentation.read import nearest

COUNTS = {"large": 20_505_429, "7x7": 134_346_581, "4x4": 65_140_565, "small": 65_140_565}


def blank(**options):
    with torch.device("meta"):
        return build("deeplab_v1", **{"classes": 21, "channels": 3, **options})


@pytest.mark.parametrize("field", FIELDS)
def test_weights_by_hand(field):
    kernel, _, maps = FIELDS[field]
    convs = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
    convs += [(256, 512), *[(512, 512)] * 5]
    total = sum(9 * a * b + b for a, b in convs)
    total += 512 * maps * kernel**2 + maps + maps * maps + maps + maps * 21 + 21
    assert sum(p.numel() for p in blank(field=field).parameters()) == total == COUNTS[field]


@pytest.mark.parametrize(("field", "pixels"), [("large", 200), ("7x7", 200), ("4x4", 200)])
def test_three_fields_see_as_far(field, pixels):
    """Places under fc6's kernel, from the first to the last, times 8 pixels: the paper's 224 with
    what a place of conv5 itself stands for."""
    kernel, rate, _ = FIELDS[field]
    assert ((kernel - 1) * rate + 1) * 8 == pixels


def test_vggs_names_and_shapes():
    with torch.device("meta"):
        vgg = build("vgg16", classes=1000, channels=3).state_dict()
    own = {k: t.shape for k, t in blank().state_dict().items() if k.startswith("features")}
    assert own == {k: t.shape for k, t in vgg.items() if k.startswith("features")}


def spelt_out(net, x):
    """Scores at every eighth pixel of an image whose sides are 8 n + 1, from the state dict."""
    w = net.state_dict()

    def conv(x, path, **more):
        return F.conv2d(x, w[f"{path}.weight"], w[f"{path}.bias"], **more)

    number = 0
    for stage, count in enumerate((2, 2, 3, 3, 3)):
        rate = 2 if stage == 4 else 1
        for _ in range(count):
            x = conv(x, f"features.{number}", padding=rate, dilation=rate).relu()
            number += 2
        x = F.max_pool2d(x, 3, stride=2 if stage < 3 else 1, padding=1)
        number += 1
    x = conv(x, "fc6", padding=12, dilation=12).relu()
    return conv(conv(x, "fc7").relu(), "fc8")


def test_scores_spelt_out_in_training_and_in_use():
    """The image stands 4 pixels from the corner of 8 n + 1; place 1 is its pixel 4."""
    torch.manual_seed(0)
    net = build("deeplab_v1", classes=4, channels=3, dropout=0.0)
    x = torch.randn(2, 3, 40, 56)
    scores = spelt_out(net, F.pad(x, (4, 5, 4, 5)))  # 49 x 65
    assert scores.shape == (2, 4, 7, 9)
    found = net(x)
    assert found.keys() == {"logits"}
    torch.testing.assert_close(found["logits"], scores[..., 1:6, 1:8], rtol=1e-4, atol=1e-5)
    whole = F.interpolate(scores, (49, 65), mode="bilinear", align_corners=True)
    used = net.eval()(x)
    torch.testing.assert_close(used, whole[..., 4:44, 4:60], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(used[..., 4::8, 4::8], found["logits"], rtol=1e-4, atol=1e-5)


def test_a_place_looks_around_its_pixel():
    """A band of one row: what moves score i lies evenly around pixel 8 i + 4."""
    torch.manual_seed(0)
    net = build("deeplab_v1", classes=1, channels=1, dropout=0.0).double()
    for layer in net.features:
        if isinstance(layer, nn.MaxPool2d):
            layer.forward = lambda x, s=layer.stride: F.avg_pool2d(x, 3, s, 1)
        if isinstance(layer, nn.ReLU):
            layer.forward = lambda x: x
    net.relu6.forward = net.relu7.forward = lambda x: x
    x = torch.randn(1, 1, 1, 1200, dtype=torch.float64, requires_grad=True)
    logits = net(x)["logits"]
    assert logits.shape == (1, 1, 1, 150)
    (grad,) = torch.autograd.grad(logits[0, 0, 0, 75], x)
    seen = grad.flatten().nonzero().flatten()
    assert (seen[0] + seen[-1]).item() / 2 == 8 * 75 + 4


def test_sizes_of_the_training_map():
    net = blank()
    sides = {1: 1, 3: 1, 8: 1, 11: 1, 12: 2, 40: 5, 321: 40, 324: 41}
    for side, places in sides.items():
        image = torch.zeros(1, 3, side, 24, device="meta")
        assert net.train()(image)["logits"].shape == (1, 21, places, 3)
        assert net.eval()(image).shape == (1, 21, side, 24)


@pytest.mark.parametrize("body", ["compact", "resnet18", "mobilenet_v2", "efficientnet_lite0"])
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (33, 70)])
def test_any_size_with_any_body(body, size):
    torch.manual_seed(0)
    net = build("deeplab_v1", classes=3, channels=2, body=body)
    stride = 4 if body == "compact" else 8
    assert net.stride == stride
    logits = net(torch.randn(2, 2, *size))["logits"]
    assert logits.shape == (2, 3, *(max(1, (n + stride // 2) // stride) for n in size))
    logits.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert net.fc6.weight.grad.abs().sum() > 0
    with torch.no_grad():
        assert net.eval()(torch.randn(2, 2, *size)).shape == (2, 3, *size)


def test_vgg_at_awkward_sizes_forward_and_backward():
    torch.manual_seed(0)
    net = build("deeplab_v1", classes=3, channels=3)
    for size in [(1, 1), (7, 13), (33, 70)]:
        net(torch.randn(1, 3, *size))["logits"].square().sum().backward()
        assert net.features[0].weight.grad.abs().sum() > 0
        net.zero_grad()


def test_what_does_not_fit_is_said():
    with pytest.raises(ModelError, match="unknown field '5x5'.*allowed: 4x4, 7x7, large, small"):
        blank(field="5x5")
    with pytest.raises(ModelError, match="unknown body 'vgg'"):
        blank(body="vgg")


@pytest.mark.parametrize("body", ["compact", "vgg11", "resnet18", "mobilenet_v2"])
def test_a_place_of_any_body_looks_around_its_pixel(body):
    """Pools of 2x2, whose places would lie 1.5 or 3.5 pixels further on, have a middle here."""
    torch.manual_seed(0)
    net = build("deeplab_v1", classes=1, channels=1, dropout=0.0, body=body).double().train()
    x = torch.randn(1, 1, 1, 1600, dtype=torch.float64, requires_grad=True)
    logits = evened(net)(x)["logits"]
    place = logits.shape[3] // 2
    (grad,) = torch.autograd.grad(logits[0, 0, 0, place], x)
    seen = grad.flatten().nonzero().flatten()
    assert (seen[0] + seen[-1]).item() / 2 == net.stride * place + net.stride // 2


@pytest.mark.parametrize("size", [(8, 24), (3, 12), (21, 300), (30, 321), (53, 5)])
@pytest.mark.parametrize("body", ["compact", "resnet18"])
def test_in_training_its_answer_is_the_one_in_use_where_the_loss_reads_the_labels(body, size):
    torch.manual_seed(0)
    net = build("deeplab_v1", classes=3, channels=1, dropout=0.0, body=body)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.forward = lambda x: x
    x = torch.randn(2, 1, *size)
    with torch.no_grad():
        found, used = net.train()(x)["logits"], net.eval()(x)
    rows, columns = (nearest(n, of, x.device) for n, of in zip(found.shape[2:], size, strict=True))
    torch.testing.assert_close(found, used[:, :, rows][..., columns], rtol=1e-4, atol=1e-5)


def test_narrower_maps_of_fc6_and_fc7():
    net = blank(fc=64)
    assert net.fc6.weight.shape == (64, 512, 3, 3)
    assert net.fc7.weight.shape == (64, 64, 1, 1)
    assert net.begins == blank(field="7x7", fc=64).begins == ("features",)
    assert blank(field="7x7").begins == ("features", "fc6", "fc7")
    with pytest.raises(ModelError, match="fc must be a whole number.*given 0"):
        blank(fc=0)
