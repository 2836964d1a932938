"""From a net to a graph; and what is not covered is named with its module."""

import pytest
import torch
from native_nets import Wired
from torch import nn

from hubel.engine.native.graph import NotCovered
from hubel.engine.native.plan import Aim
from hubel.engine.native.read import read_graph
from hubel.engine.native.step import compile_step


def graph(model, *shape):
    return read_graph(model, torch.randn(2, *(shape or (3, 8, 8))))


def test_nodes_carry_their_weights_and_where_they_stand():
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    model = nn.Sequential(body, nn.Flatten(), nn.Linear(144, 5, bias=False))
    found = graph(model)
    assert [(node.kind, node.path) for node in found.nodes] == [
        ("conv", "0.0"), ("norm", "0.1"), ("unary", "0.2"), ("linear", "2"),
    ]  # fmt: skip
    conv, norm, relu, linear = found.nodes
    assert conv.weights == {"weight": "0.0.weight", "bias": "0.0.bias"}
    assert norm.weights == {
        "weight": "0.1.weight", "bias": "0.1.bias",
        "running_mean": "0.1.running_mean", "running_var": "0.1.running_var",
    }  # fmt: skip
    assert relu.options["name"] == "relu"
    assert linear.weights == {"weight": "2.weight"}
    assert [found.shapes[node.output] for node in found.nodes] == [(4, 6, 6)] * 3 + [(5, 1, 1)]
    assert found.logits == linear.output


def test_equal_nets_have_equal_graphs():
    def make():
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 5))

    assert repr(graph(make())) == repr(graph(make()))


def test_what_nothing_comes_of_is_left_out():
    model = Wired(
        lambda m, x: (m.a(x), m.b(x.flatten(1)))[1], a=nn.Conv2d(3, 4, 3), b=nn.Linear(192, 5)
    )
    assert [node.path for node in graph(model).nodes] == ["b"]


def test_reading_leaves_the_net_and_chance_as_they_were():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(192, 5))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    images = torch.randn(2, 3, 8, 8)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    read_graph(model, images)
    assert torch.equal(torch.rand(3), expected)
    for name, t in model.state_dict().items():
        assert torch.equal(t, before[name]), name


def test_buffers_are_put_back_even_if_the_net_fails():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x):
            self.norm(x)
            raise RuntimeError("boom")

    model = Fails()
    with pytest.raises(RuntimeError, match="boom"):
        graph(model)
    assert not model.norm.running_mean.any()


def test_out_of_training_there_is_no_dropout():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(192, 5))
    assert [node.kind for node in graph(model).nodes] == ["dropout", "linear"]
    assert [node.kind for node in graph(model.eval()).nodes] == ["linear"]


def flat(x):
    return x.flatten(1)


REFUSED = {  # net, what its message has to name
    "lstm": (
        lambda: Wired(
            lambda m, x: m.end(m.rnn(x[:, 0])[0][:, -1]), rnn=nn.LSTM(8, 5, batch_first=True),
            end=nn.Linear(5, 5),
        ),
        "slice|rnn",
    ),
    "attention": (
        lambda: Wired(
            lambda m, x: m.end(m.att(*[x.flatten(2).transpose(1, 2)] * 3)[0].mean(1)),
            att=nn.MultiheadAttention(3, 1, batch_first=True), end=nn.Linear(3, 5),
        ),
        "transpose|permute|att",
    ),
    "layer norm": (
        lambda: nn.Sequential(nn.Flatten(), nn.LayerNorm(192), nn.Linear(192, 5)),
        "layer_norm in 1",
    ),
    "group norm": (
        lambda: nn.Sequential(nn.GroupNorm(3, 3), nn.Flatten(), nn.Linear(192, 5)),
        "group_norm in 0",
    ),
    "softmax": (
        lambda: Wired(lambda m, x: torch.softmax(m.end(flat(x)), 1), end=nn.Linear(192, 5)),
        "softmax",
    ),
    "three dimensions": (
        lambda: Wired(
            lambda m, x: m.end(flat(m.c(x[:, :, None]))), c=nn.Conv3d(3, 4, (1, 3, 3)),
            end=nn.Linear(144, 5),
        ),
        "in c|slice|reshape|unsqueeze|view",
    ),
    "one dimension": (
        lambda: Wired(
            lambda m, x: m.end(flat(m.c(x.flatten(2)))), c=nn.Conv1d(3, 4, 3),
            end=nn.Linear(248, 5),
        ),
        "conv in c|reshape",
    ),
    "weight norm": (
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.Flatten(),
            nn.Linear(144, 5),
        ),
        "0",
    ),
    "channels shuffled": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ChannelShuffle(2), nn.Flatten(), nn.Linear(144, 5)
        ),
        "in 1",
    ),
    "over the batch": (
        lambda: Wired(lambda m, x: m.end(flat(x - x.mean(0, keepdim=True))), end=nn.Linear(192, 5)),
        "mean",
    ),
    "batch cut": (
        lambda: Wired(lambda m, x: m.end(flat(torch.cat([x[:1], x[1:]]))), end=nn.Linear(192, 5)),
        "slice|concat",
    ),
    "momentum None": (
        lambda: nn.Sequential(nn.BatchNorm2d(3, momentum=None), nn.Flatten(), nn.Linear(192, 5)),
        "batch_norm in 0.*momentum",
    ),
    "no logits": (
        lambda: Wired(lambda m, x: {"out": m.end(flat(x))}, end=nn.Linear(192, 5)),
        "a net that answers with a NoneType",
    ),
    "something else beside": (
        lambda: Wired(lambda m, x: {"logits": m.end(flat(x)), "mask": x}, end=nn.Linear(192, 5)),
        "a net that answers with 'mask' too",
    ),
    "a head's map": (
        lambda: Wired(lambda m, x: {"logits": m.end(flat(x)), "aux": x}, end=nn.Linear(192, 5)),
        r"a net that answers with shape \(2, 3, 8, 8\) instead of \(N, classes\) as aux",
    ),
    "the same twice": (
        lambda: Wired(lambda m, x: dict.fromkeys(("logits", "aux1"), m.end(flat(x))),
                      end=nn.Linear(192, 5)),
        "a net that answers with the same twice",
    ),
    "another dtype": (
        lambda: Wired(lambda m, x: m.end(flat(x).double().float()), end=nn.Linear(192, 5)),
        "copy.*float64",
    ),
    "a line as answer": (
        lambda: nn.Flatten(2), r"\(2, 3, 64\) instead of \(N, classes\) or \(N, classes, H, W\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_covered_is_named(make, message):
    with pytest.raises(NotCovered, match=message):
        compile_step(make(), torch.randn(4, 3, 8, 8), aim=Aim(loss=True))


def test_a_module_used_twice_is_refused_where_its_weights_learn():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.end = nn.Linear(256, 5)

        def forward(self, x):
            return self.end(flat(self.two(torch.tanh(self.two(self.one(x))))))

    images = torch.randn(4, 3, 8, 8)
    with pytest.raises(NotCovered, match="two.*2 places"):
        compile_step(Twice(), images, aim=Aim(loss=True))
    frozen = Twice()
    frozen.two.requires_grad_(False)
    compile_step(frozen, images, aim=Aim(loss=True))
    compile_step(Twice(), images, aim=Aim(loss=True, backward=False))


def test_tied_weights_are_refused():
    one, two = nn.Linear(12, 12), nn.Linear(12, 12)
    two.weight = one.weight
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 12), one, nn.Tanh(), two)
    with pytest.raises(NotCovered, match="2.weight.*2 places"):
        compile_step(model, torch.randn(4, 3, 8, 8), aim=Aim(loss=True))


def test_running_statistics_that_two_places_move_are_refused():
    norm = nn.BatchNorm2d(3, affine=False)
    model = nn.Sequential(norm, nn.Tanh(), norm, nn.Flatten(), nn.Linear(192, 5))
    with pytest.raises(NotCovered, match="batch_norm"):
        compile_step(model, torch.randn(4, 3, 8, 8), aim=Aim(loss=True))
    compile_step(model.eval(), torch.randn(4, 3, 8, 8), aim=Aim(loss=True))


def test_other_numbers_than_float32_are_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    images = torch.randn(4, 3, 8, 8)
    for m, x, message in [
        (model.double(), images.double(), "1.weight in torch.float64"),
        (nn.Linear(192, 5).bfloat16(), images.bfloat16(), "weight in torch.bfloat16"),
        (nn.Linear(192, 5), images.half(), "the images in torch.float16"),
    ]:
        with pytest.raises(NotCovered, match=message):
            compile_step(m, x, aim=Aim(loss=True))


def test_strided_weights_are_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    model = model.to(memory_format=torch.channels_last)
    with pytest.raises(NotCovered, match="0.weight not contiguous"):
        compile_step(model, torch.randn(4, 3, 8, 8), aim=Aim(loss=True))


def test_numbers_beside_maps_become_linear_functions():
    model = Wired(lambda m, x: m.end(flat(3 - (x * 2 + 1) / 4)), end=nn.Linear(192, 5))
    nodes = graph(model).nodes[:-1]
    x = torch.randn(7)
    y = x
    for node in nodes:
        assert (node.kind, node.options["name"]) == ("unary", "linear")
        a, b = node.options["figures"]
        y = a * y + b
    torch.testing.assert_close(y, 3 - (x * 2 + 1) / 4)
