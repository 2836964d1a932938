"""The picture of heat maps: colours stand where the scores are, all shapes of photo fit."""

import numpy as np
import pytest
from PIL import Image

from hubel.errors import OptionError
from hubel.probe.heatmap import Heatmap
from hubel.probe.heatmap_picture import draw_heatmap


def heat(h=9, w=14, classes=4):
    """Class 1 is sure in the right third, class 0 elsewhere."""
    scores = np.full((classes, h, w), 0.02, np.float32)
    scores[1, :, 2 * w // 3 :] = 0.9
    scores[0, :, : 2 * w // 3] = 0.9
    return Heatmap(scores / scores.sum(0), window=(12, 12), stride=(4, 4))


def draw(path, image, found, picked):
    names = [f"class {k}" for k in range(len(found.probabilities))]
    draw_heatmap(image, found, names, picked, path)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def hot(pixels):
    """Pixels in the colour map's bright yellow and orange."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    return (red > 180) & (green > 100) & (blue < red - 60)


def test_a_map_is_hot_where_its_class_is(tmp_path):
    image = np.full((3, 44, 64), 120, np.uint8)
    pixels = draw(tmp_path / "one.png", image, heat(), [1])
    lower = pixels[pixels.shape[0] // 2 :, : int(pixels.shape[1] * 0.85)]  # the bar is left out
    columns = np.flatnonzero(hot(lower).sum(axis=0) > 20)
    drawn = np.flatnonzero((lower.std(axis=0) > 10).any(axis=1))
    share = (columns - drawn.min()) / (drawn.max() - drawn.min())
    assert len(columns) > 50
    assert share.min() > 0.5  # extent 4..60 of 64, hot from cell 9 of 14 on: (4 + 36) / 64 = 0.63
    empty = draw(tmp_path / "none.png", image, heat(), [3])
    assert hot(empty[empty.shape[0] // 2 :, : int(empty.shape[1] * 0.85)]).sum() == 0


def test_winners_have_their_own_colours(tmp_path):
    image = np.full((1, 44, 64), 250, np.uint8)
    pixels = draw(tmp_path / "winners.png", image, heat(), [0])
    upper = pixels[: pixels.shape[0] // 2]
    blue = (upper[..., 2] > upper[..., 0] + 40).sum()  # class 0 wins two thirds
    orange = (upper[..., 0] > upper[..., 2] + 40).sum()
    assert 1.4 < blue / orange < 2.6


@pytest.mark.parametrize(
    ("shape", "classes", "picked"),
    [
        ((1, 12, 12), 2, [0, 1]),  # a single window
        ((3, 44, 64), 30, list(range(7))),  # more winners than colours, two rows of maps
        ((3, 300, 30), 4, [1, 2, 3]),
        ((3, 30, 300), 4, [1]),
    ],
)
def test_all_shapes_are_drawn(tmp_path, shape, classes, picked):
    h, w = ((side - 12) // 4 + 1 for side in shape[1:])
    scores = np.random.default_rng(0).dirichlet(np.full(classes, 0.1), (h, w))
    found = Heatmap(scores.transpose(2, 0, 1).astype(np.float32), (12, 12), (4, 4))
    pixels = draw(tmp_path / "any.png", np.zeros(shape, np.uint8), found, picked)
    assert pixels.shape[1] > 1000
    assert 300 < pixels.shape[0] < 2600


def test_nothing_to_draw(tmp_path):
    image = np.zeros((1, 44, 64), np.uint8)
    with pytest.raises(OptionError, match="4 class names and one class or more"):
        draw_heatmap(image, heat(), ["a", "b", "c", "d"], [], tmp_path / "no.png")
    with pytest.raises(OptionError, match="given 2 and 1"):
        draw_heatmap(image, heat(), ["a", "b"], [0], tmp_path / "no.png")
