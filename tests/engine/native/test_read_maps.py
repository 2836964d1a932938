"""Nets with every operator on whole maps, compiled and held against float64 autograd."""

import math

import pytest
import torch
import torch.nn.functional as F
from native_kernel import MACHINES, wide_machines
from native_nets import assert_agrees, batch, seeded
from torch import nn

from hubel.engine.native.graph import NotCovered
from hubel.engine.native.plan import Aim
from hubel.engine.native.read import read_graph
from hubel.engine.native.step import compile_step

SHAPE, MAPS = (2, 9, 7), 6


class Around(nn.Module):
    """A convolution to six maps, the body, a linear layer."""

    def __init__(self, body):
        super().__init__()
        self.first = nn.Conv2d(SHAPE[0], MAPS, 3, padding=1)
        self.body = body if isinstance(body, nn.Module) else Call(body)
        with torch.no_grad():
            features = self.body(self.first(torch.zeros(2, *SHAPE))).flatten(1).shape[1]
        self.last = nn.Linear(features, 5)

    def forward(self, x):
        return self.last(self.body(self.first(x)).flatten(1))


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class SqueezeExcite(nn.Module):
    """Hu et al. 2018, and other ways of spreading one map over another."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Linear(MAPS, 3), nn.Conv2d(3, MAPS, 1)

    def forward(self, x):
        gate = torch.sigmoid(self.up(torch.tanh(self.down(x.mean((2, 3))))[:, :, None, None]))
        mean = x.sum((2, 3), keepdim=True) / 50
        return gate * x - mean * (mean - x) + (x - gate.view(-1, MAPS, 1, 1))


class Places(nn.Module):
    """One map over all channels, a number over everything."""

    def __init__(self):
        super().__init__()
        self.look = nn.Conv2d(MAPS, 1, 1)

    def forward(self, x):
        y = torch.sigmoid(self.look(x))
        return y * x + y.mean((2, 3), keepdim=True)


class Scaled(nn.Module):
    """A scale and a shift that are learnt, one for each channel, and one that is not."""

    def __init__(self, *shape):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.rand(shape)), nn.Parameter(torch.rand(shape))
        self.register_buffer("fixed", torch.rand(MAPS, 1, 1))

    def forward(self, x):
        return self.shift.clone() - x * self.scale - self.fixed


torch.manual_seed(0)  # some bodies have weights
BODIES = {
    "response norm": lambda x: F.local_response_norm(x, 5, alpha=1.0, beta=0.75, k=2.0),
    "response norm beside": lambda x: x + F.local_response_norm(x, 4, alpha=1.0, beta=0.6),
    "padded": lambda x: F.pad(x, (1, 2, 0, 3)).tanh(),
    "padded and cropped": lambda x: F.pad(x, (-1, 2, 1, -2, 2, 1)).tanh(),
    "edge repeated": lambda x: F.pad(x, (1, 2, 3, 0), mode="replicate").tanh(),
    "mirrored": lambda x: F.pad(x, (2, 1, 0, 3), mode="reflect").tanh(),
    "wrapped": lambda x: F.pad(x, (2, 1, 1, 3), mode="circular").tanh(),
    "not padded": lambda x: F.pad(x, (0, 0, 0, 0), mode="replicate").tanh(),
    "copied": lambda x: x.clone().tanh() + x.flatten(1).contiguous().clone().view(x.shape),
    "cropped": lambda x: x[:, :, 1:-2, 3:].tanh() + x[:, :, :6, 1:5],
    "channels cropped": lambda x: x[:, 1:4].tanh(),
    "features cropped": lambda x: x.flatten(1)[:, 5:100].tanh(),
    "adaptive, larger": lambda x: F.adaptive_avg_pool2d(x, (13, 11)).tanh(),
    "adaptive, smaller": lambda x: F.adaptive_avg_pool2d(x, (4, 3)).tanh(),
    "adaptive, even": lambda x: F.adaptive_avg_pool2d(x, (3, 1)).tanh(),
    "adaptive from one": lambda x: F.adaptive_avg_pool2d(F.adaptive_avg_pool2d(x, 1), (7, 7)),
    "adaptive max, even": lambda x: F.adaptive_max_pool2d(x, (3, 7)),
    "own divisor": lambda x: F.avg_pool2d(x, 2, padding=1, divisor_override=3),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear").tanh(),
    "bilinear, corners": lambda x: F.interpolate(
        x, (4, 15), mode="bilinear", align_corners=True
    ).tanh(),
    "bilinear by 1.7": lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear").tanh(),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic").tanh(),
    "nearest by 2": lambda x: F.interpolate(x, scale_factor=2, mode="nearest").tanh(),
    "nearest by 2.3": lambda x: F.interpolate(x, scale_factor=2.3, mode="nearest").tanh(),
    "nearest to half": lambda x: F.interpolate(x, (4, 3), mode="nearest").tanh(),
    "squeeze and excite": SqueezeExcite(),
    "gate by place": Places(),
    "scale (C, 1, 1)": Scaled(MAPS, 1, 1),
    "scale (1)": Scaled(1),
    "prelu": nn.PReLU(MAPS),
    "prelu, one slope": nn.PReLU(),
    "prelu, flat": nn.Sequential(nn.Flatten(), nn.PReLU(MAPS * 63)),
    "norm, flat": nn.Sequential(nn.Flatten(), nn.ReLU(), nn.BatchNorm1d(MAPS * 63)),
    "unflattened": nn.Sequential(
        nn.Flatten(), nn.Tanh(), nn.Unflatten(1, (18, 7, 3)), nn.BatchNorm2d(18)
    ),
    "same map twice": lambda x: torch.cat([x, x.tanh(), x], 1),
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 0.5),
    "everything dropped": lambda x: x + F.dropout(x, 1.0),
}


@pytest.mark.parametrize(("number", "body"), list(enumerate(BODIES)))
def test_as_autograd_has_it(number, body):
    machine = MACHINES[number % len(MACHINES[:2])]  # by turns: their kernels have had both
    model = seeded(lambda: Around(BODIES[body]))
    assert_agrees(model, *batch(11, *SHAPE), machine=machine, threads=1, spare=0)


REFUSED = {
    "with numbers other than 0": lambda x: F.pad(x, (1, 1), value=1.0),
    "from (9, 7) to (4, 7)": lambda x: F.adaptive_max_pool2d(x, (4, 7)),
    "with ceil_mode": lambda x: F.avg_pool2d(x, 2, ceil_mode=True),
    "whose places are asked for": lambda x: F.max_unpool2d(
        *F.max_pool2d(x, 3, return_indices=True), 3, output_size=SHAPE[1:]
    ),
    "over other axes": lambda x: x.mean(1, keepdim=True),
    "another axis than the channels": lambda x: torch.cat([x, x], 2),
    "maps of different shape": lambda x: x * x[:, :, :1],
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_not_covered_is_named(words):
    with pytest.raises(NotCovered) as found:
        read_graph(Around(REFUSED[words]), torch.randn(2, *SHAPE))
    assert words in str(found.value)


class Dropped(nn.Module):
    """Whose logits are the dropped maps themselves."""

    def __init__(self, p):
        super().__init__()
        self.weight, self.drop = nn.Parameter(torch.ones(64, 1, 1)), nn.Dropout2d(p)

    def forward(self, x):
        return self.drop(x * self.weight).flatten(1)


@wide_machines
def test_whole_maps_are_dropped(machine):
    """Whole maps or nothing, the rest scaled up, a share of p, and the way back the same."""
    p, n = 0.3, 40
    images, labels = torch.rand(n, 64, 3, 2) + 0.5, torch.randint(0, 384, (n,))
    step = compile_step(Dropped(p), images, aim=Aim(loss=True), machine=machine, threads=1)
    answer = step.run(images, labels, seed=5)
    kept = (answer.logits != 0).view(n, 64, 6)
    assert torch.equal(kept.all(2), kept.any(2))
    mask = kept.any(2)
    torch.testing.assert_close(
        answer.logits.view(n, 64, 6), images.flatten(2) * mask[:, :, None] / (1 - p)
    )
    share, deviation = 1 - mask.float().mean().item(), math.sqrt(p * (1 - p) / mask.numel())
    assert abs(share - p) < 4 * deviation
    assert mask.float().mean(1).std() > 0
    assert mask.float().mean(0).std() > 0
    weight = torch.ones(64, 1, 1, dtype=torch.float64, requires_grad=True)
    scaled = images.double() * weight * mask[:, :, None, None] / (1 - p)
    F.cross_entropy(scaled.flatten(1), labels).backward()
    torch.testing.assert_close(step.gradients["weight"].double(), weight.grad, rtol=1e-5, atol=1e-7)
    assert torch.equal(step.run(images, labels, seed=5).logits, answer.logits)
    assert not torch.equal(step.run(images, labels, seed=6).logits, answer.logits)
