"""Tiles: nets that look no further than the overlap allows answer as if they saw the whole."""

import gc
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hubel.errors import ModelError, OptionError
from hubel.models.tiles import Tiled, Tiles, bands, blocks, pieces, probabilities

SHAPES = st.tuples(st.integers(3, 61), st.integers(3, 61))


@st.composite
def tilings(draw, reach=0):
    """Tiles whose cuts a net that sees `reach` pixels around each one does not notice."""
    overlap = draw(st.integers(4 * reach, 4 * reach + 9))
    window = overlap + draw(st.integers(1, 17))
    return Tiles(window, overlap, draw(st.sampled_from([0, *range(max(reach, 1), 7)])))


def conv(size, mode="zeros"):
    torch.manual_seed(size)
    return nn.Conv2d(2, 3, size, padding=size // 2, padding_mode=mode).eval()


def picture(shape):
    return torch.randn(1, 2, *shape, generator=torch.Generator().manual_seed(7))


def far(net, shape, tiles):
    """The largest difference of probabilities, tiled and whole."""
    images = picture(shape)
    with torch.no_grad():
        found = Tiled(net, tiles, whole=0)(images)
        assert found.shape == (1, 3, *shape)
        return (found.exp() - net(images).softmax(dim=1)).abs().max().item()


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(1, 61), st.integers(1, 61)), tilings())
def test_a_net_that_sees_one_pixel_answers_as_on_the_whole(shape, tiles):
    assert far(conv(1), shape, tiles) < 2e-6


@settings(max_examples=40, deadline=None)
@given(SHAPES, tilings(reach=1))
def test_so_does_one_of_3x3_with_mirrored_borders(shape, tiles):
    assert far(conv(3, "reflect"), shape, tiles) < 2e-6


@settings(max_examples=40, deadline=None)
@given(SHAPES, tilings(reach=2))
def test_and_one_of_5x5_with_zeros_where_borders_are_left_to_it(shape, tiles):
    assert far(conv(5), shape, Tiles(tiles.window, tiles.overlap, 0)) < 2e-6


def test_too_small_an_overlap_is_noticed():
    """The test above would see it: 5x5 sees two pixels, an overlap of 7 keeps one of them out."""
    assert far(conv(5), (40, 40), Tiles(16, 7, 0)) > 1e-3
    assert far(conv(5), (40, 40), Tiles(16, 8, 0)) < 2e-6


def test_weights_by_hand():
    """14 pixels, windows of 8 that share two: overlaps of 8 - 6 = 2 have no quarter to leave out,
    so the weights go 2/3, 1/3 in them and are 1 elsewhere."""
    first, second = pieces(14, Tiles(8, 2, 0))
    assert (first.first, first.last, second.first, second.last) == (0, 8, 6, 14)
    expected = torch.tensor([1, 1, 1, 1, 1, 1, 2 / 3, 1 / 3])
    torch.testing.assert_close(first.share, expected)
    torch.testing.assert_close(second.share, expected.flip(0))


def test_a_quarter_of_the_overlap_counts_for_nothing():
    """Overlap 8: two pixels of nothing at the edge, then 1/5, 2/5, 3/5, 4/5, then all."""
    first, _ = pieces(24, Tiles(16, 8, 0))
    expected = torch.tensor([1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0])
    torch.testing.assert_close(first.share[8:], expected)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), tilings())
def test_pieces_share_every_pixel_out(length, tiles):
    found = pieces(length, tiles)
    total = torch.zeros(length)
    for piece in found:
        assert len(piece.share) == piece.last - piece.first
        assert piece.stop - piece.start <= tiles.window
        assert piece.share.min() >= 0
        total[piece.first : piece.last] += piece.share
    torch.testing.assert_close(total, torch.ones(length))
    for one, other in itertools.pairwise(found):
        assert one.start < other.start
        assert one.stop - other.start >= tiles.overlap


class Sizes(nn.Module):
    """Keeps the shape of all it was shown; knows nothing."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(tuple(images.shape))
        return images[:, :1].expand(-1, 2, -1, -1) * 0


def test_small_images_are_taken_whole_and_large_ones_one_window_at_a_time():
    net = Sizes()
    Tiled(net, Tiles(8, 2, 1), whole=100)(torch.zeros(3, 1, 10, 10))
    assert net.seen == [(3, 1, 10, 10)]
    net.seen.clear()
    Tiled(net, Tiles(8, 2, 1), whole=100)(torch.zeros(2, 1, 5, 21))
    assert net.seen == [(1, 1, 7, 8)] * 8  # 5 + 2 rows fit; 21 + 2 columns are 4 windows of 8


def test_mirrored_borders_by_hand():
    """A window of 4 over five pixels with one of reflection: 1 0 1 2 and 2 3 4 3 and between."""
    seen = []

    def keep(window):
        seen.append(window[0, 0, 0].tolist())
        return torch.ones(1, 1, *window.shape[2:])

    image = torch.arange(5.0).view(1, 1, 5)
    list(blocks(keep, image, Tiles(4, 1, 1)))
    assert seen == [[1, 0, 1, 2], [2, 3, 4, 3]]


def test_bands_come_in_order_and_hold_what_is_read():
    image = picture((37, 29))[0]
    net = conv(1)

    def chances(window):
        return net(window).softmax(dim=1)

    def labels(block):
        return block.argmax(dim=0).to(torch.uint8)

    with torch.no_grad():
        found = list(bands(chances, image, Tiles(11, 3, 2), labels))
        assert len(found) > 3
        assert all(band.dtype == torch.uint8 and band.shape[1] == 29 for band in found)
        assert torch.cat(found).equal(net(image[None])[0].argmax(dim=0).to(torch.uint8))


def test_of_a_tall_image_no_more_than_a_line_of_windows_lives():
    """40 lines of windows of 1 x 5 x 16 x 16; the whole would be 400 rows."""
    image, tiles = torch.zeros(1, 400, 16), Tiles(16, 6, 0)
    found = bands(lambda x: torch.ones(1, 5, *x.shape[2:]), image, tiles, first_map)
    alive = [rows_alive() for number, _ in enumerate(found) if number % 8 == 0]
    assert len(alive) == 5
    assert 6 <= max(alive) < 50  # one window, and what the next one overlaps


def rows_alive():
    """Rows of 5 x 16 numbers that some tensor keeps in memory."""
    found = {}
    for x in gc.get_objects():
        if type(x) is torch.Tensor and x.ndim == 3 and x.shape[::2] == (5, 16):
            storage = x.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values()) / (5 * 16 * 4)


def first_map(block):
    return block[0].clone()


def test_what_a_net_may_return():
    small = torch.randn(2, 3, 4, 5)
    found = probabilities({"logits": small, "aux1": small}, (8, 10))
    larger = nn.functional.interpolate(small, (8, 10), mode="bilinear").softmax(dim=1)
    torch.testing.assert_close(found, larger)
    with pytest.raises(
        ModelError, match=r"logits \(N, classes, H, W\); it returned shape \(2, 3\)"
    ):
        probabilities(torch.zeros(2, 3), (8, 10))
    with pytest.raises(ModelError, match="it returned a str"):
        probabilities("nothing", (8, 10))


def test_a_vanished_probability_keeps_a_finite_logarithm():
    net = Sizes()
    net.forward = lambda x: torch.cat([x * 0, x * 0 - 500], dim=1)
    found = Tiled(net, Tiles(8, 2, 1), whole=0)(torch.zeros(1, 1, 9, 9))
    assert found.isfinite().all()
    assert found[0, 1].max() < -80


@pytest.mark.parametrize("words", [(8, 8, 0), (8, -1, 0), (8, 2, -1), (0, 0, 0)])
def test_tiles_that_cannot_be(words):
    with pytest.raises(OptionError, match="overlap must be 0 or more and less than the window"):
        Tiles(*words)
