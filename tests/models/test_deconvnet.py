"""DeconvNet: weights by arithmetic, the pass spelt out with its switches, windows for sizes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hubel.errors import ModelError
from hubel.models.fcn import transplant
from hubel.models.names import build

SMALL = {"classes": 3, "channels": 3, "width": 0.0625, "fc": 10}


def blank(**options):
    with torch.device("meta"):
        return build("deconvnet", **{"classes": 21, "channels": 3, **options})


def test_weights_by_hand():
    def conv(a, b, side=3):
        return a * b * side * side + b

    down = [64, 64, 128, 128, *[256] * 3, *[512] * 6]
    up = [*[512] * 3, *[512] * 2, 256, *[256] * 2, 128, 128, 64, 64, 64]
    total = sum(conv(a, b) for a, b in zip([3, *down[:-1]], down, strict=True))
    total += conv(512, 4096, 7) + conv(4096, 4096, 1) + conv(4096, 512, 7)
    total += sum(conv(a, b) for a, b in zip([512, *up[:-1]], up, strict=True))
    total += conv(64, 21, 1)
    assert total == 251_772_245  # before batch norm
    norms = 2 * (sum(down) + 4096 + 4096 + 512 + sum(up))
    assert sum(p.numel() for p in blank().parameters()) == total + norms == 251_805_653


def test_every_map_of_the_papers_table():
    net, seen = blank().eval(), []
    layers = [net.fc6, net.fc7, net.fc6_deconv, *net.unpool, *net.deconv]
    for layer in layers:
        layer.register_forward_hook(lambda m, i, o: seen.append(tuple(o.shape[1:])))
    assert net(torch.zeros(1, 3, 224, 224, device="meta")).shape == (1, 21, 224, 224)
    assert sorted(seen, key=lambda s: s[1]) == sorted(
        [
            (4096, 1, 1), (4096, 1, 1), (512, 7, 7),
            (512, 14, 14), (512, 14, 14), (512, 28, 28), (256, 28, 28), (256, 56, 56),
            (128, 56, 56), (128, 112, 112), (64, 112, 112), (64, 224, 224), (64, 224, 224),
        ],
        key=lambda s: s[1],
    )  # fmt: skip


def settled(net):
    for name, tensor in net.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point() and tensor.ndim == 1:
            tensor.normal_(0.5, 0.2)
    return net.eval()


def spelt_out(net, x):
    """From the state dict alone, for sides that are multiples of 32."""
    w = net.state_dict()

    def norm(x, path):
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(w[f"{path}.{k}"] for k in keys)).relu()

    def layer(x, path, how, **more):
        x = how(x, w[f"{path}.conv.weight"], w[f"{path}.conv.bias"], **more)
        return norm(x, f"{path}.bn")

    number, switches = 0, []
    for count in (2, 2, 3, 3, 3):
        for _ in range(count):
            weight, bias = w[f"features.{number}.weight"], w[f"features.{number}.bias"]
            x = norm(F.conv2d(x, weight, bias, padding=1), f"features.{number + 1}")
            number += 3
        size = x.shape[2:]
        x, places = F.max_pool2d(x, 2, return_indices=True)
        switches.append((places, size))
        number += 1
    x = layer(layer(x, "fc6", F.conv2d), "fc7", F.conv2d)
    x = layer(x, "fc6_deconv", F.conv_transpose2d)
    for stage, count in enumerate((3, 3, 3, 2, 2)):
        places, size = switches.pop()
        x = F.max_unpool2d(x, places, 2, output_size=size)
        for n in range(count):
            x = layer(x, f"deconv.{stage}.{n}", F.conv_transpose2d, padding=1)
    return F.conv2d(x, w["score.weight"], w["score.bias"])


@pytest.mark.parametrize("size", [(224, 224), (256, 288), (64, 96)])
def test_forward_spelt_out(size):
    """Sizes above 224 let fc6 slide."""
    torch.manual_seed(0)
    net = settled(build("deconvnet", **SMALL, size=size))
    x = torch.randn(1, 3, *size)
    found = net(x)
    assert found.std() > 0.01
    torch.testing.assert_close(found, spelt_out(net, x), rtol=1e-4, atol=1e-5)


def test_the_window_of_fc6_follows_the_size_it_is_built_for():
    windows = {s: blank(size=s).window for s in [(224, 224), (500, 500), (64, 64), (33, 160)]}
    assert list(windows.values()) == [(7, 7), (7, 7), (2, 2), (2, 5)]
    assert blank(size=(64, 64)).fc6_deconv.conv.kernel_size == (2, 2)
    assert blank().window == (7, 7)


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (33, 70)])
@pytest.mark.parametrize("built_for", [(32, 32), (96, 96)])
def test_any_size_forward_and_backward(size, built_for):
    torch.manual_seed(0)
    net = build("deconvnet", **SMALL, size=built_for)
    found = net(torch.randn(2, 3, *size))
    assert found.shape == (2, 3, *size)
    found.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    assert net.features[0].weight.grad.abs().sum() > 0


def test_a_small_image_is_mirrored_to_the_window():
    torch.manual_seed(0)
    net = settled(build("deconvnet", **SMALL, size=(64, 64)))
    x = torch.randn(1, 3, 40, 50)
    wide = F.pad(x, (0, 14, 0, 24), mode="reflect")
    torch.testing.assert_close(net(x), net(wide)[..., :40, :50])


def test_vggs_weights_go_in_by_name():
    with torch.device("meta"):
        vgg = build("vgg16_bn", classes=1000, channels=3).state_dict()
        own = blank().state_dict()
    features = {k: t.shape for k, t in vgg.items() if k.startswith("features")}
    assert {k: t.shape for k, t in own.items() if k.startswith("features")} == features


def test_its_first_half_is_a_place_to_transplant_to_only_as_plain_layers():
    with pytest.raises(ModelError, match="DeconvNet lacks features, fc6 and fc7"):
        transplant(blank(), {})


def test_width_and_fc_make_it_small():
    net = blank(width=0.25, fc=512)
    maps = [m.out_channels for m in net.features if isinstance(m, nn.Conv2d)]
    assert maps == [16, 16, 32, 32, 64, 64, 64, *[128] * 6]
    assert net.fc7.conv.weight.shape == (512, 512, 1, 1)
    assert net.score.in_channels == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be a share of VGG's maps, above 0 to 1, given 0"),
        ({"width": 1.5}, "given 1.5"),
        ({"width": True}, "given True"),
        ({"fc": 0}, "fc must be"),
    ],
)
def test_what_does_not_fit_is_said(options, message):
    with pytest.raises(ModelError, match=message):
        blank(**options)
