"""Curvature: exact Hessians where it is exact, squared Jacobians of torch elsewhere, by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, hessian, jacrev

import hubel
from hubel.engine.curvature import curvature, squared
from hubel.engine.look import look
from hubel.errors import ModelError


def rand(*shape, seed=0):
    return torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + sum(shape))
    )


def seeded(*layers):
    torch.manual_seed(0)
    return nn.Sequential(*layers).double()


def half_squares(outputs, targets):
    return ((outputs - targets) ** 2).sum() / (2 * len(targets))


def true_diagonal(model, images, targets, loss):
    """The Hessian's own diagonal, by torch.func."""
    weights = {n: p.detach() for n, p in model.named_parameters()}
    found = {}
    for name, weight in weights.items():

        def of(w, name=name):
            return loss(functional_call(model, {**weights, name: w}, (images,)), targets)

        whole = hessian(of)(weight).reshape(weight.numel(), weight.numel())
        found[name] = whole.diagonal().reshape(weight.shape)
    return found


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=name)


# Where the recursion is exact ---------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["half squares", "cross entropy"])
def test_one_layer_has_the_hessians_diagonal(loss):
    model, images = seeded(nn.Linear(4, 3)), rand(5, 4)
    labels = torch.tensor([0, 2, 1, 1, 0])
    targets, of = (
        (rand(5, 3), half_squares) if loss == "half squares" else (labels, F.cross_entropy)
    )
    same(curvature(model, images, targets, of), true_diagonal(model, images, targets, of))


def test_one_convolution_has_it_where_no_weight_is_shared():
    """A kernel as large as the image, in two groups, is a fully connected layer."""
    model = seeded(nn.Conv2d(4, 6, (3, 5), groups=2), nn.Flatten())
    images, targets = rand(7, 4, 3, 5), rand(7, 6)
    found = curvature(model, images, targets, half_squares)
    same(found, true_diagonal(model, images, targets, half_squares))


def test_a_chain_of_width_one_has_the_gauss_newton_matrix():
    """y = v tanh(w x) with half squares: h_v = mean tanh^2, h_w = mean (v tanh' x)^2."""
    model = seeded(nn.Linear(1, 1, bias=False), nn.Tanh(), nn.Linear(1, 1, bias=False))
    images, targets = rand(6, 1), rand(6, 1)
    weights = {n: p.detach() for n, p in model.named_parameters()}
    jacobians = jacrev(lambda w: functional_call(model, w, (images,)))(weights)
    expected = {n: (j.reshape(6, *weights[n].shape) ** 2).mean(0) for n, j in jacobians.items()}
    same(curvature(model, images, targets, half_squares), expected)
    exact = true_diagonal(model, images, targets, half_squares)
    assert not torch.allclose(exact["0.weight"], expected["0.weight"], rtol=0.01)  # f'' is there


def test_a_relu_before_a_linear_output_loses_nothing_but_the_terms_between_units():
    """With one hidden unit there is none: piecewise linear, so Gauss-Newton is the Hessian."""
    model = seeded(nn.Linear(3, 1), nn.ReLU(), nn.Linear(1, 2))
    images, targets = rand(9, 3), rand(9, 2)
    found = curvature(model, images, targets, half_squares)
    same(found, true_diagonal(model, images, targets, half_squares))


# By hand ------------------------------------------------------------------------------------------


def test_a_shared_weight_by_hand():
    """Kernel (2, -1) over x = (1, 3, -2) gives y = (-1, 8); v = (1, 10) weighs them to z.

    Half squares: h_z = 1, h_y = v^2 = (1, 100). Weight k: sum over places of x^2 h_y:
    1 * 1 + 9 * 100 = 901 and 9 * 1 + 4 * 100 = 409. The bias: 101. h_v = y^2 = (1, 64).
    """
    model = seeded(nn.Conv1d(1, 1, 2), nn.Flatten(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[[2.0, -1.0]]]))
        model[0].bias.zero_()
        model[2].weight.copy_(torch.tensor([[1.0, 10.0]]))
    images = torch.tensor([[[1.0, 3.0, -2.0]]], dtype=torch.float64)
    found = curvature(model, images, torch.zeros(1, 1, dtype=torch.float64), half_squares)
    assert found["0.weight"].tolist() == [[[901.0, 409.0]]]
    assert found["0.bias"].tolist() == [101.0]
    assert found["2.weight"].tolist() == [[1.0, 64.0]]


def test_it_is_the_mean_over_the_images():
    model, images = seeded(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), rand(6, 4)
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    whole = curvature(model, images, labels, F.cross_entropy)
    single = [
        curvature(model, images[i : i + 1], labels[i : i + 1], F.cross_entropy) for i in range(6)
    ]
    same(whole, {name: sum(one[name] for one in single) / 6 for name in whole})


def test_squared_distances_behind_a_tanh_begin_at_the_tanh():
    """x = tanh(a), loss |x - t|^2: h_x = 2, h_a = 2 tanh'^2; tanh'' times a slope is left out."""
    model, images = seeded(nn.Linear(2, 3), nn.Tanh()), rand(4, 2)
    targets = rand(4, 3)
    found = curvature(model, images, targets, lambda x, t: (x - t).square().sum(1).mean())
    slopes = 1 - model(images).detach() ** 2
    torch.testing.assert_close(found["0.bias"], (2 * slopes**2).mean(0))


def test_what_would_be_negative_begins_as_zero():
    """The loss -z^2 bends down everywhere."""
    model = seeded(nn.Linear(2, 3))
    found = curvature(model, rand(4, 2), rand(4, 3), lambda z, t: -(z**2).mean())
    assert not any(h.any() for h in found.values())


# Every operator: coefficients are torch's Jacobian, squared ---------------------------------------


class Scale(nn.Module):
    """x times a weight a channel, plus a bias a channel."""

    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(rand(channels)), nn.Parameter(rand(channels))

    def forward(self, x):
        return x * self.weight[:, None, None] + self.bias[:, None, None]


BETWEEN = {
    "conv": nn.Conv2d(4, 3, (3, 2), stride=(2, 1), padding=1),
    "groups": nn.Conv2d(4, 6, 3, groups=2, bias=False),
    "dilation": nn.Conv2d(4, 2, 2, dilation=2),
    "scale": Scale(4),
    "average pool": nn.AvgPool2d(2, ceil_mode=True),
    "sum pool": lambda x: F.avg_pool2d(x, 2, divisor_override=1),
    "overlapping pool": nn.AvgPool2d(3, 2, padding=1),
    "max pool": nn.MaxPool2d(3, 2),
    "global average": nn.AdaptiveAvgPool2d(1),
    "uneven averages": nn.AdaptiveAvgPool2d((3, 2)),
    "batch norm": nn.BatchNorm2d(4).eval(),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": F.relu,
    "gelu": F.gelu,
    "square": torch.square,
    "scaled": lambda x: 1.7 * torch.tanh(x / 3 * 2),
    "negative": lambda x: 1 - 2 * x,
    "mean": lambda x: x.mean((2, 3)),
    "pad": lambda x: F.pad(x, (1, 2, 0, 1), "replicate"),
    "zeros around": lambda x: F.pad(x, (1, -1, 0, 1)),
    "picked maps": lambda x: x[:, torch.tensor([2, 0, 2, 1])],
    "sliced": lambda x: x[:, 1:3, ::2],
    "joined": lambda x: torch.cat([x[:, :2].tanh(), x[:, 2:]], 1),
    "matmul": lambda x: x @ rand(4, 3),
    "skip": lambda x: x.flatten(1)[:, :5] - 0.5 * x.flatten(1)[:, 5:10],
    "turned": lambda x: x.transpose(1, 3).flip(2),
}


class Around(nn.Module):
    """A linear map of weights, the operator, a weight for each of its outputs."""

    def __init__(self, between, outputs):
        super().__init__()
        self.before, self.between = nn.Parameter(rand(4, 5, 4)), between
        self.after = nn.Parameter(rand(outputs))

    def forward(self, images):
        return self.between(images * self.before).flatten(1) * self.after


@pytest.mark.parametrize("name", BETWEEN)
def test_coefficients_are_squared(name):
    """One image, h_z = 1: h of `before` is the squared Jacobian's transpose times after^2."""
    torch.manual_seed(0)
    between = BETWEEN[name]
    between = between.double() if isinstance(between, nn.Module) else between
    image = rand(1, 4, 5, 4, seed=3)
    model = Around(between, between(image).numel())
    found = curvature(model, image, torch.zeros(1, len(model.after)).double(), half_squares)
    x = (image * model.before).detach()
    slopes = jacrev(lambda x: between(x).flatten())(x).reshape(len(model.after), -1).detach()
    h = (slopes**2).T @ model.after.detach() ** 2
    torch.testing.assert_close(found["before"], h.view(4, 5, 4) * image[0] ** 2)
    torch.testing.assert_close(found["after"], between(x).flatten().detach() ** 2)
    if isinstance(between, nn.Module):
        for parameter, value in between.named_parameters():

            def of(w, parameter=parameter):
                return functional_call(between, {parameter: w}, (x,)).flatten()

            of_weight = jacrev(of)(value.detach()).reshape(len(model.after), -1).detach()
            h = (of_weight**2).T @ model.after.detach() ** 2
            torch.testing.assert_close(found[f"between.{parameter}"], h.view_as(value))


# The paper's net ----------------------------------------------------------------------------------


def test_under_equation_9_by_hand():
    """d2E/dx_j2 = 2 g + 4 (sum_i p_i d_ij^2 - (sum_i p_i d_ij)^2), d = x - code, p_i the share of
    class i and g that of garbage; so at F6's biases it is the mean of f'^2 times that."""
    torch.manual_seed(0)
    net = hubel.build("lenet5_1998", classes=10, channels=1, size=(16, 16)).double()
    images, labels = rand(3, 1, 16, 16), torch.tensor([3, 0, 9])
    with torch.no_grad():  # F6 near two codes, so that classes and garbage share the odds
        a = math.atanh(0.99 / 1.7159) * 1.5
        net.f6.weight.mul_(0.01)
        net.f6.bias.copy_((net.output.codes[3] + net.output.codes[9]) / 2 * a)
        middle = (net.output.codes[3] + net.output.codes[9]) / 2
        level = float(net.output(middle[None])[0, 3])  # garbage is as likely as these two
    seen = {}
    net.squash6.register_forward_hook(lambda m, given, out: seen.update(x=out.detach()))

    def equation_9(outputs, labels):
        both = torch.cat([outputs["logits"], outputs["garbage"] * level], 1)
        return F.cross_entropy(both, labels)

    found = curvature(net, images, labels, equation_9)
    net(images)
    x = seen["x"]
    d = x[:, None] - net.output.codes.double()
    odds = torch.cat([-(d**2).sum(2), torch.full((3, 1), -level).double()], 1).softmax(1)
    p, g = odds[:, :10, None], odds[:, 10:]
    bend = 2 * g + 4 * ((p * d**2).sum(1) - (p * d).sum(1) ** 2)
    assert (bend > 0).all()
    assert 0.01 < float(g.min()) < float(g.max()) < 0.99
    slope = 1.7159 * 2 / 3 * (1 - (x / 1.7159) ** 2)
    torch.testing.assert_close(found["f6.bias"], (slope**2 * bend).mean(0))


# What it refuses, and what it leaves alone --------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Linear(4, 3), nn.Softmax(1), nn.Linear(3, 2)], r"known for softmax \(in 1\)"),
        ([nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)], r"batch_norm in training \(in 1\)"),
        ([nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2)], r"known for layer_norm \(in 1\)"),
    ],
)
def test_an_operator_without_a_rule_is_named(layers, message):
    with pytest.raises(ModelError, match=message):
        curvature(seeded(*layers), rand(5, 4), torch.zeros(5).long(), F.cross_entropy)


def test_a_borrowed_operator_is_named_too():
    class Borrowing(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.two(torch.special.i0(self.one(x)))

    with pytest.raises(ModelError, match="no second derivatives are known for .*i0"):
        curvature(Borrowing().double(), rand(5, 4), torch.zeros(5).long(), F.cross_entropy)


def test_two_last_layers_are_refused():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            return self.one(x) + self.two(x)

    with pytest.raises(ModelError, match="begin at one last layer.*here add reads"):
        curvature(Heads().double(), rand(5, 4), torch.zeros(5).long(), F.cross_entropy)


def test_a_model_without_weights_is_refused():
    with pytest.raises(ModelError, match="no weight meets the images"):
        curvature(nn.Flatten(), rand(5, 4), torch.zeros(5).long(), F.cross_entropy)


def test_frozen_weights_have_none_and_idle_ones_have_zeros():
    model = seeded(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    model[0].bias.requires_grad_(False)
    model.idle = nn.Parameter(torch.ones(2).double())
    model.forward = lambda x: model[2](model[1](model[0](x)))
    before = {name: p.clone() for name, p in model.named_parameters()}
    found = curvature(model, rand(5, 4), torch.zeros(5).long(), F.cross_entropy)
    assert found.keys() == {"0.weight", "2.weight", "2.bias", "idle"}
    assert found["idle"].tolist() == [0, 0]
    assert all(h.dtype == torch.float64 and (h >= 0).all() for h in found.values())
    assert all(p.equal(before[name]) and p.grad is None for name, p in model.named_parameters())


def test_it_is_a_rule_like_the_others():
    """What goes back through one layer under the rule: the weights squared."""
    model, image = seeded(nn.Linear(4, 3)), rand(1, 4)
    with hubel.rules(linear=squared, sum=squared):
        found = look(model, image, loss=lambda y: y.sum()).input_grads["input"]
    torch.testing.assert_close(found[0], (model[0].weight ** 2).sum(0).detach())
