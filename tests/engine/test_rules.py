"""Other ways back: against module hooks, the definition, and conservation of relevance."""

import pytest
import small_nets as nets
import torch
import torch.nn.functional as F
from torch import nn

import hubel
from hubel.engine.look import look
from hubel.engine.rules import deconvnet, guided, lrp, straight
from hubel.errors import OptionError


def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(80, 3)).double()


X = torch.randn(1, 1, 14, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_hooks(model, change):
    """The input's gradient with every ReLU's backward changed, the way others do it."""
    x = X.clone().requires_grad_()
    handles = [
        m.register_full_backward_hook(lambda m, gi, go: (change(gi[0], go[0]),))
        for m in model
        if isinstance(m, nn.ReLU)
    ]
    model(x)[0, 1].backward()
    for handle in handles:
        handle.remove()
    return x.grad


def ours(model, **rules):
    with hubel.rules(**rules):
        return look(model, X, loss=lambda y: y[0, 1]).input_grads["input"]


def test_guided_backpropagation_is_that_of_module_hooks():
    model = net()
    assert torch.allclose(ours(model, relu=guided), by_hooks(model, lambda gi, go: gi.clamp(min=0)))


def test_the_deconvnets_relu_looks_at_the_gradient_alone():
    model = net()
    assert torch.allclose(
        ours(model, relu=deconvnet), by_hooks(model, lambda gi, go: go.clamp(min=0))
    )


def test_functional_and_repeated_calls_need_nothing_special():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net()

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.inner[0](x), inplace=True), 2)
            return self.inner[6](torch.relu(self.inner[3](x)).flatten(1))

    model = Functional()
    with hubel.rules(relu=guided):
        found = look(model, X, loss=lambda y: y[0, 1]).input_grads["x"]
    assert torch.allclose(found, by_hooks(model.inner, lambda gi, go: gi.clamp(min=0)))


def test_a_rule_for_one_module_leaves_the_others():
    model = net()
    with hubel.rules({"1": lambda record, dy, default: (0 * dy,)}):
        seen = look(model, X, loss=lambda y: y[0, 1])
    assert not seen.input_grads["input"].any()
    assert seen.grads["3.weight"].any()


def test_a_path_pattern_goes_before_an_operator():
    model = net()
    with hubel.rules({"[14]": straight}, relu=guided):
        both = look(model, X, loss=lambda y: y[0, 1]).input_grads["input"]
    assert torch.allclose(both, ours(model, relu=straight))


def test_rules_end_with_their_block_and_nest():
    model = net()
    plain = ours(model)
    with hubel.rules(relu=guided), hubel.rules(relu=straight):
        assert torch.allclose(
            look(model, X, loss=lambda y: y[0, 1]).input_grads["input"], ours(model, relu=straight)
        )
    assert torch.allclose(ours(model), plain)


def test_relevance_is_conserved():
    """Without biases, what the class score holds arrives at the pixels."""
    model = net()
    for layer in model:
        if getattr(layer, "bias", None) is not None:
            nn.init.zeros_(layer.bias)
    score = float(model(X)[0, 1].detach())
    with hubel.rules(conv=lrp(1e-12), linear=lrp(1e-12), relu=straight):
        seen = look(model, X, loss=lambda y: y[0, 1] * y[0, 1].detach())
    assert float(seen.input_grads["input"].sum()) == pytest.approx(score, rel=1e-6)


def test_lrp_is_for_layers_with_weights():
    with pytest.raises(OptionError, match="lrp is a rule for conv and linear, not for relu"):
        ours(net(), relu=lrp())


def test_an_unknown_operator_is_named():
    with pytest.raises(OptionError, match="unknown operator 'reluu': did you mean 'relu"):
        ours(net(), reluu=guided)


def test_a_rule_of_the_wrong_shape_is_caught():
    with pytest.raises(ValueError, match="the backward of relu gave a gradient of shape"):
        ours(net(), relu=lambda record, dy, default: (dy[:, :1],))


def test_rules_reach_a_whole_net_of_the_zoo():
    model, inputs, labels = nets.NETS["resnet"].make()
    with hubel.rules(relu=guided):
        seen = look(model, inputs[0], labels)
    assert seen.grads
