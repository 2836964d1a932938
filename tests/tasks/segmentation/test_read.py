"""Outputs and targets: what is taken, what is refused, which pixel is read where sizes differ."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hubel.errors import ModelError
from hubel.tasks.segmentation import read

CPU = torch.device("cpu")


def test_logits_are_found_in_tensors_and_dicts():
    z = torch.zeros(2, 3, 5, 7)
    assert read.logits(z) is z
    assert read.logits({"logits": z, "aux1": None}) is z


@pytest.mark.parametrize(
    ("outputs", "given"),
    [
        (torch.zeros(2, 3), r"shape \(2, 3\)"),
        ((torch.zeros(2, 3, 4, 4), None), "a tuple"),
        ({"out": torch.zeros(2, 3, 4, 4)}, "a dict with 'out'"),
        ({}, "a dict with nothing"),
    ],
)
def test_other_outputs_are_named(outputs, given):
    with pytest.raises(ModelError, match=rf"\(N, classes, H, W\).*returned {given}"):
        read.logits(outputs)


def test_targets_with_weights_fall_apart():
    labels, weights = read.split(torch.tensor([[[[0.0, 255.0]], [[1.5, 0.0]]]]))
    assert labels.dtype == torch.int64
    assert labels.tolist() == [[[0, 255]]]
    assert weights.tolist() == [[[1.5, 0.0]]]
    plain = torch.ones(1, 2, 2, dtype=torch.int64)
    assert read.split(plain) == (plain, None)


def test_an_eighth_reads_the_pixel_behind_the_middle():
    assert read.nearest(3, 24, CPU).tolist() == [4, 12, 20]
    assert read.nearest(3, 9, CPU).tolist() == [1, 4, 7]  # odd pieces have a pixel in the middle
    assert read.nearest(5, 5, CPU).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("size", "to"), [((37, 53), (5, 7)), ((5, 7), (37, 53)), ((8, 1), (3, 1))])
def test_nearest_is_torchs_nearest_exact(size, to):
    maps = torch.arange(2 * size[0] * size[1]).view(2, *size)
    expected = F.interpolate(maps[:, None].double(), size=to, mode="nearest-exact")[:, 0]
    assert read.resample(maps, to).equal(expected.long())
    assert read.resample(maps, size) is maps


def test_named_is_argmax():
    z = torch.randn(2, 6, 9, 11)
    assert read.named(z).equal(z.argmax(dim=1))


def test_what_does_not_fit_is_named():
    labels = torch.zeros(2, 8, 9, dtype=torch.int64)
    read.fits(torch.zeros(2, 3, 1, 9), labels, 3)
    with pytest.raises(ModelError, match="every pixel 4 logits.*it gives 3"):
        read.fits(torch.zeros(2, 3, 8, 9), labels, 4)
    for shape in ((1, 3, 8, 9), (2, 3, 9, 9), (2, 3, 8, 10)):
        sizes = " x ".join(str(n) for n in np.delete(shape, 1))
        with pytest.raises(ModelError, match=f"labels, 2 x 8 x 9; they are {sizes}"):
            read.fits(torch.zeros(shape), labels, 3)
