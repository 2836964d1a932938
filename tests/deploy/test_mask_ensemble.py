"""Ensembles of masks: the mean of probabilities, colours and classes brought to one order."""

import pytest
import torch
from torch import nn

from hubel.data.preprocess import Preprocess
from hubel.deploy.mask_ensemble import MaskEnsemble
from hubel.errors import DataError
from hubel.runs.weights import Card


def way(mean=(0.5,) * 3, std=(0.25,) * 3, fit="same", side=8, channels=3):
    return Preprocess(channels, side, side, fit, mean[:channels], std[:channels])


def card(preprocess, classes=("a", "b", "c")):
    return Card(None, classes, preprocess, task="segment")


def net(seed, classes=3, channels=3):
    torch.manual_seed(seed)
    return nn.Conv2d(channels, classes, 3, padding=1).eval()


ONE, OTHER = way(), way((0.1, 0.7, 0.4), (0.2, 0.3, 0.5))


@torch.no_grad()
def test_each_member_sees_images_as_it_was_trained_to():
    pixels = torch.randint(0, 256, (2, 3, 9, 14), dtype=torch.uint8)
    nets = [net(0), net(1)]
    both = MaskEnsemble(nets, [card(ONE), card(OTHER)])
    found = both(ONE.normalise(pixels)).exp()
    first = nets[0](ONE.normalise(pixels)).softmax(dim=1)
    second = nets[1](OTHER.normalise(pixels)).softmax(dim=1)
    torch.testing.assert_close(found, (first + second) / 2)


@torch.no_grad()
def test_classes_are_matched_by_name():
    x = torch.randn(1, 3, 5, 6)
    nets = [net(0), net(1)]
    found = MaskEnsemble(nets, [card(ONE), card(ONE, ("c", "a", "b"))])(x).exp()
    turned = nets[1](x).softmax(dim=1)[:, [1, 2, 0]]
    torch.testing.assert_close(found, (nets[0](x).softmax(dim=1) + turned) / 2)


def test_what_cannot_be_averaged():
    for other in (way(fit="stretch"), way(channels=1)):
        with pytest.raises(DataError, match="prepare images in different ways.*same, 3 channels"):
            MaskEnsemble([net(0), net(1, channels=other.channels)], [card(ONE), card(other)])
    with pytest.raises(DataError, match="stretch 8 x 8, 3 channels and stretch 9 x 9"):
        small, large = way(fit="stretch"), way(fit="stretch", side=9)
        MaskEnsemble([net(0), net(1)], [card(small), card(large)])
    with pytest.raises(DataError, match="'c' is known to one and not to another"):
        MaskEnsemble([net(0), net(1)], [card(ONE), card(ONE, ("a", "b", "d"))])


@torch.no_grad()
def test_windows_of_training_do_not_matter_where_images_keep_their_size():
    both = MaskEnsemble([net(0), net(0)], [card(ONE), card(way(side=99))])
    x = torch.randn(1, 3, 5, 6)
    torch.testing.assert_close(both(x).exp(), net(0)(x).softmax(dim=1))


def test_nothing_but_the_members_is_in_the_state():
    both = MaskEnsemble([net(0), net(1)], [card(ONE), card(OTHER)])
    assert all(name.startswith("members.") for name in both.state_dict())
    assert not both.training
    assert len(list(both.parameters())) == 4
