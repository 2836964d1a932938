"""A traced net: every call with the shape it really has; sizes are numbers, pixels are not."""

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from hubel.errors import ModelError
from hubel.models.names import build
from hubel.models.traced import trace


def test_shapes_are_those_that_torch_propagates():
    model = build("resnet20", classes=5, channels=3, size=(16, 20)).eval()
    images = torch.zeros(2, 3, 16, 20)
    found = {n.name: n.meta["shape"] for n in trace(model, images).nodes if n.op != "output"}
    theirs = fx.symbolic_trace(model)
    ShapeProp(theirs).propagate(images)
    expected = [tuple(n.meta["tensor_meta"].shape) for n in theirs.graph.nodes if n.op != "output"]
    assert list(found.values()) == expected


class Own(nn.Module):
    """Sizes in many guises."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 3), nn.Linear(3, 2)
        self.gain = nn.Parameter(torch.rand(3))

    def forward(self, x, *, twice=False):
        n, c, h, w = x.shape
        if h % 2 or x.size(-1) == 5 or twice:
            x = F.pad(x, (0, h % 2, 0, 0))
        assert x.dim() == x.ndim == 4
        assert x.numel() == n * c * h * w
        assert x.dtype == torch.float32
        left, right = x.chunk(2, 3)
        x = torch.cat([left, right], 3)[: len(x)].view(n, c * h * w)
        row = nn.Sequential(OrderedDict(a=self.a, relu=nn.ReLU()) if h == 99 else self.layers())
        return self.b(row(x) * self.gain + torch.ones(3))

    def layers(self):
        return OrderedDict(a=self.a)


def test_sizes_are_numbers_and_the_graph_computes_the_same():
    torch.manual_seed(0)
    model = Own()
    graph = trace(model, torch.zeros(2, 3, 2, 2))
    assert not [n for n in graph.nodes if n.op == "call_module" and n.target not in ("a", "b")]
    assert not [n for n in graph.nodes if n.target in ("size", "dim", getattr)]
    x = torch.rand(2, 3, 2, 2)
    torch.testing.assert_close(fx.GraphModule(model, graph)(x), model(x))


def test_calls_know_where_they_were_made():
    model = build("resnet20", classes=5, channels=3, size=(8, 8)).eval()
    graph = trace(model, torch.zeros(2, 3, 8, 8))
    pads = [n for n in graph.nodes if n.target is F.pad]
    assert [n.meta["inside"] for n in pads] == ["layer2.0.downsample", "layer3.0.downsample"]
    assert {n.meta["inside"] for n in graph.nodes if n.op == "placeholder"} == {""}


class Chooses(nn.Module):
    def forward(self, x):
        return x if x.mean() > 0 else -x


class Fails(nn.Module):
    def forward(self, x):
        raise ValueError("not today")


@pytest.mark.parametrize(
    ("inner", "words"),
    [(Chooses(), "in 'body.1', its forward branches on values"), (Fails(), "'body.1', not today")],
)
def test_what_cannot_be_traced_is_named(inner, words):
    model = nn.Sequential(OrderedDict(body=nn.Sequential(nn.ReLU(), inner)))
    with pytest.raises(ModelError, match=words):
        trace(model, torch.zeros(2, 1, 2, 2))
