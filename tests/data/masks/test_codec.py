"""Mask files of every mode, by value and by colour, and what a bad pixel is told."""

import numpy as np
import pytest
from PIL import Image

from hubel.data.masks.classes import ClassList, Entry
from hubel.data.masks.codec import ranges, read_raw
from hubel.data.masks.scan import Seen, choose
from hubel.errors import BrokenImage

VALUES = np.array([[0, 1, 2], [2, 1, 255]], np.uint8)
COLOURS = [(0, 0, 0), (255, 0, 0), (0, 0, 255)]
NAMED = ClassList(
    tuple(Entry(n, v, c) for v, (n, c) in enumerate(zip("abc", COLOURS, strict=True))), "list"
)
PLAIN = ClassList(tuple(Entry(n, v) for v, n in enumerate("abc")), "list")


def codec_for(raw, classes, ignore=None):
    seen = Seen(masks=1)
    seen.add(raw, raw.used())
    return choose(seen, classes, ignore, "data")


def decoded(path, classes=PLAIN, ignore=None):
    raw = read_raw(path, path.name)
    return codec_for(raw, classes, ignore).translate(raw, path.name)


def saved(path, picture):
    picture.save(path)
    return path


@pytest.mark.parametrize(
    ("mode", "kind"),
    [(m, k) for k in ("png", "tif") for m in ("L", "P", "LA", "I;16", "RGB", "RGBA")]
    + [("I", "tif"), ("F", "tif"), ("P", "bmp"), ("L", "pgm")],
)
def test_values_in_every_mode(tmp_path, mode, kind):
    grey = Image.fromarray(VALUES)
    if mode == "P":
        picture = grey.copy()
        picture.putpalette(np.random.default_rng(0).bytes(768))
    elif mode == "I;16":
        picture = Image.fromarray(VALUES.astype(np.uint16))
    else:
        picture = grey.convert(mode)
    labels = decoded(saved(tmp_path / f"m.{kind}", picture))
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, VALUES)


def test_one_bit_is_black_and_white(tmp_path):
    picture = Image.fromarray(np.array([[0, 255, 255]], np.uint8)).convert("1")
    raw = read_raw(saved(tmp_path / "m.png", picture), "m.png")
    assert raw.pixels.tolist() == [[0, 255, 255]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours(tmp_path, mode):
    pixels = np.array([[COLOURS[2], COLOURS[0]], [COLOURS[1], COLOURS[2]]], np.uint8)
    picture = Image.fromarray(pixels).convert(mode)
    assert decoded(saved(tmp_path / "m.png", picture), NAMED).tolist() == [[2, 0], [1, 2]]


def test_a_transparent_pixel_counts_as_it_is_stored(tmp_path):
    pixels = np.array([[(255, 0, 0, 0), (0, 0, 255, 255)]], np.uint8)
    assert decoded(saved(tmp_path / "m.png", Image.fromarray(pixels)), NAMED).tolist() == [[1, 2]]


def test_a_palette_in_another_order_is_read_by_its_colours(tmp_path):
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    picture.putpalette(bytes([0, 0, 255, 0, 0, 0, 255, 0, 0]))
    path = saved(tmp_path / "m.png", picture)
    assert decoded(path, NAMED).tolist() == [[2, 0, 1]]
    assert decoded(path, PLAIN).tolist() == [[0, 1, 2]]


def test_masks_are_turned_upright_as_images_are(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "m.png"
    Image.fromarray(VALUES).save(path, exif=exif)
    assert np.array_equal(decoded(path), np.rot90(VALUES, -1))


def test_a_gap_in_the_indices_and_an_ignored_one(tmp_path):
    classes = ClassList((Entry("a", 7), Entry("void", 3, ignored=True), Entry("b", 200)), "list")
    path = saved(tmp_path / "m.png", Image.fromarray(np.array([[7, 3, 200, 255]], np.uint8)))
    assert decoded(path, classes).tolist() == [[0, 255, 1, 255]]


@pytest.mark.parametrize(
    ("pixels", "classes", "message"),
    [
        (
            [[0, 1], [3, 2]],
            PLAIN,
            r"m\.png: value 3 at row 1, column 0 is no class; allowed: 0\.\.2"
            r", ignored: 255 \(list\)",
        ),
        (
            [[[0, 0, 0], [0, 0, 9]]],
            NAMED,
            r"colour #000009 at row 0, column 1 is no class; allowed: #000000, #0000ff, "
            r"#ff0000 \(list",
        ),
    ],
)
def test_a_bad_pixel_is_named(tmp_path, pixels, classes, message):
    path = saved(tmp_path / "m.png", Image.fromarray(np.array(pixels, np.uint8)))
    with pytest.raises(BrokenImage, match=message):
        decoded(path, classes)


def test_values_beyond_a_byte_are_named(tmp_path):
    path = saved(tmp_path / "m.png", Image.fromarray(np.array([[0, 4000]], np.uint16)))
    with pytest.raises(BrokenImage, match="value 4000 at row 0, column 1 is no class"):
        decoded(path)


def test_floats_must_be_whole(tmp_path):
    path = saved(tmp_path / "m.tif", Image.fromarray(np.array([[0, 0.5]], np.float32)))
    with pytest.raises(BrokenImage, match="mask values must be whole numbers"):
        read_raw(path, "m.tif")


def test_jpeg_is_refused(tmp_path):
    path = saved(tmp_path / "m.jpg", Image.fromarray(VALUES))
    with pytest.raises(BrokenImage, match=r"m\.jpg: a JPEG: its compression changes labels .* PNG"):
        read_raw(path, "m.jpg")


def test_a_file_that_is_no_image(tmp_path):
    (tmp_path / "m.png").write_text("text")
    with pytest.raises(BrokenImage, match="not an image: the file holds text"):
        read_raw(tmp_path / "m.png", "m.png")
    with pytest.raises(BrokenImage, match="no such file"):
        read_raw(tmp_path / "none.png", "none.png")


def test_ranges():
    assert ranges([]) == ""
    assert ranges([4]) == "4"
    assert ranges([0, 1, 2, 5, 7, 8]) == "0..2, 5, 7..8"


def test_more_than_eight_colours_are_counted():
    entries = tuple(Entry(str(n), n, (n, n, 0)) for n in range(11))
    codec = choose(Seen(), ClassList(entries, "list"), None, "data")
    assert codec.allowed("colour").endswith("#070700 and 3 more")
