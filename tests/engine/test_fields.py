"""Receptive fields against the gradient of a single output, and against the known formula."""

import pytest
import torch
from torch import nn

from hubel.engine.look import look


def true_span(model, x, op):
    """Pixels that the middle output of `op` depends on: no slope is zero by chance here."""
    place = tuple(n // 2 for n in op.output.shape)
    x = x.clone().requires_grad_()
    kept = {}
    handle = dict(model.named_modules())[op.path].register_forward_hook(
        lambda module, args, out: kept.update(out=out)
    )
    model(x)
    handle.remove()
    (g,) = torch.autograd.grad(kept["out"][place], x)
    rows, cols = g[place[0]].abs().sum(0).nonzero(as_tuple=True)
    return tuple(int(v.max() - v.min()) + 1 for v in (rows, cols))


def chain():
    return nn.Sequential(
        nn.Conv2d(2, 3, (3, 5), padding=(1, 2)), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(3, 4, 3, stride=2), nn.Sigmoid(), nn.Conv2d(4, 3, 3, dilation=2),
        nn.AvgPool2d(3, 1),
    )  # fmt: skip


def test_a_chain_is_exact():
    torch.manual_seed(0)
    model, x = chain().double(), torch.randn(1, 2, 53, 61).double()
    seen = look(model, x)
    for op in seen:
        assert op.field.size == true_span(model, x, op), op


def test_vggs_last_convolution_sees_196_pixels():
    layers = []
    c = 1
    for block in (2, 2, 3, 3, 3):
        for _ in range(block):
            layers.append(nn.Conv2d(c, 1, 3, padding=1))
            c = 1
        layers.append(nn.MaxPool2d(2))
    seen = look(nn.Sequential(*layers), torch.zeros(1, 1, 64, 64))
    assert seen.ops[-2].field.size == (196, 196)
    assert seen.ops[-1].field.size == (212, 212)
    assert seen.ops[-1].field.step == (32.0, 32.0)


def test_a_residual_sum_sees_what_its_longer_path_sees():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x):
            return x + self.b(self.a(x))

    seen = look(Block(), torch.zeros(1, 1, 9, 9))
    assert str(seen["add"].field) == "5x5"


def test_a_global_average_sees_the_whole_image():
    seen = look(nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(1)), torch.zeros(1, 1, 8, 8))
    assert seen.ops[-1].field.size == (8, 8)


@pytest.mark.parametrize("layer", [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.GroupNorm(1, 1)])
def test_what_reads_everything_says_so(layer):
    seen = look(nn.Sequential(nn.Conv2d(1, 1, 3), layer), torch.randn(1, 1, 8, 8))
    assert seen.ops[-1].field is None


def test_upsampling_is_a_bound():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.Upsample(scale_factor=2, mode="bilinear"))
    model = model.double()
    x = torch.randn(1, 1, 32, 32).double()
    op = look(model, x).ops[-1]
    assert all(b >= t for b, t in zip(op.field.size, true_span(model, x, op), strict=True))


def test_a_slice_moves_the_field():
    class Cut(nn.Module):
        def forward(self, x):
            return x[:, :, 3:, ::2]

    seen = look(Cut(), torch.zeros(1, 1, 9, 9))
    assert seen.ops[-1].field.step == (1.0, 2.0)
