"""EfficientNet-Lite: TensorFlow's padding, the stages of all three sizes, the pass spelt out."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate
from torch import nn

from hubel.errors import ModelError
from hubel.models import efficientnet_lite
from hubel.models.efficientnet_lite import InvertedResidual, SameConv2d, Separable
from hubel.models.names import build
from hubel.probe.costs import costs

# kernel, stride, widened by; then maps and blocks of lite0, lite1, lite2
STAGES = [
    (3, 1, 1, (16, 16, 16), (1, 1, 1)),
    (3, 2, 6, (24, 24, 24), (2, 3, 3)),
    (5, 2, 6, (40, 40, 48), (2, 3, 3)),
    (3, 2, 6, (80, 80, 88), (3, 4, 4)),
    (5, 1, 6, (112, 112, 120), (3, 4, 4)),
    (5, 2, 6, (192, 192, 208), (4, 5, 5)),
    (3, 1, 6, (320, 320, 352), (1, 1, 1)),
]
SIDES = (224, 240, 260)
PARAMETERS = (4_652_008, 5_416_680, 6_092_072)
every_size = pytest.mark.parametrize("number", [0, 1, 2])


def blank(number, **options):
    with torch.device("meta"):
        make = getattr(efficientnet_lite, f"efficientnet_lite{number}")
        return make(**{"classes": 1000, "channels": 3, "size": (224, 224), **options})


def rows(number):
    """(path, kernel, stride, widened by, maps in, maps) of every block of a net."""
    maps_in = 32
    for stage, (kernel, stride, widen, maps, blocks) in enumerate(STAGES):
        for block in range(blocks[number]):
            first = stride if block == 0 else 1
            yield f"blocks.{stage}.{block}", kernel, first, widen, maps_in, maps[number]
            maps_in = maps[number]


# SAME padding ------------------------------------------------------------------------------------


def tensorflows(length, kernel, stride):
    """(before, after), as TensorFlow's documentation of "SAME" states it."""
    over = length % stride
    total = max(kernel - (stride if over == 0 else over), 0)
    return total // 2, total - total // 2


def same(x, weight, stride, groups):
    """A SAME convolution in NumPy and SciPy: x (C, H, W), weight (O, C / groups, K, K)."""
    kernel = weight.shape[-1]
    x = np.pad(x, [(0, 0), *(tensorflows(n, kernel, stride) for n in x.shape[1:])])
    into, out = x.shape[0] // groups, weight.shape[0] // groups
    return np.stack(
        [
            correlate(x[o // out * into :][:into], weight[o], mode="valid", method="direct")[0]
            for o in range(weight.shape[0])
        ]
    )[:, ::stride, ::stride]


@settings(max_examples=120, deadline=None)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    depthwise=st.booleans(),
    seed=st.integers(0, 99),
)
def test_same_padding_is_tensorflows(size, kernel, stride, depthwise, seed):
    torch.manual_seed(seed)
    conv = SameConv2d(2, 4, kernel, stride, groups=2 if depthwise else 1).double()
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    found = conv(x)[0].detach()
    assert found.shape == (4, *(math.ceil(n / stride) for n in size))
    expected = same(x[0].numpy(), conv.weight.detach().numpy(), stride, 2 if depthwise else 1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_the_odd_pixel_lies_below_and_at_the_right():
    """4 pixels, kernel 3, stride 2: TensorFlow adds one behind and none in front."""
    conv = SameConv2d(1, 1, 3, 2)
    nn.init.ones_(conv.weight)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    found = conv(x)[0, 0]
    assert found.tolist() == [
        [45.0, 2 + 3 + 6 + 7 + 10 + 11],
        [8 + 9 + 10 + 12 + 13 + 14, 10 + 11 + 14 + 15],
    ]
    symmetric = F.conv2d(x, conv.weight, stride=2, padding=1)[0, 0]
    assert not found.equal(symmetric)


# The table ---------------------------------------------------------------------------------------


@every_size
def test_every_stage(number):
    net = blank(number)
    convs = {path: m for path, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    assert all(type(m) is SameConv2d and m.bias is None for m in convs.values())
    paths = [path for path, *_ in rows(number)]
    assert paths == [
        f"blocks.{s}.{b}" for s, stage in enumerate(net.blocks) for b in range(len(stage))
    ]
    for path, kernel, stride, widen, maps_in, maps in rows(number):
        block, wide = net.get_submodule(path), maps_in * widen
        assert type(block) is (Separable if widen == 1 else InvertedResidual)
        filters = convs[f"{path}.conv_dw"]
        assert (filters.in_channels, filters.out_channels, filters.groups) == (wide,) * 3
        assert (filters.kernel_size, filters.stride) == ((kernel, kernel), (stride, stride))
        names = ("conv_pw",) if widen == 1 else ("conv_pw", "conv_pwl")
        ends = [
            (convs[f"{path}.{n}"].in_channels, convs[f"{path}.{n}"].out_channels) for n in names
        ]
        assert ends == ([(wide, maps)] if widen == 1 else [(maps_in, wide), (wide, maps)])
    assert (net.conv_stem.out_channels, net.conv_stem.stride) == (32, (2, 2))
    assert (net.conv_head.in_channels, net.conv_head.out_channels) == (STAGES[-1][3][number], 1280)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {m.eps for m in norms} == {1e-3}
    assert len(norms) == len(convs)
    relus = [m for m in net.modules() if isinstance(m, nn.ReLU6)]
    assert len(relus) == len(convs) - len(paths)  # each block's last convolution is linear


@every_size
def test_parameters_and_multiply_adds_by_hand(number):
    side = math.ceil(SIDES[number] / 2)
    parameters, macs = 27 * 32 + 2 * 32, 27 * 32 * side**2
    for _, kernel, stride, widen, maps_in, maps in rows(number):
        wide = maps_in * widen
        if widen > 1:
            parameters += maps_in * wide + 2 * wide
            macs += maps_in * wide * side**2
        side = math.ceil(side / stride)
        parameters += kernel**2 * wide + 2 * wide + wide * maps + 2 * maps
        macs += (kernel**2 * wide + wide * maps) * side**2
    parameters += maps * 1280 + 2 * 1280 + 1281 * 1000
    macs += maps * 1280 * side**2 + 1280 * 1000
    image = torch.zeros(1, 3, SIDES[number], SIDES[number], device="meta")
    found = costs(blank(number), image, repeats=0, sight=False)
    assert found.parameters == parameters == PARAMETERS[number]
    assert found.macs == macs


@pytest.mark.parametrize("size", [(224, 224), (65, 33), (1, 1), (97, 30)])
def test_maps_round_up_all_the_way(size):
    image = torch.zeros(1, 3, *size, device="meta")
    layers = costs(blank(0), image, repeats=0, sight=False).layers
    shapes = {row.layer: row.shape[2:] for row in layers if row.kind == "SameConv2d"}
    assert shapes["conv_stem"] == tuple(math.ceil(n / 2) for n in size)
    assert shapes["conv_head"] == tuple(math.ceil(n / 32) for n in size)


# Shortcuts ---------------------------------------------------------------------------------------


@every_size
def test_inputs_are_added_exactly_where_the_shape_stays(number):
    """A block whose last norm lets nothing through gives what was added: its input, or nothing."""
    net = build(f"efficientnet_lite{number}", classes=2, channels=3).eval()
    added = 0
    for path, _, stride, widen, maps_in, maps in rows(number):
        block = net.get_submodule(path)
        last = block.bn2 if widen == 1 else block.bn3
        nn.init.zeros_(last.weight)
        x = torch.randn(1, maps_in, 5, 6)
        out = block(x)
        if stride == 1 and maps_in == maps:
            assert out.equal(x)
            added += 1
        else:
            assert not out.any()
    assert added == sum(blocks[number] - 1 for *_, blocks in STAGES)


# The whole, spelt out ----------------------------------------------------------------------------


def spelt_out(w, x):
    """Lite0 from its state dict alone."""

    def conv_bn(x, conv, bn, stride=1, groups=1):
        weight = w[f"{conv}.weight"]
        (top, low), (left, right) = (
            tensorflows(n, weight.shape[2], stride) for n in x.shape[2:]
        )  # fmt: skip
        x = F.conv2d(F.pad(x, (left, right, top, low)), weight, None, stride, groups=groups)
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(w[f"{bn}.{key}"] for key in keys), eps=1e-3)

    x = conv_bn(x, "conv_stem", "bn1", 2).clamp(0, 6)
    for path, _, stride, widen, maps_in, maps in rows(0):
        y, norm = x, 1
        if widen > 1:
            y, norm = conv_bn(y, f"{path}.conv_pw", f"{path}.bn1").clamp(0, 6), 2
        y = conv_bn(y, f"{path}.conv_dw", f"{path}.bn{norm}", stride, y.shape[1]).clamp(0, 6)
        last = "conv_pwl" if widen > 1 else "conv_pw"
        y = conv_bn(y, f"{path}.{last}", f"{path}.bn{norm + 1}")
        x = x + y if stride == 1 and maps_in == maps else y
    x = conv_bn(x, "conv_head", "bn2").clamp(0, 6).mean((2, 3))
    return x @ w["classifier.weight"].T + w["classifier.bias"]


@pytest.mark.parametrize("size", [(71, 46), (64, 64)])
def test_forward_spelt_out(size):
    torch.manual_seed(0)
    net = build("efficientnet_lite0", classes=5, channels=2, size=size)
    images = torch.randn(3, 2, *size)
    with torch.no_grad():
        net(images)  # batch norms learn statistics worth comparing
        expected = spelt_out(net.eval().state_dict(), 1.5 * images)
        torch.testing.assert_close(net(1.5 * images), expected, rtol=1e-4, atol=1e-4)


@every_size
def test_channels_classes_and_dropout(number):
    net = blank(number, classes=7, channels=4, dropout=0.4)
    assert net(torch.zeros(2, 4, 50, 61, device="meta")).shape == (2, 7)
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.4]
    assert blank(number).dropout.p == 0.2
    with pytest.raises(ModelError, match="dropout must be .* from 0 to below 1, given 1"):
        blank(number, dropout=1)
