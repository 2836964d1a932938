"""Both GoogLeNets: the paper's table row by row, the heads, the 2014 net spelt out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hubel.errors import ModelError
from hubel.models.googlenet import googlenet, googlenet_2014
from hubel.models.initialise import initialise
from hubel.models.names import build
from hubel.models.watch import watch
from hubel.probe.costs import costs

# Table 1 of the paper: maps in, then #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj;
# maps out and pixels a side at 224; parameters by hand, see `by_hand`: as printed, torchvision's.
TABLE = {
    "3a": (192, (64, 96, 128, 16, 32, 32), 256, 28, 163_696, 155_872),
    "3b": (256, (128, 128, 192, 32, 96, 64), 480, 28, 388_736, 340_224),
    "4a": (480, (192, 96, 208, 16, 48, 64), 512, 14, 376_176, 364_512),
    "4b": (512, (160, 112, 224, 24, 64, 64), 512, 14, 449_160, 425_232),
    "4c": (512, (128, 128, 256, 24, 64, 64), 512, 14, 510_104, 486_192),
    "4d": (512, (112, 144, 288, 32, 64, 64), 528, 14, 605_376, 573_312),
    "4e": (528, (256, 160, 320, 32, 128, 128), 832, 14, 868_352, 803_840),
    "5a": (832, (256, 160, 320, 32, 128, 128), 832, 7, 1_043_456, 978_944),
    "5b": (832, (384, 192, 384, 48, 128, 128), 1024, 7, 1_444_080, 1_347_040),
}
BOTH = pytest.mark.parametrize("make", [googlenet_2014, googlenet])
every_block = pytest.mark.parametrize("block", TABLE)


def blank(make, side=224, **options):
    with torch.device("meta"):
        return make(**{"classes": 1000, "channels": 3, "size": (side, side), **options})


def count(net):
    return sum(p.numel() for p in net.parameters())


def ran(net, side):
    """(path, shape of the output without its first axis) of all that runs."""
    seen = []
    with watch(
        net,
        enter=lambda *_: None,
        leave=lambda path, module, inputs, out: seen.append((path, out)),
    ):
        net(torch.zeros(2, 3, side, side, device="meta"))
    return {path: tuple(out.shape[1:]) for path, out in seen if isinstance(out, torch.Tensor)}


@BOTH
def test_every_row_of_the_table(make):
    net = blank(make)
    found = ran(net.eval(), 224)
    expected = {
        "conv1": (64, 112, 112),
        "maxpool1": (64, 56, 56),
        "conv2": (64, 56, 56),
        "conv3": (192, 56, 56),
        "maxpool2": (192, 28, 28),
        "maxpool3": (480, 14, 14),
        "maxpool4": (832, 7, 7),
        "avgpool": (1024, 1, 1),
        "fc": (1000,),
    }
    expected |= {f"inception{b}": (row[2], row[3], row[3]) for b, row in TABLE.items()}
    assert {path: found[path] for path in expected} == expected
    order = [path for path in found if path in expected]
    first = ["conv1", "maxpool1", "conv2", "conv3", "maxpool2", "inception3a", "inception3b"]
    assert order[:8] == [*first, "maxpool3"]
    assert order[8:] == [
        *(f"inception4{letter}" for letter in "abcde"), "maxpool4", "inception5a", "inception5b",
        "avgpool", "fc",
    ]  # fmt: skip


@BOTH
@every_block
def test_maps_and_kernels_of_every_branch(make, block):
    norm = make is googlenet
    maps_in, (one, reduce3, three, reduce5, five, pool), *_ = TABLE[block]
    fifth = 3 if norm else 5
    expected = {
        "branch1": [(maps_in, one, 1)],
        "branch2": [(maps_in, reduce3, 1), (reduce3, three, 3)],
        "branch3": [(maps_in, reduce5, 1), (reduce5, five, fifth)],
        "branch4": [(maps_in, pool, 1)],
    }
    for name, rows in expected.items():
        branch = blank(make).get_submodule(f"inception{block}.{name}")
        convs = [m for m in branch.modules() if isinstance(m, nn.Conv2d)]
        assert [(m.in_channels, m.out_channels, m.kernel_size[0]) for m in convs] == rows
        assert all(m.padding == (m.kernel_size[0] // 2,) * 2 for m in convs)
        assert all((m.bias is None) == norm for m in convs)
        relus = [m for m in branch.modules() if isinstance(m, nn.ReLU)]
        assert len(relus) == len(rows)  # behind every convolution, the reducing ones too


def by_hand(block, norm):
    """Weights; and a bias, or scale and shift of a norm, for every map."""
    maps_in, maps, *_ = TABLE[block]
    one, reduce3, three, reduce5, five, pool = maps
    weights = maps_in * (one + reduce3 + reduce5 + pool) + 9 * reduce3 * three
    weights += (9 if norm else 25) * reduce5 * five
    return weights + (2 if norm else 1) * sum(maps)


@BOTH
@every_block
def test_parameters_of_every_block_by_hand(make, block):
    norm = make is googlenet
    printed = TABLE[block][5 if norm else 4]
    assert count(blank(make).get_submodule(f"inception{block}")) == by_hand(block, norm) == printed


@pytest.mark.parametrize(
    ("make", "head", "whole", "alone"),
    [(googlenet_2014, 2048, 13_378_280, 6_998_552), (googlenet, 2048, 13_004_888, 6_624_904)],
)
def test_parameters_with_and_without_the_heads(make, head, whole, alone):
    norm = make is googlenet
    stem = 64 * 3 * 49 + 64 * 64 + 192 * 64 * 9 + (2 if norm else 1) * (64 + 64 + 192)
    blocks = sum(by_hand(block, norm) for block in TABLE)
    assert stem + blocks + 1025 * 1000 == alone
    assert count(blank(make, aux=False)) == alone
    net, extra = blank(make), 2 if norm else 1
    for name, maps in (("aux1", 512), ("aux2", 528)):
        fully = (head + 1) * 1024 + 1025 * 1000
        assert count(net.get_submodule(name)) == 128 * maps + extra * 128 + fully
    assert count(net) == whole


def test_multiply_adds_of_2014():
    net, image = blank(googlenet_2014), torch.zeros(1, 3, 224, 224, device="meta")
    found = costs(net, image, repeats=0, sight=False)
    macs, maps_of = 0, {"conv1": (3 * 49, 64, 112), "conv2": (64, 64, 56), "conv3": (576, 192, 56)}
    for sees, maps, side in maps_of.values():
        macs += sees * maps * side**2
    for block, (_, maps, _, side, *_) in TABLE.items():
        macs += (by_hand(block, norm=False) - sum(maps)) * side**2
    assert found.macs == macs + 1024 * 1000 == 1_582_671_872
    assert not any(row.macs for row in found.layers if row.layer.startswith("aux"))


def test_response_normalisation_stands_behind_pool1_and_conv3():
    order = list(ran(blank(googlenet_2014).eval(), 224))
    tops = [path for path in order if "." not in path]
    assert tops[:7] == ["conv1", "maxpool1", "norm1", "conv2", "conv3", "norm2", "maxpool2"]
    net = blank(googlenet_2014)
    norms = [m for m in net.modules() if isinstance(m, nn.LocalResponseNorm)]
    assert norms == [net.norm1, net.norm2]
    assert not [m for m in blank(googlenet).modules() if isinstance(m, nn.LocalResponseNorm)]
    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]


def rounded_up(side):
    """Sides behind conv1, the pools and the blocks, by hand: pools take what hangs over."""
    sides = [(side + 6 - 7) // 2 + 1]
    for _ in range(4):
        sides.append((sides[-1] - 2) // 2 + 1)  # ceil((side - 3) / 2) + 1
    return sides


@pytest.mark.parametrize("side", [79, 97, 112, 115, 160, 223, 224, 225, 231])
def test_pools_round_up(side):
    found = ran(blank(googlenet_2014, side).eval(), side)
    paths = ("conv1", "maxpool1", "maxpool2", "maxpool3", "maxpool4")
    assert [found[path][1] for path in paths] == rounded_up(side)


def test_the_last_pool_of_todays_form_is_2x2():
    """Of 15 pixels a side behind 4e, 3x3 windows would leave 7, and the form has 8."""
    found = ran(blank(googlenet, 240).eval(), 240)
    assert (found["inception4e"][1], found["maxpool4"][1]) == (15, 8)
    found = ran(blank(googlenet_2014, 240).eval(), 240)
    assert (found["inception4e"][1], found["maxpool4"][1]) == (15, 7)


# The heads ---------------------------------------------------------------------------------------


@BOTH
def test_heads_speak_in_training_only(make):
    net, images = blank(make), torch.zeros(2, 3, 224, 224, device="meta")
    outputs = net.train()(images)
    assert {name: tuple(t.shape) for name, t in outputs.items()} == {
        "logits": (2, 1000), "aux1": (2, 1000), "aux2": (2, 1000)
    }  # fmt: skip
    assert net.eval()(images).shape == (2, 1000)
    alone = blank(make, aux=False)
    assert alone.train()(images).shape == (2, 1000)
    assert not any(key.startswith("aux") for key in alone.state_dict())


@BOTH
def test_shapes_inside_the_heads(make):
    found = ran(blank(make).train(), 224)
    for head, maps in (("aux1", 512), ("aux2", 528)):
        assert found[f"{head}.pool"] == (maps, 4, 4)
        assert found[f"{head}.conv"] == (128, 4, 4)
        assert found[f"{head}.flatten"] == (2048,)
        assert found[f"{head}.fc1"] == found[f"{head}.dropout"] == (1024,)
        assert found[f"{head}.fc2"] == (1000,)
    inside = [path for path in found if path.startswith("aux1.") and path.count(".") == 1]
    names = ("pool", "conv", "flatten", "fc1", "relu", "dropout", "fc2")
    assert inside == [f"aux1.{name}" for name in names]
    assert blank(make).aux1.dropout.p == blank(make).aux2.dropout.p == 0.7


STAGES = ("conv1", "conv2", "conv3", *(f"inception{block}" for block in TABLE), "fc")


@BOTH
@pytest.mark.parametrize(
    ("output", "last"), [("aux1", "inception4a"), ("aux2", "inception4d"), ("logits", "fc")]
)
def test_gradient_goes_down_from_where_it_starts_and_nowhere_else(make, output, last):
    torch.manual_seed(6)
    net = initialise(make(classes=4, channels=3, size=(79, 79))).train()
    net(torch.randn(2, 3, 79, 79))[output].square().sum().backward()
    reached = {
        name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    below = STAGES[: STAGES.index(last) + 1]
    expected = {
        name
        for name, _ in net.named_parameters()
        if name.split(".")[0] in below or name.startswith(f"{output}.")
    }
    assert reached == expected


@pytest.mark.parametrize(("make", "least"), [(googlenet_2014, 79), (googlenet, 15)])
@pytest.mark.parametrize("more", [0, 1, 2, 18])
def test_from_the_smallest_size_up_heads_and_all(make, least, more):
    net = blank(make, least + more, classes=3)
    images = torch.zeros(2, 3, least + more, least + more, device="meta")
    assert all(out.shape == (2, 3) for out in net.train()(images).values())
    assert net.eval()(images).shape == (2, 3)


def test_without_heads_the_printed_net_takes_smaller_images():
    with pytest.raises(ModelError, match=r"googlenet_2014 .* 79 pixels wide, given 90x78: .*head"):
        blank(googlenet_2014, size=(90, 78))
    net = blank(googlenet_2014, 31, aux=False)
    assert net(torch.zeros(2, 3, 31, 31, device="meta")).shape == (2, 1000)
    with pytest.raises(ModelError, match=r"31 pixels high .* after maxpool4, a window of 3 on a m"):
        blank(googlenet_2014, 30, aux=False)


def test_height_and_width_are_not_confused():
    net = blank(googlenet_2014, size=(80, 160))
    assert net.aux1.fc1.in_features == 128 * 1 * 2
    out = net(torch.zeros(2, 3, 80, 160, device="meta"))
    assert out["aux2"].shape == (2, 1000)


# The whole, spelt out ----------------------------------------------------------------------------


def spelt_out(w, x):
    """The net of 2014, logits of all three, from its state dict alone."""

    def conv(x, path, stride=1):
        weight = w[f"{path}.conv.weight"]
        padding = weight.shape[2] // 2
        return F.conv2d(x, weight, w[f"{path}.conv.bias"], stride, padding).relu()

    def pool(x):
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    def normed(x):  # a / (1 + alpha / 5 sum of 5 squares)^0.75
        squares = F.pad(x * x, (0, 0, 0, 0, 2, 2))
        return x / (1 + 1e-4 / 5 * squares.unfold(1, 5, 1).sum(-1)) ** 0.75

    def inception(x, path):
        three = conv(conv(x, f"{path}.branch2.0"), f"{path}.branch2.1")
        five = conv(conv(x, f"{path}.branch3.0"), f"{path}.branch3.1")
        pooled = conv(F.max_pool2d(x, 3, 1, 1), f"{path}.branch4.1")
        return torch.cat([conv(x, f"{path}.branch1"), three, five, pooled], 1)

    def full(x, path):
        return x @ w[f"{path}.weight"].T + w[f"{path}.bias"]

    def head(x, path):
        maps = conv(F.avg_pool2d(x, 5, 3), f"{path}.conv").flatten(1)
        return full(full(maps, f"{path}.fc1").relu(), f"{path}.fc2")

    x = normed(pool(conv(x, "conv1", 2)))
    x = pool(normed(conv(conv(x, "conv2"), "conv3")))
    x = pool(inception(inception(x, "inception3a"), "inception3b"))
    early = x = inception(x, "inception4a")
    for letter in "bcd":
        x = inception(x, f"inception4{letter}")
    middle = x
    x = pool(inception(x, "inception4e"))
    x = inception(inception(x, "inception5a"), "inception5b")
    logits = full(x.mean((2, 3)), "fc")
    return {"logits": logits, "aux1": head(early, "aux1"), "aux2": head(middle, "aux2")}


@pytest.mark.parametrize("size", [(79, 79), (97, 131)])
def test_2014_forward_spelt_out(size):
    """Inputs of some hundreds: at ordinary ones response normalisation would hardly be seen."""
    torch.manual_seed(7)
    net = build("googlenet_2014", classes=6, channels=2, size=size, dropout=0.0)
    for head in (net.aux1, net.aux2):
        head.dropout.p = 0.0
    for parameter in net.parameters():  # biases too
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, -0.1, 0.1)
    images = 300 * torch.randn(2, 2, *size)
    with torch.no_grad():
        found, expected = net.train()(images), spelt_out(net.state_dict(), images)
        for name, value in expected.items():
            scale = float(value.abs().max())
            torch.testing.assert_close(found[name] / scale, value / scale, rtol=0, atol=1e-5)
        torch.testing.assert_close(net.eval()(images), found["logits"])


# Arguments ---------------------------------------------------------------------------------------


@BOTH
def test_channels_classes_and_dropout(make):
    net = blank(make, classes=7, channels=4, dropout=0.5)
    out = net.train()(torch.zeros(2, 4, 224, 224, device="meta"))
    assert {t.shape for t in out.values()} == {(2, 7)}
    assert net.dropout.p == 0.5
    assert blank(make).dropout.p == (0.2 if make is googlenet else 0.4)


@BOTH
@pytest.mark.parametrize("dropout", [1, -0.1, "half"])
def test_dropout_out_of_range_is_named(make, dropout):
    with pytest.raises(
        ModelError, match=f"dropout must be .* from 0 to below 1, given {dropout!r}"
    ):
        blank(make, dropout=dropout)
