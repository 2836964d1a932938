"""Views: which pixels each one sees, what is averaged, and how large the image must be."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hubel.data.preprocess import Preprocess
from hubel.deploy.views import TTA, Dense, TenCrop, averaged, enlarged, five_boxes, viewed
from hubel.errors import ModelError, OptionError
from hubel.models.names import build
from hubel.runs.weights import Card


def card(height=4, width=4, channels=1):
    half = (0.5,) * channels
    return Card(None, ("a", "b"), Preprocess(channels, height, width, "crop", half, half))


class TopLeft(nn.Module):
    """Logits (p, 0), p the pixel in the upper left corner; keeps all it was shown."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images)
        p = images[:, 0, 0, 0]
        return torch.stack([p, torch.zeros_like(p)], dim=1)


def sigmoid(p):
    return torch.sigmoid(torch.tensor(float(p)))


def test_none_is_the_net_itself():
    model, mine = nn.Flatten(), card()
    assert viewed(model, mine, "none") == (model, mine)


def test_flip_averages_the_two_upper_corners():
    """Corner pixels 2 and -1: (sigmoid(2) + sigmoid(-1)) / 2 for the first class."""
    model, mine = viewed(TopLeft(), card(), "flip")
    assert mine == card()
    images = torch.zeros(1, 1, 4, 4)
    images[0, 0, 0, 0], images[0, 0, 0, 3] = 2.0, -1.0
    found = model(images).softmax(dim=1)
    expected = (sigmoid(2) + sigmoid(-1)) / 2
    torch.testing.assert_close(found[0, 0], expected)
    torch.testing.assert_close(model(images).exp(), found)  # they are log probabilities


def test_boxes_by_hand():
    """A crop of 224 x 224 in 256 x 256: 32 pixels of room; 28 x 30 in 32 x 35: 4 and 5."""
    assert five_boxes((256, 256), (224, 224)) == ((0, 0), (0, 32), (32, 0), (32, 32), (16, 16))
    assert five_boxes((32, 35), (28, 30)) == ((0, 0), (0, 5), (4, 0), (4, 5), (2, 2))


@pytest.mark.parametrize(("kept", "wider"), [(224 / 256, 1), (0.7, 0.8), (224 / 232, 1), (1, 1)])
def test_the_larger_image_takes_in_what_a_crop_left_out(kept, wider):
    """Nets that see 224 of 256 pixels see 224 x 224 crops of all 256: nothing is magnified."""
    small = Preprocess(1, 224, 224, "crop", (0.5,), (0.5,), kept=kept)
    large = enlarged(small)
    assert (large.height, large.width, large.kept) == (256, 256, pytest.approx(wider))
    scale = small.height / small.kept, large.height / large.kept  # of a side of one pixel
    assert scale[1] == pytest.approx(scale[0]) or large.kept == 1


def test_ten_crops_are_the_ten():
    net = TopLeft()
    image = torch.arange(30.0).view(1, 1, 5, 6) / 30
    TenCrop(net, (3, 4))(image)
    picture = image[0, 0]
    crops = [picture[0:3, 0:4], picture[0:3, 2:6], picture[2:5, 0:4], picture[2:5, 2:6],
             picture[1:4, 1:5]]  # fmt: skip
    expected = [view for crop in crops for view in (crop, torch.fliplr(crop))]
    assert len(net.seen) == 10
    for seen, view in zip(net.seen, expected, strict=True):
        assert seen[0, 0].equal(view)


def test_ten_crop_averages_what_ten_known_pixels_say():
    """Image i, j -> 10 i + j of 5 x 6, crops of 3 x 4: the upper left pixels of the crops, and of
    their mirrors the upper right ones."""
    image = (10.0 * torch.arange(5)[:, None] + torch.arange(6))[None, None]
    corners = [0, 3, 2, 5, 20, 23, 22, 25, 11, 14]
    found = TenCrop(TopLeft(), (3, 4))(image / 10).exp()
    expected = torch.stack([sigmoid(pixel / 10) for pixel in corners]).mean()
    torch.testing.assert_close(found[0, 0], expected)
    torch.testing.assert_close(found.sum(), torch.tensor(1.0))


@pytest.mark.parametrize(("side", "larger"), [(224, 256), (28, 32), (32, 37), (64, 73)])
def test_the_larger_image(side, larger):
    found = enlarged(card(side, 2 * side).preprocess)
    assert found.height == larger
    assert found.width == round(2 * side / 0.875)
    assert (found.fit, found.mean, found.channels) == ("crop", (0.5,), 1)


@pytest.mark.parametrize("tta", ["flip", "ten-crop"])
def test_the_views_are_in_the_mode_of_the_net(tta):
    """Evaluation leaves a module in the mode it found: that of the net must come through."""
    for training in (True, False):
        assert viewed(nn.Flatten().train(training), card(), tta)[0].training == training


def test_ten_crop_and_dense_ask_for_it():
    assert viewed(TopLeft(), card(28, 28), "ten-crop")[1].preprocess.height == 32
    assert viewed(small_net(), card(4, 4), "dense")[1].preprocess.height == 5


def test_a_vanishing_probability_keeps_a_finite_loss():
    sure = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    nn.init.constant_(sure[1].weight[0], 200.0)
    nn.init.constant_(sure[1].weight[1], -200.0)
    with torch.no_grad():
        found = averaged(sure, [torch.ones(1, 1, 1, 2)] * 3)
    assert F.cross_entropy(found, torch.tensor([1])).item() == pytest.approx(800.0)


def test_averaging_agrees_with_the_plain_mean():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    views = [torch.randn(5, 3, 2, 2, dtype=torch.float64) for _ in range(4)]
    with torch.no_grad():
        plain = torch.stack([net(view).softmax(dim=1) for view in views]).mean(dim=0)
        torch.testing.assert_close(averaged(net, views).exp().double(), plain, atol=1e-6, rtol=0)


def test_an_unknown_word_is_answered_with_the_nearest():
    with pytest.raises(OptionError, match="unknown tta 'tencrop': did you mean 'ten-crop'"):
        viewed(TopLeft(), card(), "tencrop")
    assert TTA == ("none", "flip", "ten-crop", "dense")


# Dense --------------------------------------------------------------------------------------------


def small_net():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 2 * 2, 2)
    ).eval()


def test_dense_averages_scores_over_places_then_probabilities_over_mirrors():
    """Every 4 x 4 window of a 6 x 5 image through the plain net: (3 x 2) places, one by one."""
    net = small_net()
    image = torch.randn(1, 1, 6, 5)
    with torch.no_grad():
        found = Dense(net, (4, 4), 1)(image).exp()
        sides = []
        for side in (image, image.flip(3)):
            scores = [net(side[:, :, i : i + 4, j : j + 4]) for i in range(3) for j in range(2)]
            sides.append(torch.stack(scores).mean(dim=0).softmax(dim=1))
    torch.testing.assert_close(found, (sides[0] + sides[1]) / 2)


@pytest.mark.parametrize("name", ["lenet5", "compact"])
def test_dense_at_the_training_size_is_flip(name):
    net = build(name, classes=3, channels=1, size=(28, 28)).eval()
    images = torch.randn(3, 1, 28, 28)
    with torch.no_grad():
        flipped = viewed(net, card(28, 28), "flip")[0](images)
        torch.testing.assert_close(Dense(net, (28, 28), 1)(images), flipped, atol=1e-4, rtol=1e-4)


def test_a_net_that_cannot_slide_is_refused():
    class Fixed(nn.Module):
        def forward(self, images):
            return images.sum(dim=(1, 2, 3))[:, None] if images.shape[3] > 3 else {}["wrong"]

    with pytest.raises(ModelError):
        viewed(Fixed(), card(3, 3), "dense")
