"""Upsampling: each kind against torch or by hand, on the engine's tape, its gradients checked."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hubel.engine.check import check
from hubel.engine.tape import Tape
from hubel.errors import ModelError
from hubel.models.upsampling import (
    Upsample,
    bilinear,
    bilinear_filter,
    make_bilinear,
    up_convolution,
)

X = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
SIMPLE = ("nearest", "bed_of_nails", "bilinear", "transposed")
OPS = {
    "nearest": "upsample",
    "bed_of_nails": "bed_of_nails",
    "bilinear": "upsample",
    "transposed": "conv_transposed",
    "max_unpool": "max_unpool",
}


def layer(kind, factor=2, **options):
    maps = {"maps": (3, 4)} if kind == "transposed" else {}
    return Upsample(kind, factor, **maps, **options)


class Pooled(nn.Module):
    """A pool and its unpooling, with the switches of the same pass."""

    def __init__(self):
        super().__init__()
        self.pool, self.up = nn.MaxPool2d(2, return_indices=True), Upsample("max_unpool", 2)

    def forward(self, x):
        small, places = self.pool(x)
        return self.up(small, places, x.shape[-2:])


def test_nearest_and_nails_by_hand():
    assert Upsample("nearest", 2)(X)[0, 0].tolist() == [
        [1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4],
    ]  # fmt: skip
    assert Upsample("bed_of_nails", 2)(X)[0, 0].tolist() == [
        [1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0],
    ]  # fmt: skip


def test_unpooling_puts_maxima_back_where_they_were():
    x = torch.tensor([[[[1.0, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]]]])
    assert Pooled()(x)[0, 0].tolist() == [[0, 0, 6, 0], [0, 5, 0, 0], [0, 0, 0, 0], [7, 0, 0, 8]]


@pytest.mark.parametrize("size", [(6, 8), (7, 9)])
def test_unpooling_is_torchs(size):
    x = torch.randn(2, 3, *size)
    small, places = nn.MaxPool2d(2, return_indices=True)(x)
    expected = nn.MaxUnpool2d(2)(small, places, output_size=size)
    assert Upsample("max_unpool", 2)(small, places, size).equal(expected)


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_bilinear_and_nearest_are_torchs(factor):
    x = torch.randn(2, 3, 4, 5)
    for kind, more in (("bilinear", {"align_corners": False}), ("nearest", {})):
        expected = F.interpolate(x, scale_factor=factor, mode=kind, **more)
        torch.testing.assert_close(Upsample(kind, factor)(x), expected)


@pytest.mark.parametrize(("kernel", "factor"), [(2, 2), (4, 2), (3, 2), (3, 3), (16, 8), (7, 4)])
def test_transposed_is_a_convolutions_backward_and_s_times_as_large(kernel, factor):
    """The gradient of a convolution with the same stride and border, as torch's autograd has it."""
    up = up_convolution(3, 4, factor, kernel).double()
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    y = torch.zeros(2, 4, 5 * factor, 6 * factor, dtype=torch.float64, requires_grad=True)
    down = F.conv2d(y, up.weight, stride=factor, padding=up.padding)
    (expected,) = torch.autograd.grad(down, y, x)
    torch.testing.assert_close(up(x), expected + up.bias[:, None, None])


@pytest.mark.parametrize("kind", SIMPLE)
@pytest.mark.parametrize("factor", [2, 3])
def test_gradients_are_right_and_each_is_recorded(kind, factor):
    torch.manual_seed(0)
    up, x = layer(kind, factor), torch.randn(2, 3, 3, 4)
    report = check(up, x)
    assert report.fine
    assert report.borrowed == ()
    with Tape(up, watch={"x": x}) as tape:
        up(x)
    assert OPS[kind] in {record.op.name for record in tape.records}


def test_unpoolings_gradient_is_right_and_it_is_recorded():
    x = torch.randperm(2 * 2 * 35).view(2, 2, 5, 7).float()  # no two alike: no ties
    report = check(Pooled(), x)
    assert report.fine
    assert report.borrowed == ()
    with Tape(None, watch={"x": x}) as tape:
        Pooled()(x)
    assert "max_unpool" in {record.op.name for record in tape.records}


def test_results_may_be_a_little_smaller():
    for kind in SIMPLE:
        assert layer(kind)(torch.randn(1, 3, 4, 5), size=(7, 9)).shape[2:] == (7, 9)


def test_the_bilinear_filters_of_the_papers_by_hand():
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    assert bilinear_filter(4).equal(line[:, None] * line)
    line = torch.tensor([0.5, 1.0, 0.5])
    assert bilinear_filter(3).equal(line[:, None] * line)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_with_it_a_transposed_convolution_is_bilinear_inside(groups, factor):
    up = up_convolution(3, 3, factor, 2 * factor, groups=groups)
    make_bilinear(up)
    x = torch.randn(2, 3, 5, 6)
    inside = slice(factor, -factor)  # where torch repeats its borders, zeros come in here
    found, expected = up(x)[..., inside, inside], bilinear(x, factor)[..., inside, inside]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Upsample("linear"), "unknown upsampling 'linear'.*bilinear"),
        (lambda: Upsample("nearest", maps=(1, 2)), "transposed upsampling alone has maps"),
        (lambda: Upsample("transposed"), "transposed upsampling alone has maps"),
        (lambda: Upsample("nearest", 0), "factor must be a whole number of at least 1"),
        (lambda: up_convolution(1, 1, 3, 2), "a kernel of at least 3 covers a stride of 3, not 2"),
        (lambda: Upsample("max_unpool")(X), "max_unpool alone takes the maxima's places"),
        (lambda: Upsample("nearest")(X, X.long()), "max_unpool alone takes the maxima's places"),
    ],
)
def test_what_does_not_fit_is_said(make, message):
    with pytest.raises(ModelError, match=message):
        make()
