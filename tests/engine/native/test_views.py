"""Views of images against NumPy's slices, and pixel by pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hubel.engine.native.views import views
from hubel.errors import ModelError


def made(count=5, c=1, h=4, w=6, n=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, c, h, w), dtype=torch.uint8, generator=draw)
    rows = torch.randint(0, count, (n,), generator=draw)
    moves = torch.zeros(4, n, dtype=torch.int64)
    return images, rows, moves, torch.randn(c, 257, generator=draw)


def pixel_by_pixel(images, rows, moves, values):
    found = torch.empty(len(rows), *images.shape[1:])
    h, w = found.shape[2:]
    for (i, channel, y, x), _ in np.ndenumerate(found.numpy()):
        down, across, turned, mirrored = moves[:, i].tolist()
        line = (h - 1 - y if turned else y) + down
        column = (w - 1 - x if mirrored else x) + across
        inside = 0 <= line < h and 0 <= column < w
        byte = int(images[rows[i], channel, line, column]) if inside else 256
        found[i, channel, y, x] = values[channel, byte]
    return found


@given(
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 19),
    st.integers(1, 5),
    st.integers(0, 25),
    st.integers(0, 1000),
)
def test_views_are_what_they_say(c, h, w, n, reach, seed):
    images, rows, moves, values = made(4, c, h, w, n, seed)
    draw = torch.Generator().manual_seed(seed + 1)
    moves[:2] = torch.randint(-reach, reach + 1, (2, n), generator=draw)
    moves[2:] = torch.randint(0, 2, (2, n), generator=draw)
    expected = pixel_by_pixel(images, rows, moves, values)
    assert views(images, rows, moves, values).equal(expected)


def test_still_images_are_looked_up():
    images, rows, moves, values = made(count=300, c=3, h=32, w=31, n=700)
    found = views(images, rows, moves, values).numpy()
    for channel in range(3):
        looked_up = values[channel].numpy()[images[rows, channel].numpy()]
        np.testing.assert_array_equal(found[:, channel], looked_up)


def test_no_rows_give_no_views():
    images, rows, moves, values = made(n=0)
    assert views(images, rows, moves, values).shape == (0, 1, 4, 6)


def test_tables_that_are_views_themselves():
    images, rows, moves, values = made(c=3, n=6)
    moves[0] = torch.arange(6) - 3
    expected = pixel_by_pixel(images, rows, moves, values)
    scattered = rows.repeat_interleave(2)[::2], moves.T.contiguous().T, values.T.contiguous().T
    assert views(images, *scattered).equal(expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda i, r, m, v: (i.float(), r, m, v), "images must be uint8"),
        (lambda i, r, m, v: (i[0], r, m, v), "images must be uint8"),
        (lambda i, r, m, v: (i.mT, r, m, v), "contiguous, given"),
        (
            lambda i, r, m, v: (i, r.int(), m, v),
            r"rows must be torch.int64 \(3,\), given torch.int32",
        ),
        (lambda i, r, m, v: (i, r, m[:3], v), r"moves must be torch.int64 \(4, 3\)"),
        (lambda i, r, m, v: (i, r, m, v[:, 1:]), r"values must be torch.float32 \(1, 257\)"),
        (lambda i, r, m, v: (i, r + 5, m, v), "rows must lie from 0 to 4"),
        (lambda i, r, m, v: (i, r - 5, m, v), "rows must lie from 0 to 4"),
    ],
)
def test_what_cannot_be_viewed_is_refused(change, words):
    with pytest.raises(ModelError, match=words):
        views(*change(*made()))
