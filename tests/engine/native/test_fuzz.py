"""Nets that chance puts together, against float64 autograd.

A net whose numbers come so close to the kink of a ReLU, or two so close in one pooling window, that
rounding may decide between them is thrown away; everything else must agree: to 2e-5 of a gradient,
or to 100 times what PyTorch's float32 is off by. (PyTorch counts batch norm's statistics in double,
we in float32 from the running mean on: where that is far from the mean, some figures are lost.)
"""

import math
import os
from unittest import mock

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from native_kernel import TILES
from native_nets import assert_agrees, batch, pixels, seeded
from torch import nn

from hubel.engine.native.lower import winograd

CLOSE = 2e-6  # of a map's largest number
MANY = int(os.environ.get("HUBEL_FUZZ_NETS", "1500"))
ACTS = [
    nn.ReLU, nn.ReLU, nn.Tanh, nn.Sigmoid, nn.SiLU, nn.GELU, nn.LeakyReLU, nn.ELU, nn.Hardswish,
    nn.ReLU6, nn.Mish, nn.Softplus, nn.Hardsigmoid, nn.PReLU,
]  # fmt: skip
KINDS = [
    "conv", "conv", "conv", "norm", "norm", "act", "act", "act", "max", "mean", "add", "add",
    "mul", "sub", "concat", "up", "transposed", "thin", "affine", "gate", "border", "response",
    "conv+norm+act", "conv+norm+act",
]  # fmt: skip


class Net(nn.Module):
    """A list of turns; each takes the last map, some a map from before as well."""

    def __init__(self, turns, head, classes):
        super().__init__()
        self.turns = turns
        self.layers = nn.ModuleList([m for kind, m in turns if kind == "layer"])
        self.head, self.classes = head, classes

    def forward(self, x):
        maps, layers = [x], iter(self.layers)
        for kind, what in self.turns:
            last = maps[-1]
            match kind:
                case "layer":
                    maps.append(next(layers)(last))
                case "add":
                    maps.append(last + maps[what])
                case "sub":
                    maps.append(maps[what] - last)
                case "mul":
                    maps.append(last * maps[what])
                case "concat":
                    maps.append(torch.cat([maps[what], last], 1))
                case "thin":
                    maps.append(last[:, :, :: what[0], :: what[1]])
                case "affine":
                    maps.append(last * what[0] - what[1])
                case "gate":
                    maps.append(last * torch.sigmoid(last.mean((2, 3), keepdim=True)))
        return self.head(maps[-1])


def size_after(layer, shape):
    with torch.no_grad():
        return tuple(layer.eval()(torch.zeros(1, *shape)).shape[1:])


class Builder:
    """Draws turns and keeps book of the maps' shapes."""

    def __init__(self, draw, shape):
        self.draw, self.shapes, self.turns = draw, [shape], []

    def pick(self, *choices):
        return self.draw(st.sampled_from(choices))

    def layer(self, layer):
        try:
            shape = size_after(layer, self.shapes[-1])
        except RuntimeError:  # a window larger than the map
            return
        if 0 < shape[1] * shape[2] <= 400 and min(shape) > 0:
            self.turn("layer", layer.train(), shape)

    def turn(self, kind, what, shape):
        self.turns.append((kind, what))
        self.shapes.append(shape)

    def conv(self):
        c = self.shapes[-1][0]
        groups = self.pick(*[g for g in (1, 1, 1, 2, 3, c) if c % g == 0])
        k = self.pick((3, 3), (1, 1), (2, 2), (3, 2), (5, 5), (1, 4))
        self.layer(
            nn.Conv2d(
                c, groups * self.pick(1, 2, 3, 5), k, self.pick(1, 1, 2, (2, 1), 3),
                self.pick(0, 1, (k[0] // 2, k[1] // 2), 2), self.pick(1, 1, 2), groups,
                bias=self.pick(True, False),
            )
        )  # fmt: skip

    def transposed(self):
        c = self.shapes[-1][0]
        k, s = self.pick((2, 2), (3, 3), (4, 3)), self.pick(1, 2, 3)
        groups = self.pick(*[g for g in (1, 1, 2) if c % g == 0])
        self.layer(
            nn.ConvTranspose2d(
                c, groups * self.pick(1, 2, 4), k, s, self.pick(0, 1), self.pick(0, s - 1),
                groups, bias=self.pick(True, False), dilation=self.pick(1, 1, 2),
            )
        )  # fmt: skip

    def norm(self):
        c = self.shapes[-1][0]
        layer = nn.BatchNorm2d(
            c, affine=self.pick(True, True, False), track_running_stats=self.pick(True, True, False)
        )
        self.turn("layer", layer, self.shapes[-1])
        if self.pick(True, True, False):
            self.act()

    def act(self):
        self.turn("layer", self.pick(*ACTS)(), self.shapes[-1])

    def pool(self, kind):
        k, s, p = self.pick((2, 2, 0), (2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 0), (3, 2, 0))
        extra = {"ceil_mode": self.pick(True, False)} if kind == "max" else {}
        self.layer((nn.MaxPool2d if kind == "max" else nn.AvgPool2d)(k, s, p, **extra))

    def joined(self, kind):
        """With a map of the same shape (concat: of the same size) from anywhere before."""
        last = self.shapes[-1]
        fits = [
            n for n, s in enumerate(self.shapes)
            if (s[1:] == last[1:] if kind == "concat" else s == last)
        ]  # fmt: skip
        which = self.draw(st.sampled_from(fits))
        channels = last[0] + self.shapes[which][0] if kind == "concat" else last[0]
        if channels <= 24:
            self.turn(kind, which, (channels, *last[1:]))

    def step(self, kind):
        if kind == "conv+norm+act":
            self.conv()
            self.norm()
        elif kind in ("conv", "transposed", "norm", "act"):
            getattr(self, kind)()
        elif kind in ("max", "mean"):
            self.pool(kind)
        elif kind == "up":
            mode = self.pick("nearest", "nearest", "bilinear")
            self.layer(nn.Upsample(scale_factor=self.pick((2, 2), (1, 3), (3, 2)), mode=mode))
        elif kind == "border":
            self.layer(nn.ZeroPad2d(self.pick((1, 1, 1, 1), (0, 1, 2, 0), (1, 0, 0, 2))))
        elif kind == "response":
            self.layer(nn.LocalResponseNorm(self.pick(1, 3, 5), 0.5, self.pick(0.5, 0.75), 1.0))
        elif kind == "gate":
            self.turn("gate", None, self.shapes[-1])
        elif kind == "thin":
            c, h, w = self.shapes[-1]
            a, b = self.pick((2, 2), (1, 2), (3, 1))
            self.turn("thin", (a, b), (c, -(-h // a), -(-w // b)))
        elif kind == "affine":
            self.turn("affine", (self.pick(0.5, -2.0), self.pick(0.25, -1.0)), self.shapes[-1])
        else:
            self.joined(kind)


@st.composite
def nets(draw, maps=False):
    """(net, images, labels, how it is to be run); `maps`: it answers for every pixel."""
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 11)), draw(st.integers(1, 11)))
    seed = draw(st.integers(0, 10_000))
    torch.manual_seed(seed)
    builder = Builder(draw, shape)
    for kind in draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=9)):
        builder.step(kind)
    c, h, w = builder.shapes[-1]
    classes = draw(st.integers(1, 11))
    body = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    features = c
    if draw(st.booleans()):
        body, features = nn.Sequential(nn.Flatten()), c * h * w
    if draw(st.booleans()):
        body.extend([nn.Linear(features, 9), draw(st.sampled_from(ACTS))()])
        if draw(st.booleans()):
            body.append(nn.BatchNorm1d(9))
        features = 9
    body.append(nn.Linear(features, classes, bias=draw(st.booleans())))
    if maps:
        body = nn.Conv2d(c, classes, draw(st.sampled_from([1, 3])), padding="same")
    net = seeded(lambda: Net(builder.turns, body, classes), seed).train()
    rigid = draw(st.sampled_from([0.0, 0.0, 0.3]))
    for p in net.parameters():
        p.requires_grad_(float(torch.rand(())) >= rigid)
    for m in net.modules():
        if isinstance(m, nn.PReLU):  # a frozen slope is not covered
            m.requires_grad_(True)
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.train(float(torch.rand(())) >= rigid)
    images, labels = batch(draw(st.integers(2, 37)), *shape, classes=classes, seed=seed)
    how = {
        "machine": draw(st.sampled_from(TILES)), "threads": draw(st.integers(1, 4)),
        "smoothing": draw(st.sampled_from([0.0, 0.1])), "patched": draw(st.booleans()),
    }  # fmt: skip
    if maps:
        labels = pixels(len(images), h, w, classes, seed)
        how["scale"] = 1 / labels[:, 0].numel()
    return net, images, labels, how


def gaps(module, x):
    """How far each number, or each window's largest two, is from a kink; 0 where exactly on it."""
    if isinstance(module, nn.MaxPool2d):
        k = module.kernel_size
        padded = nn.functional.pad(x, [module.padding] * 2 + [module.padding] * 2, value=-1e30)
        if module.ceil_mode:
            padded = nn.functional.pad(padded, (0, k, 0, k), value=-1e30)
        windows = padded.unfold(2, k, 1).unfold(3, k, 1).flatten(4)
        two = windows.topk(2, -1).values
        nothing = (two[..., 0] == 0) | (two[..., 0] < -1e29)  # exact zeros stay exact
        return torch.where(nothing, torch.inf, two[..., 0] - two[..., 1])
    if isinstance(module, nn.ReLU6):
        return torch.minimum(x.abs(), (x - 6).abs())
    if isinstance(module, (nn.Hardswish, nn.Hardsigmoid)):
        return torch.minimum((x - 3).abs(), (x + 3).abs())
    return x.abs()


def far_from_kinks(net, images, ties):
    """Whether no number of the float64 net is nearly on a kink, and none huge. With `ties` all are
    thought to decide alike where numbers are exactly on one."""
    import copy

    exact, fine = copy.deepcopy(net).double(), [True]

    def look(module, inputs):
        x = inputs[0]
        gap = gaps(module, x)
        near = gap[gap > 1e-12] if ties else gap[x.abs() > 0] if gap.shape == x.shape else gap
        if near.numel() and float(near.min()) < CLOSE * max(float(x.abs().max()), 1.0):
            fine[0] = False

    kinked = (
        nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.MaxPool2d, nn.Hardswish, nn.Hardsigmoid,
    )  # fmt: skip
    for module in exact.modules():
        if isinstance(module, kinked):
            module.register_forward_pre_hook(look)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.training or module.running_mean is None
        ):
            module.register_forward_pre_hook(lambda m, given: fine.append(_spread_out(given[0])))
    with torch.no_grad():
        answer = exact(images.double())
    return all(fine) and float(answer.abs().max()) < 1e4


def _spread_out(x):
    """Whether batch norm has something to norm: not two numbers, nor nearly the same many times."""
    axes = [0, *range(2, x.ndim)]
    variance, mean = x.var(axes), x.mean(axes)
    return x.numel() / x.shape[1] >= 6 and bool((variance > 1e-3 + 1e-2 * mean**2).all())


def check(case):
    net, images, labels, how = case
    patched = how.pop("patched")  # every convolution that has Winograd's form in that
    try:
        assume(far_from_kinks(net, images, ties=not patched))
    except ValueError as error:  # batch norm of a single number
        assume("more than 1 value" not in str(error))
        raise
    gain = math.inf if patched else winograd.GAIN
    with mock.patch.object(winograd, "GAIN", gain):
        assert_agrees(net, images, labels, tolerance=2e-5, least=0.1, spare=100, **how)


OPTIONS = {
    "deadline": None, "derandomize": True, "database": None, "print_blob": False,
    "suppress_health_check": list(HealthCheck), "phases": [Phase.explicit, Phase.generate],
}  # fmt: skip


@settings(max_examples=30, **OPTIONS)
@given(nets())
def test_random_nets(case):
    check(case)


@settings(max_examples=20, **OPTIONS)
@given(nets(maps=True))
def test_random_nets_that_answer_for_every_pixel(case):
    check(case)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("maps", [False, True])
def test_many_random_nets(maps):
    @settings(max_examples=MANY, **OPTIONS)
    @given(nets(maps=maps))
    def many(case):
        check(case)

    many()
