"""Heat maps: the net's own probabilities of every window, and where the window lies."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import hubel
from hubel.data.preprocess import Preprocess
from hubel.errors import ModelError, OptionError
from hubel.models.convolutionalize import convolutionalize
from hubel.models.names import build
from hubel.probe.heatmap import Heatmap, class_heatmap, fitted

SIDE = 28


@pytest.fixture(scope="module")
def garments():
    """Some of the sample's images, float 0..1 (N, 1, 28, 28), with their classes."""
    source = hubel.load_data("sample")
    rows = range(2500)
    images = np.stack([source[row].image for row in rows])
    return torch.from_numpy(images).float() / 255, torch.as_tensor(source.targets[: len(rows)])


@pytest.fixture(scope="module")
def trained(garments):
    """LeNet without padding, two passes over 2,000 garments: about 3 of 4 right."""
    torch.manual_seed(0)
    first = build("lenet5", classes=10, channels=1, size=(32, 32)).features
    net = nn.Sequential(
        first, nn.Flatten(), nn.Linear(16 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    pairs = TensorDataset(garments[0][:2000], garments[1][:2000])
    for _ in range(4):
        for x, y in DataLoader(pairs, batch_size=32, shuffle=True):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimiser.step()
    return net.eval()


def test_every_garment_of_a_canvas_is_what_the_net_says_of_it_alone(garments, trained):
    """3x3 garments, 36 pixels apart: at the centre of each, its class and its probability."""
    images, targets = garments[0][2000:], garments[1][2000:]
    rows = [int((targets == k).nonzero()[0]) for k in range(9)]
    canvas = torch.zeros(1, 108, 108)
    for place, row in enumerate(rows):
        y, x = 4 + place // 3 * 36, 4 + place % 3 * 36
        canvas[:, y : y + SIDE, x : x + SIDE] = images[row]
    found = class_heatmap(trained, canvas, size=(SIDE, SIDE))
    assert found.probabilities.shape == (10, 21, 21)
    assert (found.window, found.stride) == ((SIDE, SIDE), (4, 4))
    with torch.no_grad():
        own = trained(images[rows]).softmax(1).numpy()
    centres = found.probabilities[:, 1::9, 1::9].reshape(10, 9).T
    np.testing.assert_allclose(centres, own, atol=1e-5)
    assert (centres.argmax(1) == np.arange(9)).sum() >= 6  # it lights up at the right places


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_window_is_its_box_alone(trained, data):
    high, wide = data.draw(st.integers(28, 50)), data.draw(st.integers(28, 50))
    image = torch.rand(1, high, wide, generator=torch.Generator().manual_seed(high * wide))
    found = class_heatmap(convolutionalize(trained, (SIDE, SIDE), 1), image)
    _, h, w = found.probabilities.shape
    row, column = data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    top, left, bottom, right = found.box(row, column)
    assert (bottom - top, right - left) == (SIDE, SIDE)
    with torch.no_grad():
        own = trained(image[None, :, top:bottom, left:right]).softmax(1)[0].numpy()
    np.testing.assert_allclose(found.probabilities[:, row, column], own, atol=1e-5)


def test_peaks_and_places_by_hand():
    scores = np.zeros((3, 2, 3), np.float32)
    scores[1, 1, 2], scores[2, 0, 1], scores[0] = 0.9, 0.899, 0.05
    found = Heatmap(scores, window=(10, 20), stride=(4, 6))
    assert found.box(1, 2) == (4, 12, 14, 32)
    peak = found.peak(1)
    assert (peak.row, peak.column, peak.x, peak.y) == (1, 2, 22.0, 9.0)
    assert peak.probability == pytest.approx(0.9)
    # cells of 4 x 6 pixels around centres (5, 10), (9, 10), ..., (5, 22)
    assert found.extent() == (7.0, 3.0, 25.0, 11.0)
    assert found.likeliest(2) == [1, 2]
    scores[2, 1] = 0.4  # as high, but wider
    assert found.likeliest(2) == [2, 1]
    assert found.likeliest(9) == [2, 1, 0]


def test_the_net_is_left_as_it_was_and_needs_its_size(trained):
    net = build("resnet20", classes=4, channels=3, size=(32, 32)).train()
    found = class_heatmap(net, torch.rand(3, 40, 36), size=(32, 32))
    assert found.probabilities.shape == (4, 3, 2)
    np.testing.assert_allclose(found.probabilities.sum(0), 1, atol=1e-5)
    assert all(module.training for module in net.modules())
    with pytest.raises(ModelError, match=r"what hubel.convolutionalize returned, or the size"):
        class_heatmap(trained, torch.rand(1, 40, 40))
    with pytest.raises(ModelError, match="windows of 28x28 pixels, given an image of 27x40"):
        class_heatmap(trained, torch.rand(1, 27, 40), size=(SIDE, SIDE))


GREY = Preprocess(1, 28, 20, "crop", (0.5,), (0.5,))


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ({}, (60, 90)),
        ({"scale": 2}, (120, 180)),
        ({"scale": 0.5}, (30, 45)),
        ({"short": 40}, (40, 60)),
        ({"scale": 0.1}, (28, 42)),  # one window fits
        ({"short": 3}, (28, 42)),
    ],
)
def test_photos_are_brought_to_size(words, size):
    pixels = np.zeros((3, 60, 90), np.uint8)
    pixels[:, :, 45:] = np.array([200, 100, 50], np.uint8)[:, None, None]
    found = fitted(pixels, GREY, **words)
    assert found.shape == (1, *size)
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    assert abs(float(found[0, 5, -3]) - luma) <= 1
    assert found[0, 5, 3] == 0


def test_photos_that_cannot_be_brought_to_size():
    pixels = np.zeros((1, 100, 200), np.uint8)
    with pytest.raises(OptionError, match="not both: given 2 and 50"):
        fitted(pixels, GREY, scale=2, short=50)
    for scale in (0, -1, float("inf"), float("nan")):
        with pytest.raises(OptionError, match="a number above 0"):
            fitted(pixels, GREY, scale=scale)
    with pytest.raises(
        OptionError, match=r"8,388,608 pixels .* given 5000x10000: .* 20.48 or less"
    ):
        fitted(pixels, GREY, scale=50)
    assert fitted(pixels, GREY, scale=20.48).size <= 2**23
