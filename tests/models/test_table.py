"""The table: no name twice, and exactly the published numbers of parameters."""

from dataclasses import replace

import pytest
import torch

from hubel.models.names import build
from hubel.models.table import MODELS, table

# With as many classes as the net was made for, auxiliary heads included.
PARAMETERS = {
    "alexnet": 61_100_840,
    "alexnet_2012": 60_965_224,
    "deconvnet": 251_805_653,  # 251,772,245 before batch norm
    "deeplab_v1": 20_505_429,
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "fcn32s": 136_152_917,
    "fcn16s": 134_815_994,
    "fcn8s": 134_489_759,
    "googlenet": 13_004_888,
    "googlenet_2014": 13_378_280,
    "lenet5": 61_706,
    "lenet5_1998": 60_000,
    "mlp": 235_146,
    "mobilenet_v2": 3_504_872,
    "net32": 62_006,
    "plain18": 11_515_688,
    "plain34": 21_623_848,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    **{f"{kind}20": 269_722 for kind in ("resnet", "plain")},
    **{f"{kind}32": 464_154 for kind in ("resnet", "plain")},
    **{f"{kind}44": 658_586 for kind in ("resnet", "plain")},
    **{f"{kind}56": 853_018 for kind in ("resnet", "plain")},
    **{f"{kind}110": 1_727_962 for kind in ("resnet", "plain")},
    "softmax": 7_850,
    "unet": 31_030_658,
    "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg13": 133_047_848,
    "vgg13_bn": 133_053_736,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "vgg19": 143_667_240,
    "vgg19_bn": 143_678_248,
}


def count(name, **options):
    entry = MODELS[name]
    channels, *size = entry.usual
    with torch.device("meta"):
        net = build(name, classes=entry.classes, channels=channels, size=tuple(size), **options)
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_numbers_of_parameters(name):
    assert count(name) == PARAMETERS[name]


def test_only_nets_without_a_published_number_are_not_counted_here():
    """Theirs are counted by hand in the tests of their files."""
    assert MODELS.keys() - PARAMETERS.keys() == {
        "compact", "unet_padded", "sliding_window", "multiscale", "recurrent",
    }  # fmt: skip


def test_every_net_has_a_task():
    assert {entry.task for entry in MODELS.values()} == {"classify", "segment"}


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("googlenet", {"aux": False}, 6_624_904),
        ("googlenet_2014", {"aux": False}, 6_998_552),
        ("resnet34", {"shortcut": "A"}, 21_623_848),  # as many as plain34
        ("deeplab_v1", {"field": "7x7"}, 134_346_581),
        ("deeplab_v1", {"field": "4x4"}, 65_140_565),
        ("resnet50", {"stride_on": "1x1"}, 25_557_032),
    ],
)
def test_options_change_the_number_as_published(name, options, parameters):
    assert count(name, **options) == parameters


def test_a_name_that_stands_twice_is_an_error():
    entry = MODELS["mlp"]
    with pytest.raises(ValueError, match="two models are called 'mlp'"):
        table([entry, replace(entry, year=2000)])
