"""Maps and the values they stand for: which axes a flattened dimension holds, by hand."""

import operator

import pytest
import torch
from torch import fx, nn

from hubel.errors import ModelError
from hubel.models.sliding import Map, Turning, argument, axes_of, name_of, pair, shape_of
from hubel.models.traced import trace

AXES = [
    # map, value, axes that each dimension of the value holds
    ((2, 3, 5, 7), (2, 3, 5, 7), [{0}, {1}, {2}, {3}]),
    ((2, 3, 5, 7), (2, 105), [{0}, {1, 2, 3}]),
    ((2, 3, 5, 7), (2, 3, 35), [{0}, {1}, {2, 3}]),
    ((2, 3, 5, 7), (2, 15, 7), [{0}, {1, 2}, {3}]),
    ((2, 3, 5, 7), (2, 1, 105), [{0}, set(), {1, 2, 3}]),
    ((2, 3, 5, 7), (2, 7, 15), None),  # 7 holds 3 channels and a part of the rows
    ((2, 4, 5, 7), (2, 2, 70), None),  # half of the channels
    ((2, 4, 5, 7), (8, 35), [{0, 1}, {2, 3}]),
    ((2, 4, 5, 7), (2, 4, 5), None),  # something is lost
    ((2, 4, 1, 1), (2, 4), [{0}, {1}]),
    ((2, 1, 1, 1), (2, 1), [{0}, set()]),
    ((2, 1, 1, 1), (2, 1, 1, 1), [{0}, {1}, {2}, {3}]),
]


@pytest.mark.parametrize(("held", "shape", "expected"), AXES)
def test_axes(held, shape, expected):
    assert axes_of(held, shape) == expected


@pytest.mark.parametrize(
    ("window", "stride"), [((3, 2), (2, 1)), ((5, 7), (1, 3)), ((1, 1), (2, 2))]
)
def test_a_pooled_map_has_torchs_shape(window, stride):
    theirs = nn.AvgPool2d(window, stride)(torch.zeros(2, 3, 11, 13)).shape
    found = Map((2, 3, 11, 13), (2, 5)).pooled(window, stride)
    assert found.shape == tuple(theirs)
    assert found.step == (2 * stride[0], 5 * stride[1])


def test_names_and_arguments():
    graph = fx.Graph()
    x = graph.placeholder("x")
    for target, name in (
        (operator.add, "add"), (operator.iadd, "add"), (operator.truediv, "truediv"),
        (torch.relu, "relu"), (torch.nn.functional.max_pool2d, "max_pool2d"),
    ):  # fmt: skip
        assert name_of(graph.call_function(target, (x, 2))) == name
    assert name_of(graph.call_method("relu_", (x,))) == "relu"
    call = graph.call_method("mean", (x, 1), {"keepdim": True})
    assert [argument(call, 1, "dim"), argument(call, 2, "keepdim")] == [1, True]
    assert argument(call, 3, "dtype", "none") == "none"
    assert (pair(3), pair((3, 4)), pair([5])) == ((3, 3), (3, 4), (5, 5))


def turning(model, size=(6, 6)):
    graph = trace(model, torch.zeros(2, 1, *size))
    found = Turning(model, graph, size)
    nodes = list(graph.nodes)
    found.maps[nodes[0]] = Map(shape_of(nodes[0]), (1, 1))
    return found, nodes


def test_a_layer_is_put_in_its_own_place_or_beside_a_shared_one():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.last = nn.Sequential(nn.ReLU()), nn.Tanh()

        def forward(self, x):
            return self.last(self.body(self.body(x)))

    found, nodes = turning(Net())
    for node in nodes[1:4]:
        found.put(node, nn.Sigmoid())
    assert [n.target for n in nodes[1:4]] == ["sliding_body_0", "sliding_body_1", "last"]
    assert isinstance(found.root.last, nn.Sigmoid)
    assert isinstance(found.root.body[0], nn.ReLU)


def test_what_is_refused_is_named():
    found, nodes = turning(nn.Sequential(nn.ReLU()))
    with pytest.raises(ModelError, match=r"larger images: 0 \(ReLU\): it is Monday"):
        found.refuse(nodes[1], "it is Monday")
    with pytest.raises(ModelError, match=r"works on values of shape \(2, 1, 6, 6\)"):
        found.given(nodes[1], 2)
    assert found.given(nodes[1], 4).places == (6, 6)
