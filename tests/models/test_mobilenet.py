"""MobileNetV2: the paper's table 2, counts by hand, where inputs are added, the pass spelt out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hubel.errors import ModelError
from hubel.models.mobilenet import InvertedResidual, mobilenet_v2
from hubel.models.names import build
from hubel.probe.costs import costs

# Table 2 of the paper: t, c, n, s; and pixels a side behind the stage at 224.
TABLE = [
    (1, 16, 1, 1, 112),
    (6, 24, 2, 2, 56),
    (6, 32, 3, 2, 28),
    (6, 64, 4, 2, 14),
    (6, 96, 3, 1, 14),
    (6, 160, 3, 2, 7),
    (6, 320, 1, 1, 7),
]


def rows():
    """(number among the features, t, maps in, maps, stride, pixels a side) of every block."""
    number, maps_in = 1, 32
    for widen, maps, count, stride, side in TABLE:
        for repeat in range(count):
            yield number, widen, maps_in, maps, 1 if repeat else stride, side
            number, maps_in = number + 1, maps


def blank(**options):
    with torch.device("meta"):
        return mobilenet_v2(**{"classes": 1000, "channels": 3, "size": (224, 224), **options})


def counted(net):
    return costs(net, torch.zeros(1, 3, 224, 224, device="meta"), repeats=0, sight=False)


def test_every_row_of_the_table():
    net = blank()
    shapes = {row.layer: row.shape[1:] for row in counted(net).layers}
    assert shapes["features.0.0"] == (32, 112, 112)
    for number, widen, maps_in, maps, stride, side in rows():
        convs = [m for m in net.features[number].modules() if isinstance(m, nn.Conv2d)]
        wide = maps_in * widen
        expected = [(maps_in, wide, 1, 1, 1)] if widen > 1 else []
        expected += [(wide, wide, 3, stride, wide), (wide, maps, 1, 1, 1)]
        assert expected == [
            (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], m.groups) for m in convs
        ]
        last = len(net.features[number].conv) - 1
        assert shapes[f"features.{number}.conv.{last}"] == (maps, side, side)
        relus = [m for m in net.features[number].modules() if isinstance(m, nn.ReLU6)]
        assert len(relus) == len(convs) - 1  # none behind the narrowing one
    assert shapes["features.18.0"] == (1280, 7, 7)
    assert len(net.features) == 19


def test_parameters_and_multiply_adds_by_hand():
    parameters, macs = 27 * 32 + 2 * 32, 27 * 32 * 112**2
    before = 112
    for _, widen, maps_in, maps, _, side in rows():
        wide = maps_in * widen
        if widen > 1:
            parameters += maps_in * wide + 2 * wide
            macs += maps_in * wide * before**2
        parameters += 9 * wide + 2 * wide + wide * maps + 2 * maps
        macs += (9 * wide + wide * maps) * side**2
        before = side
    parameters += 320 * 1280 + 2 * 1280 + 1281 * 1000
    macs += 320 * 1280 * 49 + 1280 * 1000
    found = counted(blank())
    assert found.parameters == parameters == 3_504_872
    assert found.macs == macs == 300_774_272


def silenced(block):
    """The last norm lets nothing through: what comes out is what was added."""
    norm = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)][-1]
    nn.init.zeros_(norm.weight)
    nn.init.zeros_(norm.bias)
    return block.eval()


def test_inputs_are_added_exactly_where_the_shape_stays():
    net = mobilenet_v2(classes=2, channels=3, size=(64, 64))
    added = []
    for number, _, maps_in, maps, stride, _ in rows():
        x = torch.randn(1, maps_in, 5, 6)
        out = silenced(net.features[number])(x)
        if stride == 1 and maps_in == maps:
            assert out.equal(x)
            added.append(number)
        else:
            assert not out.any()
    assert added == [3, 5, 6, 8, 9, 10, 12, 13, 15, 16]


def test_strides_round_up_and_bottlenecks_are_linear():
    block = InvertedResidual(3, 4, 2, 6).eval()
    out = block(torch.randn(2, 3, 7, 10))
    assert out.shape == (2, 4, 4, 5)
    assert out.min() < 0


def test_forward_spelt_out_on_an_odd_size():
    torch.manual_seed(0)
    net = build("mobilenet_v2", classes=5, channels=2, size=(71, 46))
    images = torch.randn(3, 2, 71, 46)
    with torch.no_grad():
        net(images)  # batch norms learn statistics worth comparing
        w, x = net.eval().state_dict(), 1.5 * images

        def conv_bn(x, conv, bn, stride=1, groups=1):
            weight = w[f"{conv}.weight"]
            x = F.conv2d(x, weight, None, stride, weight.shape[2] // 2, groups=groups)
            keys = ("running_mean", "running_var", "weight", "bias")
            return F.batch_norm(x, *(w[f"{bn}.{key}"] for key in keys))

        y = conv_bn(x, "features.0.0", "features.0.1", 2).clamp(0, 6)
        for number, widen, maps_in, maps, stride, _ in rows():
            path, z, layer = f"features.{number}.conv", y, 0
            if widen > 1:
                z = conv_bn(z, f"{path}.0.0", f"{path}.0.1").clamp(0, 6)
                layer = 1
            z = conv_bn(z, f"{path}.{layer}.0", f"{path}.{layer}.1", stride, z.shape[1])
            z = conv_bn(z.clamp(0, 6), f"{path}.{layer + 1}", f"{path}.{layer + 2}")
            y = y + z if stride == 1 and maps_in == maps else z
        y = conv_bn(y, "features.18.0", "features.18.1").clamp(0, 6).mean((2, 3))
        expected = y @ w["classifier.1.weight"].T + w["classifier.1.bias"]
        torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-4)


def test_channels_classes_and_dropout():
    net = blank(classes=7, channels=4, dropout=0.4)
    assert net(torch.zeros(2, 4, 50, 61, device="meta")).shape == (2, 7)
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.4]
    assert blank().classifier[0].p == 0.2


@pytest.mark.parametrize("dropout", [1, -0.1, None])
def test_dropout_out_of_range_is_named(dropout):
    with pytest.raises(ModelError, match=f"dropout must be .* from 0 to below 1, given {dropout}"):
        blank(dropout=dropout)
