"""Views of masks: what is shown, and that what is said is put back where it belongs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hubel.deploy.mask_views import MASK_TTA, MaskViews, viewed_masks
from hubel.errors import OptionError


def conv(seed=0):
    torch.manual_seed(seed)
    return nn.Conv2d(2, 3, 3, padding=1).eval()


def images(shape=(11, 17)):
    return torch.randn(2, 2, *shape, generator=torch.Generator().manual_seed(1))


def test_none_is_the_net_itself():
    net = conv()
    assert viewed_masks(net, "none") is net


@torch.no_grad()
def test_flip_by_hand():
    net, x = conv(), images()
    found = viewed_masks(net, "flip")(x)
    there = net(x).softmax(dim=1)
    back = net(x[..., torch.arange(16, -1, -1)]).softmax(dim=1)[..., torch.arange(16, -1, -1)]
    torch.testing.assert_close(found.exp(), (there + back) / 2)


class Bright(nn.Module):
    """Two classes: log odds are the pixel's brightness. Keeps the sizes it was shown."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, x):
        self.sizes.append(tuple(x.shape[2:]))
        return torch.cat([x, -x], dim=1)


@torch.no_grad()
def test_scales_by_hand():
    net, x = Bright(), images((12, 20))[:, :1]
    found = viewed_masks(net, "scales")(x)
    assert net.sizes == [(9, 15)] * 2 + [(12, 20)] * 2 + [(15, 25)] * 2
    total = 0
    for size in ((9, 15), (12, 20), (15, 25)):
        seen = F.interpolate(x, size, mode="bilinear", antialias=True) if size != (12, 20) else x
        chances = torch.cat([seen, -seen], dim=1).softmax(dim=1)
        total = total + F.interpolate(chances, (12, 20), mode="bilinear", antialias=True) / 3
    torch.testing.assert_close(found.exp(), total)


@pytest.mark.parametrize("tta", ["flip", "scales"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 2), (13, 29)])
@torch.no_grad()
def test_any_size_stays_and_probabilities_sum_to_one(tta, shape):
    found = viewed_masks(conv(), tta)(images(shape))
    assert found.shape == (2, 3, *shape)
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(2, *shape))


def test_a_mirrored_image_gets_the_mirrored_answer():
    """Whatever the net: that is what averaging over the mirror brings."""
    x = images()
    for tta in ("flip", "scales"):
        net = viewed_masks(conv(), tta)
        with torch.no_grad():
            torch.testing.assert_close(net(x.flip(3)), net(x).flip(3), atol=1e-5, rtol=1e-5)


def test_the_mode_is_the_nets():
    for training in (True, False):
        assert viewed_masks(conv().train(training), "flip").training == training


@torch.no_grad()
def test_dicts_smaller_logits_and_vanished_probabilities():
    class Small(nn.Module):
        def forward(self, x):
            return {"logits": F.avg_pool2d(torch.cat([x * 0, x * 0 - 1000], dim=1), 2)}

    found = MaskViews(Small())(images((8, 12))[:, :1])
    assert found.shape == (2, 2, 8, 12)
    assert found.isfinite().all()


@pytest.mark.parametrize("word", ["ten-crop", "dense"])
def test_views_of_whole_images_are_refused(word):
    with pytest.raises(
        OptionError, match=f"tta '{word}' is for nets that name whole images; allowed for masks: "
        "none, flip, scales",
    ):  # fmt: skip
        viewed_masks(conv(), word)


def test_unknown_words():
    with pytest.raises(OptionError, match="unknown tta 'scale': did you mean 'scales'"):
        viewed_masks(conv(), "scale")
    assert tuple(MASK_TTA) == ("none", "flip", "scales")
