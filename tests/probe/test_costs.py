"""Costs: exact integers by hand, torch's own counter as the oracle, times that make sense."""

import math
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hubel.models.names import build
from hubel.models.table import MODELS
from hubel.probe.costs import WHOLE, costs


def counted(net, *shape):
    return costs(net, torch.zeros(shape), repeats=0)


def usual(name):
    channels, *size = MODELS[name].usual
    net = build(name, classes=10, channels=channels, size=tuple(size))
    return net, torch.zeros(1, channels, *size)


def test_lenet5_by_hand():
    net, image = usual("lenet5")
    rows = {row.layer.rpartition(".")[2]: row for row in costs(net, image, repeats=0).layers}
    macs = {"conv1": 784 * 6 * 25, "conv2": 100 * 16 * 6 * 25}
    macs |= {"fc1": 400 * 120, "fc2": 120 * 84, "fc3": 84 * 10}
    parameters = {"conv1": 156, "conv2": 2416, "fc1": 48_120, "fc2": 10_164, "fc3": 850}
    for layer, row in rows.items():
        assert row.macs == macs.get(layer, 0)
        assert row.parameters == parameters.get(layer, 0)
    assert rows["conv1"].shape == (1, 6, 28, 28)
    assert rows["conv1"].bytes == 6 * 28 * 28 * 4
    assert list(rows)[:4] == ["conv1", "relu1", "pool1", "conv2"]


TOTALS = {
    "lenet5": (61_706, 416_520),
    "net32": (62_006, 651_720),
    "mlp": (235_146, 234_752),
    "softmax": (7_850, 7_840),
    "resnet20": (269_722, 40_551_040),
}


@pytest.mark.parametrize(("name", "exact"), TOTALS.items())
def test_totals_are_exact(name, exact):
    found = costs(*usual(name), repeats=0)
    assert (found.parameters, found.macs) == exact


def blank(name, classes=10):
    """A named net without memory, at its usual size."""
    entry = MODELS[name]
    with torch.device("meta"):
        net = build(name, classes=classes, channels=entry.usual[0], size=entry.usual[1:])
        return net, torch.zeros(1, *entry.usual)


@pytest.mark.parametrize("name", MODELS)
def test_torchs_counter_agrees(name):
    net, image = blank(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(image)
    assert costs(net, image, repeats=0, sight=False).macs * 2 == counter.get_total_flops()


# GMACs of one image as torchvision's model pages print them; exact where they were worked out
PUBLISHED = {
    "alexnet": "0.714",
    "alexnet_2012": 724_406_816,
    "googlenet": "1.498",
    "googlenet_2014": 1_582_671_872,
    "resnet18": "1.814",
    "resnet34": "3.664",
    "resnet50": "4.089",
    "resnet101": "7.801",
    "resnet152": "11.514",
    "vgg16": "15.470",
    "vgg19": 19_632_062_464,
}


@pytest.mark.parametrize(("name", "figure"), PUBLISHED.items())
def test_published_counts(name, figure):
    macs = costs(*blank(name, classes=1000), repeats=0, sight=False).macs
    assert (macs if isinstance(figure, int) else f"{macs / 1e9:.3f}") == figure


def test_without_numbers_everything_but_time_is_the_same():
    """Shapes, bytes, counts and fields on the meta device are those of a pass that computes."""
    for name in ("lenet5", "compact", "resnet20"):
        net, image = usual(name)
        assert repr(costs(*blank(name), repeats=0)) == repr(costs(net, image, repeats=0))


def test_large_nets_are_counted_without_memory_and_quickly():
    net, image = blank("resnet152", classes=1000)
    costs(net, image, repeats=0, sight=False)
    began = time.process_time()
    found = costs(net, image, repeats=0, sight=False)
    assert time.process_time() - began < 2  # 0.1 s on one core; computing it takes more than 10
    assert found.parameters == 60_192_808


def test_fields_are_those_of_the_last_output():
    rows = {row.layer: row for row in costs(*usual("lenet5"), repeats=0).layers}
    assert rows["features.conv2"].field.size == (14, 14)
    assert rows["features.pool2"].field.step == (4.0, 4.0)
    assert rows["classifier.fc1"].field.size is None


def test_fields_may_be_left_out():
    net, image = usual("lenet5")
    assert all(row.field is None for row in costs(net, image, repeats=0, sight=False).layers)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_folding_keeps_the_sums(depth):
    net, image = usual("resnet20")
    whole, folded = costs(net, image, repeats=1), costs(net, image, repeats=1, depth=depth)
    for sum_of in ("parameters", "macs", "bytes"):
        assert getattr(folded, sum_of) == getattr(whole, sum_of)
    assert sum(row.share for row in folded.layers) == pytest.approx(1)
    assert len({row.layer for row in folded.layers}) == len(folded.layers)
    assert all(row.layer.count(".") < depth for row in folded.layers)


def test_a_folded_row_is_its_modules():
    rows = {row.layer: row for row in costs(*usual("resnet20"), repeats=0, depth=1).layers}
    assert list(rows) == ["conv1", "bn1", "relu", "layer1", "layer2", "layer3", "avgpool",
                          "flatten", "fc"]  # fmt: skip
    stage = rows["layer2"]
    assert (stage.kind, stage.shape, stage.uses) == ("Sequential", (1, 32, 16, 16), 1)
    assert stage.field.size == (37, 37)  # 15 before it, + 2, then step 2: + 5 x 4
    assert stage.parameters == 32 * 9 * (16 + 5 * 32) + 6 * 2 * 32


def test_folding_a_list_that_never_runs_takes_its_last_layer():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps = nn.ModuleList([nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 3)])

        def forward(self, x):
            for step in self.steps:
                x = step(x)
            return x

    (row,) = costs(Listed(), torch.zeros(1, 1, 9, 8), repeats=0, depth=1).layers
    assert (row.layer, row.kind, row.shape) == ("steps", "ModuleList", (1, 3, 5, 4))
    assert row.field.size == (5, 5)


class Pairs(nn.Module):
    """A bilinear form of the first three and the last two numbers."""

    def __init__(self):
        super().__init__()
        self.form = nn.Bilinear(3, 2, 4)

    def forward(self, x):
        return self.form(x[..., :3], x[..., 3:])


HAND = {
    "stride and padding": (nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=1), (2, 3, 9, 11), None),
    "groups": (nn.Conv2d(8, 12, 3, groups=4), (1, 8, 7, 5), 12 * 5 * 3 * 9 * 2),
    "dilation": (nn.Conv2d(1, 2, 3, dilation=2), (1, 1, 8, 9), 2 * 4 * 5 * 9),
    "transposed": (nn.ConvTranspose2d(6, 4, 3, stride=2), (2, 6, 5, 7), 2 * 5 * 7 * 6 * 4 * 9),
    "transposed in groups": (nn.ConvTranspose2d(6, 4, 3, groups=2), (1, 6, 5, 7), 35 * 6 * 2 * 9),
    "linear over a map": (nn.Linear(5, 3), (2, 4, 7, 5), 2 * 4 * 7 * 5 * 3),
    "1-d": (nn.Conv1d(2, 3, 4), (1, 2, 9), 3 * 6 * 4 * 2),
    "bilinear": (Pairs(), (2, 7, 5), 2 * 7 * 4 * (3 * 2 + 3)),
    "one channel each": (nn.Conv2d(6, 12, 3, groups=6), (1, 6, 7, 5), 12 * 5 * 3 * 9),
    "transposed, padded": (nn.ConvTranspose2d(6, 4, 3, 2, 1, 1), (1, 6, 5, 7), 35 * 6 * 4 * 9),
    "3-d": (nn.Conv3d(2, 4, 3, groups=2), (2, 2, 5, 7, 4), 2 * 3 * 5 * 2 * 4 * 27),
    "no bias": (nn.Linear(5, 3, bias=False), (2, 5), 2 * 5 * 3),
}


@pytest.mark.parametrize(("layer", "shape", "macs"), HAND.values(), ids=HAND)
def test_one_layer_by_hand(layer, shape, macs):
    by_hand = 2 * 8 * 5 * 9 * (3 * 3 * 5) if macs is None else macs
    assert counted(nn.Sequential(layer), *shape).macs == by_hand


def test_reused_layer_multiplies_again_but_learns_once():
    class Reused(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(2, 2, 3, padding=1)
            self.again = self.layer

        def forward(self, x):
            return self.again(self.layer(self.layer(x)))

    found = counted(Reused(), 1, 2, 5, 6)
    (row,) = found.layers
    assert row.uses == 3
    assert found.parameters == 2 * 2 * 9 + 2
    assert found.macs == 3 * 30 * 2 * 2 * 9
    assert row.bytes == 3 * 2 * 30 * 4


def test_shared_weights_count_at_the_first_layer():
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
    net[2].weight = net[0].weight
    found = counted(net, 3, 4)
    assert [row.parameters for row in found.layers] == [16, 0, 0]
    assert found.macs == 2 * 3 * 16


def test_functional_calls_count_where_they_stand():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 1, 3, 3))
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            x = F.conv2d(x, self.weight).relu().mean(dim=(2, 3))
            return self.fc(x) + torch.einsum("nc,dc->nd", x, x[:2])

    rows = {row.layer: row for row in counted(Functional(), 2, 1, 6, 7).layers}
    assert rows[WHOLE].macs == 2 * 4 * 20 * 9 + 2 * 2 * 4
    assert rows[WHOLE].parameters == 36
    assert rows["fc"].macs == 2 * 8


def test_attention_is_counted_through_its_fused_kernels():
    """16 features, 5 places: queries, keys, values; products with them; the last projection."""
    net = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    found = counted(nn.Sequential(net), 1, 5, 16)
    assert found.macs == 5 * 16 * 48 + 2 * 5 * 5 * 16 + 5 * 16 * 16 + 2 * 5 * 16 * 32
    assert torch.backends.mha.get_fastpath_enabled()


def test_layers_that_never_run_still_hold_their_parameters():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare, self.pool = nn.Linear(3, 2), nn.Linear(5, 7), nn.MaxPool2d(2)

        def forward(self, x):
            return self.used(x)

    net = Spare()
    found = counted(net, 1, 3)
    assert [(row.layer, row.uses, row.shape) for row in found.layers] == [
        ("used", 1, (1, 2)),
        ("spare", 0, ()),
    ]
    assert found.parameters == sum(p.numel() for p in net.parameters())


def test_times_are_where_the_work_is():
    class Slow(nn.Module):
        def forward(self, x):
            time.sleep(0.02)
            return x

    net = nn.Sequential(nn.Sequential(Slow(), nn.ReLU()), Slow(), nn.Flatten())
    found = costs(net, torch.zeros(1, 2, 2, 2), repeats=3)
    rows = {row.layer: row for row in found.layers}
    assert rows["0.0"].milliseconds >= 20
    assert rows["0.0"].share == pytest.approx(rows["1"].share, rel=0.5)
    assert rows["0.1"].share < 0.2
    assert sum(row.share for row in found.layers) == pytest.approx(1)
    assert found.milliseconds >= 40


def test_time_in_inner_layers_is_not_counted_again_outside():
    class Slow(nn.Module):
        def forward(self, x):
            time.sleep(0.02)
            return x

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.inner = nn.Parameter(torch.ones(1)), Slow()

        def forward(self, x):
            return self.inner(x * self.scale)

    rows = {row.layer: row for row in costs(Outer(), torch.ones(1, 2), repeats=3).layers}
    assert rows["inner"].milliseconds >= 20
    assert rows[WHOLE].milliseconds < 10


def test_without_repeats_there_are_no_times():
    found = counted(nn.Sequential(nn.Linear(2, 2)), 1, 2)
    assert math.isnan(found.milliseconds)
    assert math.isnan(found.layers[0].milliseconds)
    assert math.isnan(found.layers[0].share)


def test_the_model_is_left_as_it_was():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5)).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    images, chance = torch.randn(3, 1, 6, 6), torch.get_rng_state()
    costs(net, images, repeats=2)
    assert all(net.state_dict()[key].equal(value) for key, value in before.items())
    assert all(
        m.training and not m._forward_hooks and not m._forward_pre_hooks for m in net.modules()
    )
    assert torch.get_rng_state().equal(chance)
    assert all(p.grad is None for p in net.parameters())
