"""Indexed PNG by bands: what Pillow reads back."""

import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from hubel.deploy.palette_png import PaletteWriter, is_ours

DRAW = np.random.default_rng(0)


def written(mask, colours, cuts=()):
    file = io.BytesIO()
    writer = PaletteWriter(file, mask.shape, colours)
    for band in np.split(mask, cuts):
        writer.rows(band)
    writer.close()
    return file.getvalue()


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (1, 13), (31, 47)])
@pytest.mark.parametrize("count", [1, 2, 19, 256])
def test_pillow_reads_indices_and_colours(shape, count):
    mask = DRAW.integers(0, count, shape, dtype=np.uint8)
    colours = [tuple(c) for c in DRAW.integers(0, 256, (count, 3)).tolist()]
    data = written(mask, colours, cuts=(shape[0] // 3, shape[0] // 2))
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert picture.mode == "P"
        assert picture.size == (shape[1], shape[0])
        assert picture.getpalette()[: 3 * count] == [part for colour in colours for part in colour]
        np.testing.assert_array_equal(np.asarray(picture), mask)
    colour = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(colour, np.array(colours, np.uint8)[mask])


def test_checksums_are_right():
    """Pillow looks at them when it verifies; one wrong bit and it complains."""
    data = bytearray(written(DRAW.integers(0, 3, (9, 9), dtype=np.uint8), [(0, 0, 0)] * 3))
    Image.open(io.BytesIO(data)).verify()
    data[data.index(b"IDAT") + 6] ^= 1
    with pytest.raises((SyntaxError, OSError)):
        Image.open(io.BytesIO(data)).verify()


def test_large_even_areas_take_little_room():
    mask = np.zeros((500, 4000), np.uint8)
    mask[100:300, 1000:2000] = 1
    assert len(written(mask, [(0, 0, 0), (255, 0, 0)], cuts=range(50, 500, 50))) < 20_000


def test_ours_are_known_and_others_are_not(tmp_path):
    ours, other, text = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"
    ours.write_bytes(written(np.zeros((3, 3), np.uint8), [(1, 2, 3)]))
    Image.new("P", (3, 3)).save(other)
    text.write_text("hubel predict")
    assert is_ours(ours)
    assert not is_ours(other)
    assert not is_ours(text)
    assert PngImagePlugin.PngImageFile(ours).text == {"Software": "hubel predict"}
