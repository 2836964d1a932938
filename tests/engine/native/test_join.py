"""Which nodes become one."""

import torch
import torch.nn.functional as F
from native_nets import Wired
from torch import nn

from hubel.engine.native.join import joined
from hubel.engine.native.read import read_graph


def kinds(model, *shape):
    graph = joined(read_graph(model, torch.randn(2, *(shape or (3, 8, 8)))))
    return [
        (n.kind, n.options.get("relu", False), n.options.get("pool", False)) for n in graph.nodes
    ]


def programs(model):
    graph = joined(read_graph(model, torch.randn(2, 3, 8, 8)))
    return [[line[0] for line in n.options["program"]] for n in graph.nodes if n.kind == "group"]


END = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
ENDING = [("whole", False, False), ("linear", False, False)]


def net(*layers):
    return nn.Sequential(*layers, *END)


def conv(cin=3, cout=4):
    return nn.Conv2d(cin, cout, 3, padding=1)


def test_relu_and_pooling_go_into_the_convolution():
    assert kinds(net(conv(), nn.ReLU(), nn.MaxPool2d(2))) == [("conv", True, True), *ENDING]
    assert kinds(net(conv(), nn.ReLU())) == [("conv", True, False), *ENDING]
    assert kinds(net(conv(), nn.MaxPool2d(2))) == [("conv", False, True), *ENDING]
    group = ("group", False, False)
    assert kinds(net(conv(), nn.MaxPool2d(2), nn.ReLU())) == [("conv", False, True), group, *ENDING]


def test_other_pools_stay_outside():
    pool = ("pool", False, False)
    for layer in (
        nn.MaxPool2d(3), nn.MaxPool2d(2, 1), nn.MaxPool2d(2, padding=1), nn.AvgPool2d(2),
        nn.MaxPool2d(2, dilation=2),
    ):  # fmt: skip
        assert kinds(net(conv(), nn.ReLU(), layer)) == [("conv", True, False), pool, *ENDING]
    assert kinds(net(conv(), nn.MaxPool2d(2, ceil_mode=True)), 3, 7, 7)[1][0] == "pool"


def test_a_linear_layer_takes_its_relu():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 5))
    assert kinds(model) == [("linear", True, False), ("linear", False, False)]


def test_what_others_read_too_stays():
    model = Wired(
        lambda m, x: m.end((F.relu(y := m.one(x)) + y).mean((2, 3))),
        one=conv(),
        end=nn.Linear(4, 5),
    )
    assert [k for k, *_ in kinds(model)] == ["conv", "group", "whole", "linear"]
    assert sorted(programs(model)[0]) == ["add", "leaf", "leaf", "relu"]


def test_the_answer_stays_even_if_it_is_read():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.ReLU())
    assert kinds(model)[0] == ("linear", True, False)
    hidden = Wired(lambda m, x: m.a(x.flatten(1)), a=nn.Linear(192, 5))
    assert kinds(hidden) == [("linear", False, False)]


def test_norm_residual_and_activation_are_one_kernel():
    model = Wired(
        lambda m, x: m.end(F.relu(m.norm(m.two(y := F.relu(m.one(x)))) + y).mean((2, 3))),
        one=conv(), two=conv(4, 4), norm=nn.BatchNorm2d(4), end=nn.Linear(4, 5),
    )  # fmt: skip
    assert programs(model) == [["norm", "leaf", "add", "relu"]]


def test_two_norms_of_a_downsampling_block_go_together():
    model = Wired(
        lambda m, x: m.end(torch.tanh(m.a(m.one(x)) + m.b(m.two(x))).mean((2, 3))),
        one=conv(), two=conv(), a=nn.BatchNorm2d(4), b=nn.BatchNorm2d(4), end=nn.Linear(4, 5),
    )  # fmt: skip
    assert programs(model) == [["norm", "norm", "add", "tanh"]]


def test_a_map_used_twice_by_its_reader_is_computed_once():
    model = Wired(
        lambda m, x: m.end(((y := torch.tanh(m.one(x))) * y).mean((2, 3))),
        one=conv(), end=nn.Linear(4, 5),
    )  # fmt: skip
    assert programs(model) == [["leaf", "tanh"], ["leaf", "leaf", "mul"]]
