"""Whole steps in bfloat16 on matrices in registers, against float64 autograd; who takes them."""

import math

import pytest
import torch
from native_matrices import has_matrices, on_both_tiles
from native_nets import batch, conv, pooled, reference, seeded
from torch import nn

from hubel.engine.native.lower import amx
from hubel.engine.native.plan import Aim
from hubel.engine.native.step import compile_step

pytestmark = has_matrices
NETS = {
    "convolutions": lambda: nn.Sequential(conv(3, 20), conv(20, 33), nn.Tanh(), pooled(33)),
    "batch norm": lambda: nn.Sequential(
        conv(bias=False), nn.BatchNorm2d(4), nn.Tanh(), conv(4, 6), nn.BatchNorm2d(6), pooled(6)
    ),
    "residual": lambda: nn.Sequential(
        conv(3, 8), nn.BatchNorm2d(8), nn.Tanh(), Residual(8), Residual(8), pooled(8)
    ),
    "stride, kernels of 5 and 1": lambda: nn.Sequential(
        conv(3, 6, 5, stride=2), nn.Tanh(), conv(6, 18, 1), nn.Tanh(), conv(18, 4, 3), pooled()
    ),
    "relu and pooling": lambda: nn.Sequential(
        conv(3, 6), nn.ReLU(), nn.MaxPool2d(2), conv(6, 9), nn.ReLU(), pooled(9)
    ),
    "odd pooling": lambda: nn.Sequential(
        nn.Conv2d(3, 17, 4), nn.ReLU(), nn.MaxPool2d(2), conv(17, 4), pooled()
    ),
}


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.one, self.norm, self.two = (
            conv(width, width),
            nn.BatchNorm2d(width),
            conv(width, width),
        )

    def forward(self, x):
        return torch.tanh(self.two(torch.tanh(self.norm(self.one(x)))) + x)


def kinds(step):
    calls = [call.spec for phase in step.plan.phases for call in phase.calls]
    return [type(spec).__name__ for spec in calls if hasattr(spec, "macs")]


@on_both_tiles
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", NETS)
def test_nets_with_every_convolution_that_can_on_matrices(name, threads, machine, monkeypatch):
    monkeypatch.setattr(amx, "GAIN", math.inf)
    model = seeded(NETS[name]).train()
    images, labels = batch(37, 3, 8, 8)
    aim = Aim(loss=True, half=True)
    step = compile_step(model, images, aim=aim, machine=machine, threads=threads)
    assert "AmxCorrelate" in kinds(step)
    exact = reference(model, images, labels)
    for _ in range(2):  # what one step leaves behind is not in the next
        answer = step.run(images, labels)
        assert answer.loss == pytest.approx(exact.loss, rel=0.02)
        true = {n: p.grad for n, p in exact.model.named_parameters()}
        whole = math.sqrt(sum(float(g.square().sum()) for g in true.values()))
        for n, gradient in true.items():
            apart = float((step.gradients[n].double() - gradient).norm())
            assert apart < 0.03 * float(gradient.norm()) + 0.01 * whole, n


def test_which_kernels_they_take():
    net = nn.Sequential(
        conv(1, 6, 5, padding=2), nn.Tanh(), conv(6, 16, 5), nn.Tanh(), conv(16, 24, stride=2),
        nn.Tanh(), conv(24, 8, 3, groups=2), pooled(8),
    )  # fmt: skip
    step = compile_step(
        net, torch.zeros(2, 1, 28, 28), aim=Aim(loss=True, half=True), number=64, threads=1
    )
    # one channel has few products; with a stride there is only the way forward; groups have none
    assert kinds(step) == [
        "Correlate", "AmxCorrelate", "AmxCorrelate", "Correlate",
        "WeightGradient", "Correlate", "WeightGradient", "Correlate", "AmxGradient", "AmxCorrelate",
        "WeightGradient",
    ]  # fmt: skip
