"""The doctor names what is bad first: batch, parameter, layer, term of the loss, gradient."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hubel.training.doctor import bad_parameters, diagnose, first_bad_layer

TARGETS = torch.tensor([0, 1, 2, 0])


def images():
    return torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def loss_of(outputs, targets):
    return {"cross_entropy": F.cross_entropy(outputs, targets)}


class Net(nn.Module):
    def __init__(self, middle=None, code=None):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.middle = middle or nn.ReLU()
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(4, 3)
        self.code = code or (lambda x: x)

    def forward(self, x):
        x = self.code(self.middle(self.norm(self.conv(x))))
        return self.fc(self.drop(x.mean(dim=(2, 3))))


class Log(nn.Module):
    def forward(self, x):
        return torch.log(x)


def finding(model, x=None, targets=TARGETS, loss=loss_of):
    found = diagnose(model, images() if x is None else x, targets, loss)
    assert "\n" not in found.text
    json.dumps(found.to_json())
    return found


def test_a_healthy_step_has_nothing_bad():
    found = finding(Net())
    assert (found.kind, found.layer, found.what) == ("nothing", None, "")
    assert "everything is finite" in found.text
    assert first_bad_layer(Net(), images()) is None


def test_bad_images_are_counted_and_placed():
    x = images()
    x[2, 0, 1, 1], x[3, 1, 0, 0] = math.nan, math.inf
    found = finding(Net(), x)
    assert (found.kind, found.what) == ("input", "NaN and infinity")
    assert "2 of 4 images, first at place 2 of the batch" in found.text


def test_bad_soft_targets_are_found():
    targets = torch.full((4, 3), 1 / 3)
    targets[1] = math.nan
    found = finding(Net(), targets=targets)
    assert (found.kind, found.what) == ("target", "NaN")


def test_bad_parameters_are_named_before_any_layer():
    net = Net()
    net.fc.bias.data[1] = math.inf
    net.conv.weight.data[0] = math.nan
    assert bad_parameters(net) == ["conv.weight", "fc.bias"]
    found = finding(net)
    assert (found.kind, found.layer, found.what) == ("parameter", "conv.weight", "NaN")
    assert "conv.weight (and 1 more) holds NaN" in found.text


def test_running_statistics_count_only_where_they_are_read():
    net = Net()
    net.norm.running_var[0] = math.nan
    assert bad_parameters(net) == []
    assert finding(net).kind == "nothing"
    assert bad_parameters(net.eval()) == ["norm.running_var"]
    assert finding(net).layer == "norm.running_var"


def test_the_first_bad_layer_is_named_not_those_after_it():
    found = finding(Net(middle=Log()))
    assert (found.kind, found.layer, found.what) == ("layer", "middle", "NaN")
    assert "Layer middle (Log) is the first to give NaN, in" in found.text
    assert "of 256 values" in found.text
    assert first_bad_layer(Net(middle=Log()), images()).layer == "middle"


def test_overflow_says_how_large_the_inputs_were():
    net = Net()
    net.fc.weight.data.fill_(1e38)
    net.norm.bias.data.fill_(1e3)
    found = finding(net)
    assert (found.layer, found.what) == ("fc", "infinity")
    assert "largest magnitude 1." in found.text


def test_code_between_layers_is_told_from_layers():
    found = finding(Net(code=lambda x: x / 0))
    assert found.layer == "drop"
    assert "Before layer drop (Dropout), in the code between the layers" in found.text


def test_code_after_the_last_layer_is_the_models_own():
    class Last(Net):
        def forward(self, x):
            return super().forward(x) * math.inf

    found = finding(Last())
    assert found.layer == ""
    assert "The code of the model (Last), around its layers, is the first to give" in found.text


def test_a_bad_term_of_the_loss_is_named():
    def terms(outputs, targets):
        return {**loss_of(outputs, targets), "entropy": torch.log(outputs.mean() * 0 - 1)}

    found = finding(Net(), loss=terms)
    assert (found.kind, found.layer, found.what) == ("loss", "entropy", "NaN")
    assert "The loss's term entropy is NaN, though the model's outputs are finite" in found.text


def test_a_bad_gradient_nearest_to_the_loss_is_named():
    """sqrt(0) is finite, its slope is not: everything before it gets NaN, fc after it does not."""

    class Root(nn.Module):
        def forward(self, x):
            return torch.sqrt(x * 0)

    found = finding(Net(middle=Root()))
    assert (found.kind, found.layer, found.what) == ("gradient", "norm.bias", "NaN")
    assert "(4 of 6 parameters have such gradients)" in found.text


def test_gradients_too_large_for_their_norm():
    def steep(outputs, targets):
        return {"steep": outputs.sum() * 1e30}

    found = finding(Net(), loss=steep)
    assert (found.kind, found.what) == ("gradient", "infinity")
    assert "Every gradient is finite, but together they are too large" in found.text


def test_frozen_models_are_looked_at_too():
    net = Net().requires_grad_(False)
    assert finding(net).kind == "nothing"


@pytest.mark.parametrize("middle", [None, Log()])
@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_changed(middle, training):
    net = Net(middle).train(training)
    net(images()).sum().backward()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    gradients = [p.grad.clone() for p in net.parameters()]
    chance = torch.get_rng_state()
    diagnose(net, images(), TARGETS, loss_of)
    assert all(_same(net.state_dict()[key], value) for key, value in before.items())
    assert all(_same(p.grad, g) for p, g in zip(net.parameters(), gradients, strict=True))
    assert all(m.training == training and not m._forward_hooks for m in net.modules())
    assert torch.get_rng_state().equal(chance)


def _same(one, other):
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
