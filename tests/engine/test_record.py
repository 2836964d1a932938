"""What a tape writes down: places, shapes, lines, values kept and values let go of."""

import pytest
import torch
import torch.nn.functional as F
from against import (
    double,
    noise,
)  # fmt: skip
from small_nets import NETS
from torch import nn

from hubel.engine.backprop import backpropagate
from hubel.engine.tape import Tape


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.ModuleDict({"inner": nn.Sequential(nn.Linear(6, 5), nn.ReLU())})
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = self.body["inner"](x)
        x = x * 2
        return self.head(x).sum()


def test_records_know_the_module_they_ran_in():
    model, x = double(Nested()), noise(4, 6)
    with Tape(model) as tape:
        (model(x) * 2).sin()
    assert [(r.op.name, r.path) for r in tape.records] == [
        ("linear", "body.inner.0"),
        ("relu", "body.inner.1"),
        ("multiply", ""),
        ("linear", "head"),
        ("sum", ""),
        ("multiply", ""),
        ("sin", ""),
    ]


def test_a_module_made_on_the_way_is_called_by_its_class():
    x = noise(4, 6)
    with Tape(watch={"x": x}) as tape:
        nn.Tanh()(x)
    assert tape.records[0].path == "Tanh"


def test_records_know_shapes_options_and_what_needs_a_gradient():
    model = double(nn.Conv2d(2, 3, 3, stride=2, padding=1))
    with Tape(model) as tape:
        model(noise(4, 2, 6, 5))
    (record,) = tape.records
    assert record.op.name == "conv"
    assert record.spelling == "aten.conv2d.default"
    assert record.shapes.inputs == ((4, 2, 6, 5), (3, 2, 3, 3), (3,))
    assert record.shapes.outputs == ((4, 3, 3, 3),)
    assert record.options["stride"] == (2, 2)
    assert record.needs == (False, True, True)


def test_records_know_their_source_line_and_their_seconds():
    x = noise(4, 6)
    with Tape(watch={"x": x}, lines=True, clock=True) as tape:
        F.relu(x)
    assert tape.records[0].line.startswith("test_record.py:")
    assert tape.records[0].seconds > 0


def test_a_value_that_is_kept_survives_later_writes():
    x, w = noise(4, 6), noise(6, 6, seed=1)
    with Tape(watch={"x": x}, keep="all") as tape:
        y = x @ w
        view = y[1]
        y.relu_()
        y += 1
        view.zero_()
    outputs = {
        r.op.name: tape.kept[r.outputs[0]] for r in tape.records if r.op.name != "overwritten"
    }
    product = x @ w
    assert torch.equal(outputs["matmul"], product)
    assert torch.equal(outputs["relu"], product.relu())
    assert torch.equal(outputs["add"], product.relu() + 1)
    assert not y[1].any()
    assert torch.equal(tape.kept[tape.values.number(y)], y)
    assert torch.equal(tape.kept[tape.values.number(view)], view)


def test_watched_values_are_kept_as_they_were_given():
    x = noise(4, 6)
    given = x.clone()
    with Tape(watch={"x": x}, keep="all") as tape:
        first = tape.values.number(x)
        x.mul_(2)
    assert torch.equal(tape.kept[first], given)
    assert torch.equal(tape.kept[tape.values.number(x)], given * 2)


def test_writing_into_a_watched_tensor_keeps_the_gradient_of_its_first_value():
    x = noise(4, 6)
    with Tape(watch={"x": x}) as tape:
        x.mul_(3)
        value = x.square().sum()
    torch.testing.assert_close(backpropagate(tape, value)["x"], 6 * x)


def test_statistics_are_those_of_the_outputs():
    x, w = noise(4, 6), noise(6, 6, seed=1)
    with Tape(watch={"x": x}, keep="statistics") as tape:
        F.relu_(x @ w)
    relu = tape.records[-1].statistics[0]
    expected = (x @ w).relu()
    assert relu.mean == pytest.approx(float(expected.mean()))
    assert relu.std == pytest.approx(float(expected.std(correction=0)))
    assert (relu.low, relu.high) == (0, float(expected.max()))
    assert relu.zeros == float((expected == 0).double().mean())
    assert not tape.kept


def saved_by_autograd(model, value):
    """Bytes of the different memories that autograd's graph holds, parameters aside."""
    sizes, known = {}, {p.untyped_storage()._cdata for p in model.parameters()}

    def pack(t):
        if t.untyped_storage()._cdata not in known:
            sizes[t.untyped_storage()._cdata] = (t, t.untyped_storage().nbytes())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        kept = value()
    assert kept.requires_grad
    return sum(size for _, size in sizes.values())


@pytest.mark.parametrize("kernels", ["math", "torch"])
def test_a_resnet_saves_about_as_much_as_autograd_does(kernels):
    net = NETS["resnet"]
    model, inputs, labels = net.make(0, torch.float32)
    inputs = [torch.randn(8, 3, 32, 32)]
    labels = torch.arange(8)
    theirs = saved_by_autograd(model, lambda: net.value(model, inputs, labels))
    theirs -= inputs[0].untyped_storage().nbytes()
    with Tape(model, kernels=kernels) as tape:
        net.value(model, inputs, labels)
    assert 0.5 * theirs < tape.saved_bytes() < 1.1 * theirs


def test_values_that_nobody_needs_are_let_go_of():
    x = torch.randn(100, 1000)
    with Tape(watch={"x": x}) as tape:
        y = x
        for _ in range(10):
            y = y + 1
    assert tape.saved_bytes() == 0
