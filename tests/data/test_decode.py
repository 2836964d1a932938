"""decode: each mode, depth and rotation against Pillow or by hand; each broken file by its name."""

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, features

from hubel.data import decode as decoding
from hubel.data.decode import ORIENTATION, decode, is_image_name, size_of
from hubel.errors import BrokenImage

RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 256, (7, 11), dtype=np.uint8)  # H != W, both prime
COLOUR = RNG.integers(0, 256, (7, 11, 3), dtype=np.uint8)
RAMP = np.linspace(40, 200, 96 * 64 * 3).reshape(64, 96, 3).astype(np.uint8)  # kind to JPEG


def stored(picture, kind="PNG", **options):
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def channels_first(array):
    return np.atleast_3d(array).transpose(2, 0, 1)


def test_grey_and_rgb_come_back_bit_for_bit():
    grey = decode(stored(Image.fromarray(GREY)), "g")
    assert grey.shape == (1, 7, 11)
    np.testing.assert_array_equal(grey[0], GREY)
    colour = decode(stored(Image.fromarray(COLOUR)), "c")
    assert colour.dtype == np.uint8
    assert colour.flags.c_contiguous
    assert colour.flags.writeable
    np.testing.assert_array_equal(colour, channels_first(COLOUR))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "GIF", "JPEG2000"])
def test_formats_without_loss(kind, tmp_path):
    options = {"WEBP": {"lossless": True}, "JPEG2000": {"irreversible": False}}.get(kind, {})
    picture = Image.fromarray(COLOUR if kind != "GIF" else GREY)
    path = tmp_path / f"x.{kind}"
    picture.save(path, kind, **options)
    expected = channels_first(np.asarray(picture))
    got = decode(path)
    np.testing.assert_array_equal(got, np.broadcast_to(expected, got.shape))
    assert size_of(path) == got.shape


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read():
    got = decode(stored(Image.fromarray(RAMP), "AVIF", quality=95))
    assert got.shape == (3, 64, 96)
    assert abs(got.astype(int) - channels_first(RAMP)).mean() < 3


def test_rgba_is_laid_on_white_by_hand():
    # Opaque red stays, clear becomes white, half-clear black: (0*51 + 255*204) / 255 = 204.
    pixels = np.array([[[255, 0, 0, 255], [9, 9, 9, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    got = decode(stored(Image.fromarray(pixels)))
    np.testing.assert_array_equal(got[:, 0].T, [[255, 0, 0], [255, 255, 255], [204, 204, 204]])


def test_every_value_and_alpha_against_exact_arithmetic():
    value, alpha = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    picture = Image.fromarray(np.stack([value, alpha], 2).astype(np.uint8), "LA")
    exact = (value * alpha + 255 * (255 - alpha)) / 255
    np.testing.assert_array_equal(decode(stored(picture))[0], np.round(exact).astype(np.uint8))


def test_grey_with_alpha_stays_grey():
    assert decode(stored(Image.fromarray(GREY).convert("LA"))).shape == (1, 7, 11)


def test_palette_with_a_clear_colour():
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putdata([0, 1])
    got = decode(stored(picture, transparency=0))
    np.testing.assert_array_equal(got[:, 0].T, [[255, 255, 255], [200, 100, 50]])


def test_palette_with_alpha_for_each_colour():
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 0, 200, 100, 50])
    picture.putdata([0, 1])
    got = decode(stored(picture, transparency=bytes([51, 255])))
    np.testing.assert_array_equal(got[:, 0].T, [[204, 204, 204], [200, 100, 50]])


@pytest.mark.parametrize(("mode", "clear"), [("L", 7), ("RGB", (7, 7, 7)), ("1", 0)])
def test_one_clear_colour_without_palette(mode, clear):
    picture = Image.new(mode, (3, 2), 1 if mode == "1" else 100 if mode == "L" else (100,) * 3)
    picture.putpixel((0, 0), clear)
    got = decode(stored(picture, transparency=clear))
    assert (got[:, 0, 0] == 255).all()
    assert (got[:, 1, 1] == (255 if mode == "1" else 100)).all()


def test_one_bit():
    picture = Image.fromarray(GREY > 128)
    assert picture.mode == "1"
    np.testing.assert_array_equal(decode(stored(picture))[0], (GREY > 128) * 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(kind):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    got = decode(stored(Image.fromarray(values), kind))
    np.testing.assert_array_equal(got[0], np.round(values / 257).astype(np.uint8))


def test_sixteen_bits_big_endian_tiff():
    values = np.array([[0, 257, 65535]], dtype=np.uint16)
    header = b"MM\0*" + struct.pack(">I", 8)
    tags = [(256, 3, 3), (257, 3, 1), (258, 3, 16), (259, 3, 1), (262, 3, 1), (278, 3, 1)]
    tags += [(273, 4, 8 + 2 + 8 * 12 + 4), (279, 4, 6)]
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1)
        + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in sorted(tags)
    )
    data = header + struct.pack(">H", 8) + entries + bytes(4) + values.astype(">u2").tobytes()
    np.testing.assert_array_equal(decode(data), [[[0, 1, 255]]])


def test_float_images_run_from_0_to_1():
    values = np.array([[0, 0.25, 1]], dtype=np.float32)
    np.testing.assert_array_equal(decode(stored(Image.fromarray(values), "TIFF")), [[[0, 64, 255]]])


@pytest.mark.parametrize("bad", [1.5, -0.1, np.nan])
def test_other_floats_are_named(bad):
    values = np.array([[0, 0.25, bad]], dtype=np.float32)
    with pytest.raises(BrokenImage, match=r"scan: .*float pixels from .* allowed: 0 to 1"):
        decode(stored(Image.fromarray(values), "TIFF"), "scan")


def test_32_bit_integers_are_named():
    values = np.array([[0, 70000]], dtype=np.int32)
    with pytest.raises(BrokenImage, match="32-bit integers have no fixed scale"):
        decode(stored(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_other_colour_spaces_as_pillow_converts_them(mode):
    picture = Image.fromarray(COLOUR).convert(mode)
    expected = channels_first(np.asarray(picture.convert("RGB")))
    np.testing.assert_array_equal(decode(stored(picture, "TIFF")), expected)


def test_cmyk_jpeg():
    picture = Image.fromarray(RAMP).convert("CMYK")
    got = decode(stored(picture, "JPEG", quality=100, subsampling=0))
    expected = channels_first(np.asarray(picture.convert("RGB"))).astype(int)
    assert abs(got - expected).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_rotation(kind, orientation, tmp_path):
    picture = Image.fromarray(RAMP)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"x.{kind}"
    picture.save(path, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    with Image.open(path) as opened:
        expected = channels_first(np.asarray(ImageOps.exif_transpose(opened)))
    got = decode(path)
    np.testing.assert_array_equal(got, expected)
    assert size_of(path) == got.shape == ((3, 64, 96) if orientation < 5 else (3, 96, 64))


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_damaged_exif_does_not_harm_the_pixels(exif):
    assert decode(stored(Image.fromarray(RAMP), "JPEG", exif=exif)).shape == (3, 64, 96)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame(kind):
    frames = [Image.new("RGB", (5, 3), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = stored(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode(data)[:, 1, 1], [255, 0, 0])


def test_largest_lets_a_jpeg_decode_small():
    data = stored(Image.fromarray(np.tile(RAMP, (8, 8, 1))), "JPEG")  # 512 x 768
    assert decode(data).shape == (3, 512, 768)
    assert decode(data, largest=512).shape == (3, 512, 768)
    assert decode(data, largest=200).shape == (3, 256, 384)
    small = decode(data, largest=30)
    assert small.shape == (3, 64, 96)  # an eighth is the least
    reference = np.asarray(Image.fromarray(np.tile(RAMP, (8, 8, 1))).reduce(8))
    assert abs(small - channels_first(reference).astype(int)).mean() < 3


def test_largest_leaves_other_formats_alone():
    assert decode(stored(Image.fromarray(RAMP)), largest=8).shape == (3, 64, 96)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_size_of_agrees_with_decode(mode, tmp_path):
    picture = Image.fromarray(GREY.astype(np.uint16)) if mode == "I;16" else Image.fromarray(COLOUR)
    if mode != "I;16":
        picture = picture.convert(mode)
    picture.save(tmp_path / "x.png")
    assert size_of(tmp_path / "x.png") == decode(tmp_path / "x.png").shape


def png(width, height, *chunks):
    def chunk(kind, body):
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*c) for c in chunks) + chunk(b"IEND", b"")


def test_png_bomb_is_refused_before_a_pixel_is_decoded(tmp_path):
    rows = zlib.compress(bytes(50_001) * 1000)  # one chunk claims what 2.5 gigapixels need
    path = tmp_path / "bomb.png"
    path.write_bytes(png(50_000, 50_000, (b"IDAT", rows)))
    for read in (decode, size_of):
        with pytest.raises(BrokenImage, match=r"bomb\.png: more than 178,956,970 pixels"):
            read(path)


def test_the_limit_holds_where_pillow_has_none(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(BrokenImage, match="50000 x 50000 pixels, at most 178,956,970"):
        decode(png(50_000, 50_000), "bomb")


def test_zero_bytes(tmp_path):
    (tmp_path / "none.jpg").touch()
    with pytest.raises(BrokenImage, match=r"none\.jpg: the file is empty \(0 bytes\)"):
        decode(tmp_path / "none.jpg")
    with pytest.raises(BrokenImage, match="x: the file is empty"):
        decode(b"", "x")


def test_text_named_jpg(tmp_path):
    (tmp_path / "notes.jpg").write_text("these are\nmy notes")
    with pytest.raises(BrokenImage, match=r"not an image: the file holds text \(allowed: PNG"):
        decode(tmp_path / "notes.jpg")


def test_unknown_format():
    with pytest.raises(BrokenImage, match="not an image, damaged at its start, or of another"):
        decode(bytes(range(256)), "x")


def test_formats_that_start_programs_are_not_opened():
    with pytest.raises(BrokenImage, match="holds text"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "x")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_truncated(kind, tmp_path):
    whole = stored(Image.fromarray(np.tile(COLOUR, (9, 9, 1))), kind)
    path = tmp_path / f"half.{kind}"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BrokenImage) as caught:
        decode(path, "class/half")
    assert caught.value.where == "class/half"
    if kind in ("JPEG", "PNG"):
        assert "truncated: the file ends before the image does" in caught.value.reason


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(BrokenImage, match=r"gone\.png: no such file"):
        decode(tmp_path / "gone.png")
    with pytest.raises(BrokenImage, match="a folder, not an image"):
        decode(tmp_path)


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"]),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
)
def test_damage_gives_an_image_or_a_broken_image_and_nothing_else(kind, cut, changes):
    data = bytearray(stored(Image.fromarray(COLOUR), kind))
    for place, value in changes:
        data[int(place * len(data))] = value
    got, problem = None, ""
    try:
        got = decode(bytes(data[: int(cut * len(data)) + 1]), "x")
    except BrokenImage as error:
        problem = str(error)
    if got is None:
        assert problem.startswith("x: ")
        assert "\n" not in problem
    else:
        assert got.dtype == np.uint8
        assert got.shape[0] in (1, 3)


def test_threads_decode_alike():
    data = [stored(Image.fromarray(np.roll(COLOUR, k, 0))) for k in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for k, got in enumerate(pool.map(decode, data)):
            np.testing.assert_array_equal(got, channels_first(np.roll(COLOUR, k, 0)))


def test_names_of_images():
    assert is_image_name("a.JPG")
    assert is_image_name("b.tar.png")
    assert not is_image_name("png")
    assert not is_image_name("labels.csv")


# Larger than Pillow's guard -----------------------------------------------------------------------


@pytest.fixture
def small_guard(monkeypatch):
    """Ours and Pillow's guard at 2,000 pixels, strips of 3 rows or so."""
    monkeypatch.setattr(decoding, "MAX_PIXELS", 2000)
    monkeypatch.setattr(decoding, "STRIP", 200)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)


MANY = RNG.integers(0, 256, (53, 61, 3), dtype=np.uint8)  # 3,233 pixels


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_as_many_pixels_as_the_caller_allows(mode, tmp_path, small_guard):
    picture = Image.fromarray(MANY)
    if mode == "I;16":
        picture = Image.fromarray(MANY[..., 0].astype(np.uint16) * 257)
    elif mode != "RGB":
        picture = picture.convert(mode)
    path = tmp_path / "x.png"
    picture.save(path)
    found = decode(path, most=4000)
    assert found.flags.c_contiguous
    with unguarded(path) as picture:
        expected = decoding._pixels(picture, "PNG")
    np.testing.assert_array_equal(found, channels_first(expected))
    np.testing.assert_array_equal(decode(path.read_bytes(), most=4000), found)
    with pytest.raises(BrokenImage, match="more than 2,000 pixels"):
        decode(path)
    with pytest.raises(BrokenImage, match="61 x 53 pixels, at most 3,000 are decoded"):
        decode(path, most=3000)
    assert Image.MAX_IMAGE_PIXELS == 1000


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "PPM", "JPEG2000", "GIF"])
def test_large_images_of_other_formats(kind, tmp_path, small_guard):
    path = tmp_path / "x"
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(MANY).save(path, kind, **({"exif": exif} if kind == "JPEG" else {}))
    found = decode(path, most=1 << 20)
    assert found.shape == ((3, 61, 53) if kind == "JPEG" else (3, 53, 61))
    with unguarded(path) as picture:
        expected = ImageOps.exif_transpose(picture).convert("RGB")
    np.testing.assert_array_equal(found, channels_first(np.asarray(expected)))


def unguarded(path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        return Image.open(path)


def test_broken_files_stay_broken_where_more_is_allowed(tmp_path):
    cases = {
        b"": "the file is empty",
        b"some text": "the file holds text",
        b"\x89PNG\r\n\x1a\n" + bytes(30): "damaged at its start",
        stored(Image.fromarray(COLOUR))[:120]: "truncated",
    }
    for number, (data, words) in enumerate(cases.items()):
        path = tmp_path / str(number)
        path.write_bytes(data)
        for source in (path, data):
            with pytest.raises(BrokenImage, match=words):
                decode(source, most=1 << 30)
    with pytest.raises(BrokenImage, match="no such file"):
        decode(tmp_path / "none", most=1 << 30)
