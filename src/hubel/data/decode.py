"""One image file to pixels: uint8 (C, H, W), whatever its format, mode, depth or rotation.

Files are not trusted. A size is read from the header before a pixel is, only formats that Pillow
reads by itself are opened (no EPS, which would run Ghostscript), and whatever goes wrong becomes
one `BrokenImage` that says why in words. Nothing here is shared between threads.
"""

from __future__ import annotations

import contextlib
import string
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hubel.errors import BrokenImage

# Pillow refuses images above twice its MAX_IMAGE_PIXELS; the same number here holds where a
# program has switched that guard off.
MAX_PIXELS = 178_956_970
STRIP = 1 << 24  # pixels of a larger image that are converted at a time

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
ALLOWED = "PNG, JPEG, WebP, GIF, BMP, TIFF, PPM, AVIF, JPEG 2000"
_SUFFIXES = ".png .jpg .jpeg .jpe .jfif .webp .gif .bmp .tif .tiff .ppm .pgm .pbm .pnm .avif .jp2"
SUFFIXES = frozenset(_SUFFIXES.split())

GREY_MODES = frozenset(["1", "L", "LA", "La", "I", "F"])  # and every "I;16..."
SIXTEEN_BIT_FORMATS = frozenset(["PNG", "PPM"])  # whose mode I (32 bits) holds 0..65535

ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(
    source: Path | bytes,
    where: str | None = None,
    *,
    largest: int | None = None,
    most: int | None = None,
) -> NDArray[np.uint8]:
    """The pixels of one image, upright, on white where it is transparent, first frame only.

    16-bit grey is scaled by 1/257; float images are taken as 0..1. Colours of any kind (palette,
    CMYK, YCbCr) become RGB.

    Args:
        source: a path, or the file's bytes.
        where: how a message names the image; the path if None.
        largest: the greatest height or width, in pixels, that is needed. A JPEG is then decoded
            at 1/2, 1/4 or 1/8 of its size as long as both sides stay at least this long.
        most: pixels that an image may have instead of the usual number. Decoding larger ones
            takes 8 bytes a pixel (4 Pillow's own, 3 of the result), 12 where they are rotated;
            TIFF and WebP stay at Pillow's limit.

    Returns:
        uint8 (C, H, W), C = 1 for grey and 3 for RGB; contiguous and writable.

    Raises:
        BrokenImage: the file is missing, empty, damaged, truncated, no image, of an unknown
            format, or larger than 178,956,970 pixels, or `most`.
    """
    with opened(source, where, most) as picture:
        if largest is not None:
            picture.draft(None, (largest, largest))
        picture.load()
        orientation = orientation_of(picture)
        upright = picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture
        if upright.width * upright.height > MAX_PIXELS:
            return _by_strips(upright, picture.format)
        pixels = _pixels(upright, picture.format)
    if pixels.ndim == 2:
        return pixels[None]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def size_of(path: Path, where: str | None = None) -> tuple[int, int, int]:
    """(channels, height, width) as `decode` would give them, read from the header alone.

    Raises `BrokenImage` where the header cannot be read.
    """
    with opened(path, where) as picture:
        width, height = picture.size
        if orientation_of(picture) in (5, 6, 7, 8) and picture.format != "TIFF":
            width, height = height, width  # Pillow has turned a TIFF's size already
        return (1 if _is_grey(picture.mode) else 3), height, width


def is_image_name(name: str) -> bool:
    """Whether a file's name ends like that of an image."""
    return PurePath(name).suffix.lower() in SUFFIXES


@contextmanager
def opened(
    source: Path | bytes, where: str | None, most: int | None = None
) -> Iterator[Image.Image]:
    """The image with its header read; all that fails inside the block becomes `BrokenImage`."""
    name = where or ("image" if isinstance(source, bytes) else str(source))
    stream = BytesIO(source) if isinstance(source, bytes) else source
    try:
        with _open(stream, most or MAX_PIXELS) as picture:
            _check_size(picture, most or MAX_PIXELS)
            yield picture
    except UnidentifiedImageError:
        raise BrokenImage(name, _why_unknown(source)) from None
    except Image.DecompressionBombError:
        raise BrokenImage(name, f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise BrokenImage(name, _in_words(error)) from None


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _open(stream: BytesIO | Path, most: int) -> Image.Image:
    """Pillow's `open`; for more pixels than it allows, the same without its guard, which is one
    number for the whole program."""
    if most <= MAX_PIXELS:
        return Image.open(stream, formats=_formats())
    head = _head(stream) if isinstance(stream, Path) else stream.getvalue()[:512]
    for name in _formats():
        plugin: tuple[Any, Any] = Image.OPEN[name]
        factory, accept = plugin  # paths are taken too, whatever the stubs say
        known = accept is None or accept(head)
        if known and not isinstance(known, str):  # a string says why this Pillow cannot read it
            with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):
                picture: Image.Image = factory(stream, "")
                return picture
    raise UnidentifiedImageError


def _check_size(picture: Image.Image, most: int) -> None:
    width, height = picture.size
    if width * height > most:
        raise ValueError(f"{width} x {height} pixels, at most {most:,} are decoded")


def orientation_of(picture: Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8; 1 where the tag is absent or unreadable."""
    if picture.format == "PNG" and "exif" not in picture.info:
        return 1  # asking would decode the whole image
    try:
        return int(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # a damaged EXIF block does not make the pixels bad
        return 1


def _is_grey(mode: str) -> bool:
    return mode in GREY_MODES or mode.startswith("I;16")


def _pixels(picture: Image.Image, file_format: str | None) -> NDArray[np.uint8]:
    """uint8 (H, W) or (H, W, 3) of an upright picture."""
    mode = picture.mode
    if mode.startswith("I;16") or (mode == "I" and file_format in SIXTEEN_BIT_FORMATS):
        return _from_sixteen_bits(np.asarray(picture))
    if mode == "I":
        raise ValueError("32-bit integers have no fixed scale; save it with 8 or 16 bits")
    if mode == "F":
        return _from_floats(np.asarray(picture))
    if picture.has_transparency_data:
        return _on_white(np.asarray(picture.convert("LA" if _is_grey(mode) else "RGBA")))
    return np.array(picture.convert("L" if _is_grey(mode) else "RGB"))


def _by_strips(picture: Image.Image, file_format: str | None) -> NDArray[np.uint8]:
    """uint8 (C, H, W) of an upright picture too large to be copied whole a few times over."""
    width, height = picture.size
    found = np.empty((1 if _is_grey(picture.mode) else 3, height, width), np.uint8)
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        strip = picture.crop((0, top, width, min(top + rows, height)))
        pixels = np.atleast_3d(_pixels(strip, file_format))
        found[:, top : top + rows] = pixels.transpose(2, 0, 1)
    return found


def _from_sixteen_bits(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    """0..65535 to 0..255, rounded: 65535 / 255 = 257."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_floats(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 1:  # NaN fails this too
        raise ValueError(f"float pixels from {low:.6g} to {high:.6g}; allowed: 0 to 1")
    return np.round(values * 255).astype(np.uint8)


def _on_white(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Composite (H, W, c + alpha) on white, rounded: (c a + 255 (255 - a)) / 255."""
    alpha = values[..., -1:].astype(np.uint16)
    mixed = (values[..., :-1] * alpha + 255 * (255 - alpha) + 127) // 255  # at most 65,152
    return (mixed[..., 0] if mixed.shape[-1] == 1 else mixed).astype(np.uint8)


def _why_unknown(source: Path | bytes) -> str:
    """What a file that no decoder knows seems to be."""
    head = source[:512] if isinstance(source, bytes) else _head(source)
    if not head:
        return "the file is empty (0 bytes)"
    if all(byte in string.printable.encode() for byte in head):
        return f"not an image: the file holds text (allowed: {ALLOWED})"
    return f"not an image, damaged at its start, or of another format (allowed: {ALLOWED})"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def _in_words(error: Exception) -> str:
    text = str(error).partition("\n")[0] or type(error).__name__
    match error:
        case FileNotFoundError():
            return "no such file"
        case PermissionError():
            return "the file may not be read (permission denied)"
        case IsADirectoryError():
            return "a folder, not an image"
        case MemoryError():
            return "not enough memory to decode it"
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return f"truncated: the file ends before the image does ({text})"
    return f"cannot be decoded ({text})"
