"""Refining: the CRF sees the photo's own colours; superpixels vote; settings are read."""

import numpy as np
import pytest
import torch
from torch import nn

from hubel.data.preprocess import Preprocess
from hubel.deploy.refine import ByCRF, BySuperpixels, refined
from hubel.errors import OptionError
from hubel.models.crf import DenseCRF
from hubel.tasks.segmentation.superpixels import superpixels, vote

WAY = Preprocess(3, 8, 8, "same", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
DRAW = np.random.default_rng(0)
SIZE = (24, 31)


class Says(nn.Module):
    """The same logits whatever the image: a noisy left half and right half."""

    def __init__(self):
        super().__init__()
        z = torch.zeros(1, 2, *SIZE)
        z[:, 0, :, :15] = z[:, 1, :, 15:] = 2
        self.z = z + torch.from_numpy(DRAW.normal(0, 1.5, (1, 2, *SIZE))).float()

    def forward(self, images):
        return self.z.expand(len(images), -1, -1, -1)


@pytest.fixture
def photo():
    """Dark left, bright right, meeting at column 15; a little noise."""
    pixels = np.full((3, *SIZE), 60, np.uint8)
    pixels[:, :, 15:] = 190
    return pixels + DRAW.integers(0, 20, pixels.shape, dtype=np.uint8)


def fed(photo):
    return WAY.normalise(torch.from_numpy(photo)[None])


def truth():
    mask = np.zeros(SIZE, np.int64)
    mask[:, 15:] = 1
    return mask


def right(log_p):
    return (log_p[0].argmax(dim=0).numpy() == truth()).mean()


def test_none_is_the_net_itself():
    net = Says()
    assert refined(net, WAY, "none") is net


@torch.no_grad()
def test_the_crf_is_fed_the_photo_and_the_nets_answer(photo):
    net = Says()
    found = refined(net, WAY, "crf:w1=4,alpha=20,beta=8,w2=2,gamma=1.5,iterations=5")(fed(photo))
    crf = DenseCRF(4, 20, 8, 2, 1.5, iterations=5)
    expected = crf(torch.from_numpy(photo)[None], net(fed(photo)))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(1, *SIZE))
    assert right(net.z) < 0.9
    assert right(found) > 0.97


@torch.no_grad()
def test_superpixels_vote(photo):
    net = Says()
    found = refined(net, WAY, "superpixels:scale=50,sigma=0.5,least=10")(fed(photo))
    pieces = superpixels(photo, scale=50, sigma=0.5, least=10)
    expected = vote(net.z.softmax(dim=1)[0], pieces)
    np.testing.assert_array_equal(found[0].argmax(dim=0).numpy(), expected)
    for piece in np.unique(pieces):
        own = found[0].exp()[:, torch.from_numpy(pieces == piece)]
        mean = net.z.softmax(dim=1)[0][:, torch.from_numpy(pieces == piece)].mean(dim=1)
        torch.testing.assert_close(own, mean[:, None].expand_as(own))
    assert right(found) > 0.97


@torch.no_grad()
def test_each_image_of_a_batch_by_itself(photo):
    other = photo[:, :, ::-1].copy()
    both = torch.cat([fed(photo), fed(other)])
    for word in ("crf:iterations=2", "superpixels"):
        net = refined(Says(), WAY, word)
        net.model.z = Says().z  # another draw, the same for all three calls
        alone = torch.cat([net(fed(photo)), net(fed(other))])
        torch.testing.assert_close(net(both), alone)


def test_settings_reach_their_places():
    net = refined(Says(), WAY, "crf: w1=4, alpha=50,beta=5,iterations=3")
    assert isinstance(net, ByCRF)
    crf = net.crf
    assert (crf.w1, crf.theta_alpha, crf.theta_beta, crf.iterations) == (4, 50, 5, 3)
    assert (crf.w2, crf.theta_gamma) == (3, 1)
    pieces = refined(Says(), WAY, "superpixels:least=7")
    assert isinstance(pieces, BySuperpixels)
    assert (pieces.scale, pieces.sigma, pieces.least) == (100, 0.8, 7)


def test_the_mode_is_the_nets():
    for training in (True, False):
        assert refined(Says().train(training), WAY, "crf").training == training


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("crv", "unknown refine 'crv': did you mean 'crf'"),
        ("none:w1=2", "refine 'none' takes no settings, given 'w1=2'"),
        ("crf:apha=3", "unknown setting of crf 'apha': did you mean 'alpha'"),
        ("crf:alpha", "crf: alpha is a number, given 'alpha'"),
        ("crf:alpha=wide", "crf: alpha is a number, given 'alpha=wide'"),
        ("crf:iterations=1.5", "crf: iterations is a whole number, given 'iterations=1.5'"),
        ("crf:alpha=-2", "refine 'crf:alpha=-2': theta_alpha is a number above 0, given -2.0"),
        ("crf:beta=nan", "theta_beta is a number above 0"),
        ("superpixels:scale=0", "scale above 0, sigma from 0 and least from 1 on; given 0.0"),
        ("superpixels:w1=3", "unknown setting of superpixels 'w1'"),
    ],
)
def test_mistakes(word, message):
    with pytest.raises(OptionError, match=message):
        refined(Says(), WAY, word)
