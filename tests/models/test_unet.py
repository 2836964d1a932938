"""U-Net as printed and as used: counts, the paper's sizes, mirrored borders, tiles, any body."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hubel.errors import ModelError
from hubel.models.body import Body
from hubel.models.names import build
from hubel.models.unet import PaddedUNet, UNet

PAPER = {"classes": 2, "channels": 1, "size": (388, 388)}
SIZES = [(1, 1), (7, 13), (33, 70)]


def count(net):
    return sum(p.numel() for p in net.parameters())


def blank(name="unet", **options):
    with torch.device("meta"):
        return build(name, **{**PAPER, **options})


def thin(**options):
    torch.manual_seed(0)
    return build("unet", **{**PAPER, "width": 3, "depth": 2, **options}).double().eval()


def test_the_papers_weights():
    assert count(blank()) == 31_030_658
    assert count(blank(classes=1, channels=3)) == 31_031_745


def test_weights_by_hand():
    """Two 3x3 convolutions a level, down and up; 2x2 up-convolutions; 1x1 scores."""

    def conv(a, b, side):
        return a * b * side * side + b

    widths, before, total = [64, 128, 256, 512, 1024], 1, 0
    for w in widths:
        total += conv(before, w, 3) + conv(w, w, 3)
        before = w
    for w in widths[-2::-1]:
        total += conv(2 * w, w, 2) + conv(2 * w, w, 3) + conv(w, w, 3)
    assert total + conv(64, 2, 1) == 31_030_658


def test_the_papers_map_is_572_to_388():
    net = blank()
    assert net.margin == (572 - 388) // 2
    assert net.valid(torch.zeros(1, 1, 572, 572, device="meta")).shape == (1, 2, 388, 388)
    assert net.valid(torch.zeros(1, 1, 188, 572, device="meta")).shape == (1, 2, 4, 388)


def test_every_map_of_the_papers_figure():
    net, seen = blank().eval(), []
    for level in [*net.down, net.bottom, *net.up, *net.merge]:
        level.register_forward_hook(lambda m, i, o: seen.append((o.shape[1], o.shape[2])))
    net.valid(torch.zeros(1, 1, 572, 572, device="meta"))
    down = [(64, 568), (128, 280), (256, 136), (512, 64), (1024, 28)]
    up = [
        (512, 56),
        (512, 52),
        (256, 104),
        (256, 100),
        (128, 200),
        (128, 196),
        (64, 392),
        (64, 388),
    ]
    assert seen == down + up


@pytest.mark.parametrize("side", [571, 573, 187, 172, 100])
def test_sides_that_do_not_halve_evenly_are_refused_without_borders(side):
    with pytest.raises(ModelError, match=r"a side must be one of .* \(16 b \+ 124\), given"):
        blank().valid(torch.zeros(1, 1, side, 572, device="meta"))


def spelt_out(net, x):
    """The paper's net of depth 2 from its state dict alone, without borders."""
    w = net.state_dict()

    def two(x, path):
        for n in (1, 2):
            x = F.conv2d(x, w[f"{path}.conv{n}.weight"], w[f"{path}.conv{n}.bias"]).relu()
        return x

    def up(x, across, n):
        x = F.conv_transpose2d(x, w[f"up.{n}.conv.weight"], w[f"up.{n}.conv.bias"], stride=2)
        edge = (across.shape[-1] - x.shape[-1]) // 2
        across = across[..., edge : edge + x.shape[-2], edge : edge + x.shape[-1]]
        return two(torch.cat([across, x], 1), f"merge.{n}")

    one = two(x, "down.0")
    two_ = two(F.max_pool2d(one, 2), "down.1")
    x = two(F.max_pool2d(two_, 2), "bottom")
    x = up(up(x, two_, 0), one, 1)
    return F.conv2d(x, w["score.weight"], w["score.bias"])


def test_valid_spelt_out():
    net = thin()
    x = torch.randn(2, 1, 44, 60, dtype=torch.float64)
    torch.testing.assert_close(net.valid(x), spelt_out(net, x))


@pytest.mark.parametrize("size", [*SIZES, (20, 20), (41, 5)])
def test_any_image_gets_the_scores_of_its_mirrored_surroundings(size):
    """NumPy mirrors, again and again where the image is small; its first pixel comes first."""
    net = thin()
    x = torch.randn(1, 1, *size, dtype=torch.float64)
    margin = 20  # of depth 2: (28 + 12) / 2
    assert net.margin == margin
    below = [-(n + 12) % 4 for n in size]
    border = [(0, 0), (0, 0), *((margin, margin + b) for b in below)]
    wide = torch.from_numpy(np.pad(x.numpy(), border, mode="reflect"))
    expected = net.valid(wide)[..., : size[0], : size[1]]
    torch.testing.assert_close(net(x), expected)
    assert net(x).shape == (1, 2, *size)


@pytest.mark.parametrize("tile", [1, 7, 24, 1000])
@pytest.mark.parametrize("size", [(61, 90), (5, 33)])
def test_tiles_put_together_are_the_whole(tile, size):
    net = thin(classes=3, channels=2)
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    torch.testing.assert_close(net.by_tiles(x, tile), net(x), rtol=1e-10, atol=1e-10)


def test_tiles_of_the_papers_depth():
    net = thin(depth=4, width=1)
    x = torch.randn(1, 1, 100, 37, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(net.by_tiles(x, 8), net(x), rtol=1e-10, atol=1e-10)


def test_no_tile_is_larger_than_it_was_asked_to_be():
    net, seen = thin(), []
    whole = net.valid
    net.valid = lambda x: (seen.append(tuple(x.shape[2:])), whole(x))[1]
    net.by_tiles(torch.randn(1, 1, 90, 90, dtype=torch.float64), 10)
    assert set(seen) == {(4 * 10 + 28,) * 2}
    assert len(seen) == 4 * 4  # 10 places give 28 pixels


def test_dropout_is_behind_the_last_two_levels_of_the_way_down():
    net = blank(dropout=0.3).train()
    seen = []
    for layer in (net.dropout1, net.dropout2):
        layer.register_forward_hook(lambda m, i, o: seen.append((m.p, *o.shape[1:])))
    net.valid(torch.zeros(1, 1, 572, 572, device="meta"))
    assert seen == [(0.3, 512, 64, 64), (0.3, 1024, 28, 28)]


def test_drawn_so_that_a_signal_keeps_its_strength():
    torch.manual_seed(0)
    net = build("unet", **PAPER, width=16).eval()
    with torch.no_grad():
        assert 0.3 < net(torch.randn(1, 1, 60, 60)).std() < 3
    up = net.up[0].conv.weight
    assert up.std().item() == pytest.approx((1 / 256) ** 0.5, rel=0.05)  # one place a pixel


@pytest.mark.parametrize("options", [{}, {"norm": True, "depth": 1}, {"depth": 3, "channels": 3}])
@pytest.mark.parametrize("size", SIZES)
def test_backward_reaches_every_weight(options, size):
    torch.manual_seed(0)
    net = build("unet", **{**PAPER, "width": 6, "depth": 2, "dropout": 0.0, **options})
    net(torch.randn(2, options.get("channels", 1), *size)).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    assert net.down[0].conv1.weight.grad.abs().sum() > 0


# In common use ------------------------------------------------------------------------------------


def test_the_common_form_counts_by_hand():
    def two(a, b):
        return 9 * a * b + 2 * b + 9 * b * b + 2 * b

    ways = [(3, 32), (32, 64), (64, 128), (128, 256), (256, 512)]
    up = [(512 + 256, 256), (256 + 128, 128), (128 + 64, 64), (64 + 32, 32)]
    assert count(blank("unet_padded", channels=3)) == sum(two(*w) for w in ways + up) + 32 * 2 + 2


def test_the_common_form_spelt_out_on_an_odd_size():
    torch.manual_seed(0)
    net = build("unet_padded", **PAPER, width=3, depth=2, norm=False).double()
    w, x = net.state_dict(), torch.randn(2, 1, 7, 13, dtype=torch.float64)

    def two(x, path):
        for n in (1, 2):
            weight, bias = (w[f"{path}.conv{n}.{part}"] for part in ("weight", "bias"))
            x = F.conv2d(x, weight, bias, padding=1).relu()
        return x

    def up(x, across, n):
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        x = x[..., : across.shape[2], : across.shape[3]]
        return two(torch.cat([across, x], 1), f"rises.{n}.merge")

    one = two(x, "body.levels.0")
    below = two(F.max_pool2d(one, 2, ceil_mode=True), "body.levels.1")
    y = two(F.max_pool2d(below, 2, ceil_mode=True), "body.levels.2")
    y = up(up(y, below, 0), one, 1)
    expected = F.conv2d(y, w["score.weight"], w["score.bias"])
    torch.testing.assert_close(net(x), expected)


BODIES = ["compact", "resnet18", "efficientnet_lite0"]


@pytest.mark.parametrize("body", [None, *BODIES])
@pytest.mark.parametrize("size", SIZES)
def test_any_size_with_any_body(body, size):
    torch.manual_seed(0)
    own = {"depth": 3} if body is None else {}
    net = build("unet_padded", classes=3, channels=2, size=size, body=body, width=4, **own)
    found = net(torch.randn(2, 2, *size))
    assert found.shape == (2, 3, *size)
    found.square().mean().backward()
    for path, p in net.named_parameters():
        assert torch.isfinite(p.grad).all(), path


@pytest.mark.parametrize("body", ["vgg16", "vgg11_bn", "resnet50"])
def test_large_bodies_too(body):
    net = blank("unet_padded", body=body, channels=3)
    assert net(torch.zeros(2, 3, 33, 70, device="meta")).shape == (2, 2, 33, 70)
    widths = [rise.merge.conv2.out_channels for rise in net.rises]
    assert widths == [256, 128, 64, 32, 16]


def test_a_bodys_trained_weights_go_in_unchanged():
    classifier = build("resnet18", classes=9, channels=3)
    net = build("unet_padded", classes=2, channels=3, body="resnet18")
    net.body.take(classifier.state_dict())
    assert net.body.layer4[1].conv2.weight.equal(classifier.layer4[1].conv2.weight)


def test_every_map_of_the_body_is_used():
    net = PaddedUNet(Body("mobilenet_v2", 3), classes=2, width=4, norm=True)
    joined = [rise.merge.conv1.in_channels for rise in net.rises]
    assert joined == [320 + 96, 64 + 32, 32 + 24, 16 + 16, 8 + 0]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unet", {"width": 0}, "width must be"),
        ("unet", {"depth": 0}, "depth must be"),
        ("unet", {"norm": 1}, "norm must be True or False"),
        ("unet", {"dropout": 1.0}, "dropout must be"),
        ("unet", {"body": "resnet18"}, "unknown option of unet 'body'"),
        ("unet_padded", {"body": "resnet"}, "unknown body 'resnet'"),
        ("unet_padded", {"width": 0}, "width must be"),
    ],
)
def test_what_does_not_fit_is_said(name, options, message):
    with pytest.raises(ModelError, match=message):
        build(name, **PAPER, **options)


def test_norms_only_where_asked_for():
    assert not any(isinstance(m, nn.BatchNorm2d) for m in blank().modules())
    assert sum(isinstance(m, nn.BatchNorm2d) for m in blank(norm=True).modules()) == 18
    assert isinstance(blank(), UNet)
