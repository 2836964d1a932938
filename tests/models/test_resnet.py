"""ResNets, large and small: counts, options A, B, C by hand, the forward passes spelt out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hubel.errors import ModelError
from hubel.models.initialise import initialise
from hubel.models.names import build
from hubel.models.resnet import Bottleneck, Shortcut, SmallResNet, resnet20
from hubel.probe.costs import costs


def count(net):
    return sum(p.numel() for p in net.parameters())


COUNTS = {3: 269_722, 5: 464_154, 7: 658_586, 9: 853_018, 18: 1_727_962, 200: 19_421_274}


@pytest.mark.parametrize(("blocks", "parameters"), COUNTS.items())
def test_the_family_counts_exactly_and_plain_twins_alike(blocks, parameters):
    assert count(SmallResNet(blocks, classes=10, channels=3)) == parameters
    assert count(SmallResNet(blocks, classes=10, channels=3, residual=False)) == parameters


def test_option_a_by_hand():
    x = torch.arange(2 * 3 * 3.0).view(1, 2, 3, 3)
    expected = torch.zeros(1, 3, 2, 2)
    expected[0, 0] = torch.tensor([[0.0, 2.0], [6.0, 8.0]])
    expected[0, 1] = torch.tensor([[9.0, 11.0], [15.0, 17.0]])
    assert Shortcut(1, 2)(x).equal(expected)


def test_names_are_torchvisions():
    names = set(resnet20(classes=10, channels=3, size=(32, 32)).state_dict())
    for name in ("conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "fc.bias"):
        assert name in names
    assert "layer3.2.bn2.num_batches_tracked" in names
    assert not any("downsample" in name for name in names)  # option A learns nothing


def spelt_out(w, x, residual=True):
    """ResNet-20 from its state dict alone."""

    def conv_bn(x, conv, bn, stride=1):
        x = F.conv2d(x, w[f"{conv}.weight"], stride=stride, padding=1)
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(w[f"{bn}.{key}"] for key in keys))

    x = conv_bn(x, "conv1", "bn1").relu()
    for stage in (1, 2, 3):
        for block in (0, 1, 2):
            path = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = conv_bn(x, f"{path}.conv1", f"{path}.bn1", stride).relu()
            y = conv_bn(y, f"{path}.conv2", f"{path}.bn2")
            if stride == 2:
                x = x[:, :, ::2, ::2]
                x = torch.cat([x, torch.zeros_like(x)], dim=1)
            x = (y + x if residual else y).relu()
    return x.mean(dim=(2, 3)) @ w["fc.weight"].T + w["fc.bias"]


@pytest.mark.parametrize("residual", [True, False])
def test_forward_spelt_out_on_an_odd_size(residual):
    torch.manual_seed(0)
    net = initialise(SmallResNet(3, classes=7, channels=2, residual=residual))
    x = torch.randn(4, 2, 13, 18)
    net(x)  # batch norms learn statistics worth comparing
    torch.testing.assert_close(net.eval()(x), spelt_out(net.state_dict(), x, residual))


# The nets for ImageNet ---------------------------------------------------------------------------

DEPTHS = {  # blocks in a stage, how much a block grows; GMACs of torchvision's page
    18: ((2, 2, 2, 2), 1, "1.814"),
    34: ((3, 4, 6, 3), 1, "3.664"),
    50: ((3, 4, 6, 3), 4, "4.089"),
    101: ((3, 4, 23, 3), 4, "7.801"),
    152: ((3, 8, 36, 3), 4, "11.514"),
}
PARAMETERS = {  # by option; B's as torchvision prints them, 34 A's is plain34's
    18: {"A": 11_515_688, "B": 11_689_512, "C": 12_043_816},
    34: {"A": 21_623_848, "B": 21_797_672, "C": 22_716_840},
    50: {"A": 22_780_456, "B": 25_557_032, "C": 40_128_552},
    101: {"A": 41_772_584, "B": 44_549_160, "C": 76_981_288},
    152: {"A": 57_416_232, "B": 60_192_808, "C": 107_335_720},
}
every_depth = pytest.mark.parametrize("depth", DEPTHS)
every_option = pytest.mark.parametrize("option", "ABC")


def large(kind, depth, **options):
    """Without memory."""
    with torch.device("meta"):
        return build(f"{kind}{depth}", **{"classes": 1000, "channels": 3, **options})


def blocks_of(depth):
    """(path, maps in, maps, stride) of every block."""
    counts, grows, _ = DEPTHS[depth]
    maps_in = 64
    for stage, count in enumerate(counts):
        maps = 64 * 2**stage
        for number in range(count):
            stride = 2 if stage and not number else 1
            yield f"layer{stage + 1}.{number}", maps_in, maps, stride
            maps_in = maps * grows


def by_hand(depth, option):
    """Every convolution with its norm; the projections where the option has them."""
    grows, last = DEPTHS[depth][1], 512 * DEPTHS[depth][1]
    total = 49 * 3 * 64 + 2 * 64 + (last + 1) * 1000
    for _, maps_in, maps, stride in blocks_of(depth):
        out = maps * grows
        if grows == 1:
            total += 9 * maps_in * maps + 9 * maps * maps + 4 * maps
        else:
            total += maps_in * maps + 9 * maps * maps + maps * out + 4 * maps + 2 * out
        if option == "C" or (option == "B" and (maps_in != out or stride != 1)):
            total += maps_in * out + 2 * out
    return total


@every_depth
@every_option
def test_parameters_by_option_by_hand(depth, option):
    expected = by_hand(depth, option)
    assert count(large("resnet", depth, shortcut=option)) == expected == PARAMETERS[depth][option]


@every_depth
@every_option
def test_which_blocks_have_projections(depth, option):
    net = large("resnet", depth, shortcut=option)
    changing = {"layer2.0", "layer3.0", "layer4.0"} | ({"layer1.0"} if depth >= 50 else set())
    every = {path for path, *_ in blocks_of(depth)}
    expected = {"A": set(), "B": changing, "C": every}[option]
    found = {path: net.get_submodule(path).downsample for path in every}
    assert {path for path, d in found.items() if isinstance(d, nn.Sequential)} == expected
    thin = {path for path, d in found.items() if isinstance(d, Shortcut)}
    assert thin == (changing if option == "A" else set())
    for path, _, _, stride in blocks_of(depth):
        if path in expected:
            assert found[path][0].stride == (stride, stride)
            assert found[path][0].kernel_size == (1, 1)


@pytest.mark.parametrize("depth", [18, 34])
def test_plain_twins_learn_exactly_what_option_a_learns(depth):
    ours, theirs = large("plain", depth), large("resnet", depth, shortcut="A")
    shapes = [{key: t.shape for key, t in net.state_dict().items()} for net in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert count(ours) == PARAMETERS[depth]["A"]
    assert not [m for m in ours.modules() if isinstance(m, Shortcut)]


@every_depth
def test_multiply_adds_as_printed(depth):
    image = torch.zeros(1, 3, 224, 224, device="meta")
    found = costs(large("resnet", depth), image, repeats=0, sight=False)
    assert f"{found.macs / 1e9:.3f}" == DEPTHS[depth][2]


@pytest.mark.parametrize("depth", [50, 101, 152])
def test_where_a_bottleneck_halves_its_map(depth):
    image = torch.zeros(1, 3, 224, 224, device="meta")
    for where, side in (("3x3", 56), ("1x1", 28)):
        net = large("resnet", depth, stride_on=where)
        rows = costs(net, image, repeats=0, sight=False).layers
        sides = {row.layer: row.shape[2] for row in rows if row.kind == "Conv2d"}
        assert [sides[f"layer1.0.conv{n}"] for n in (1, 2, 3)] == [56, 56, 56]
        assert [sides[f"layer2.0.conv{n}"] for n in (1, 2, 3)] == [side, 28, 28]
        assert [sides[f"layer3.0.conv{n}"] for n in (1, 2, 3)] == [side // 2, 14, 14]
        assert sides["layer2.1.conv1"] == sides["layer2.0.downsample.0"] == 28
        assert sides["layer4.2.conv3"] == 7


def spelt_out_large(w, x, depth, option, where="3x3"):
    """A net for ImageNet from its state dict alone."""

    def conv_bn(x, conv, bn, stride=1):
        weight = w[f"{conv}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2)
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(w[f"{bn}.{key}"] for key in keys))

    def beside(x, path, like, stride):
        if f"{path}.downsample.0.weight" in w:
            return conv_bn(x, f"{path}.downsample.0", f"{path}.downsample.1", stride)
        wide = torch.zeros_like(like)  # option A; without a change this is x itself
        wide[:, : x.shape[1]] = x[:, :, ::stride, ::stride]
        return wide

    x = F.max_pool2d(conv_bn(x, "conv1", "bn1", 2).relu(), 3, 2, 1)
    for path, _, _, stride in blocks_of(depth):
        first, second = (stride, 1) if depth < 50 or where == "1x1" else (1, stride)
        y = conv_bn(x, f"{path}.conv1", f"{path}.bn1", first).relu()
        y = conv_bn(y, f"{path}.conv2", f"{path}.bn2", second)
        if depth >= 50:
            y = conv_bn(y.relu(), f"{path}.conv3", f"{path}.bn3")
        x = (y if option == "none" else y + beside(x, path, y, stride)).relu()
    return x.mean(dim=(2, 3)) @ w["fc.weight"].T + w["fc.bias"]


SPELT = [
    ("resnet50", "B", "1x1"),
    ("resnet50", "A", "1x1"),
    ("resnet50", "C", "3x3"),
    ("resnet18", "A", "3x3"),
    ("resnet18", "B", "3x3"),
    ("resnet18", "C", "3x3"),
    ("plain18", "none", "3x3"),
]


@pytest.mark.parametrize(("name", "option", "where"), SPELT)
def test_large_forward_spelt_out_on_an_odd_size(name, option, where):
    torch.manual_seed(0)
    words = {} if option == "none" else {"shortcut": option}
    words |= {"stride_on": where} if name == "resnet50" else {}
    net = build(name, classes=7, channels=2, size=(67, 45), **words)
    x = torch.randn(3, 2, 67, 45)
    with torch.no_grad():
        net(x)  # batch norms learn statistics worth comparing
        expected = spelt_out_large(net.state_dict(), x, int(name[-2:]), option, where)
        torch.testing.assert_close(net.eval()(x), expected, rtol=1e-4, atol=1e-4)


def test_one_bottleneck_by_hand():
    """Stride on the first 1x1: only every second pixel is ever looked at."""
    torch.manual_seed(1)
    first, second = (Bottleneck(3, 2, 2, "A", where).eval() for where in ("1x1", "3x3"))
    second.load_state_dict(first.state_dict())
    x = torch.randn(1, 3, 5, 4)
    other = x.clone()
    other[..., 1::2, :] += 1
    other[..., 1::2] -= 1
    assert first(x).shape == second(x).shape == (1, 8, 3, 2)
    assert first(x).equal(first(other))
    assert not second(x).equal(second(other))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "plain34", "resnet101"])
def test_channels_and_classes(name):
    with torch.device("meta"):
        net = build(name, classes=7, channels=4, size=(40, 33))
        assert net(torch.zeros(2, 4, 40, 33)).shape == (2, 7)


WRONG = [
    ("resnet18", {"shortcut": "D"}, r"unknown shortcut 'D': .*allowed: A, B, C"),
    ("resnet34", {"shortcut": "none"}, r"unknown shortcut 'none': .*allowed: A, B, C"),
    ("resnet50", {"shortcut": "b"}, r"unknown shortcut 'b': did you mean 'B'\? allowed: A, B, C"),
    ("resnet50", {"shortcut": 1}, r"unknown shortcut 1: allowed: A, B, C"),
    ("resnet101", {"stride_on": "3x1"}, r"unknown stride_on '3x1': did you mean .* 1x1, 3x3"),
    ("resnet152", {"stride_on": 3}, r"unknown stride_on 3: .*allowed: 1x1, 3x3"),
    ("resnet18", {"stride_on": "1x1"}, "unknown option of resnet18 'stride_on'.*allowed: shortcut"),
    ("plain18", {"shortcut": "A"}, "plain18 takes no options, given 'shortcut'"),
    ("resnet20", {"shortcut": "B"}, "resnet20 takes no options, given 'shortcut'"),
]


@pytest.mark.parametrize(("name", "options", "words"), WRONG)
def test_wrong_options_are_named(name, options, words):
    with pytest.raises(ModelError, match=words):
        build(name, classes=5, channels=3, **options)
