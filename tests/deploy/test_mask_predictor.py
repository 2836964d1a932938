"""Masks of files: each pixel where it belongs, whatever the fit, the size and the file."""

import json
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import nn

from hubel.data.preprocess import Preprocess
from hubel.deploy import mask_predictor
from hubel.deploy.mask_files import MaskFolder
from hubel.deploy.mask_predictor import MaskPredictor
from hubel.models.tiles import Tiles
from hubel.runs.weights import Card

CPU = torch.device("cpu")
BORDERS = (59.5, 159.5)  # of brightness: dark, middle, bright


def card(fit="same", channels=1, height=16, width=24):
    way = Preprocess(channels, height, width, fit, (0.0,) * channels, (1.0,) * channels)
    return Card(None, ("dark", "middle", "bright"), way, task="segment")


class Shade(nn.Module):
    """Dark below 59.5, bright above 159.5, middle between; of the first channel, sure of it."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, x):
        self.sizes.append(tuple(x.shape))
        grey = 255 * x[:, :1]
        low, high = BORDERS
        return torch.cat([low - grey, torch.minimum(grey - low, high - grey), grey - high], dim=1)


def shades(grey):
    return np.digitize(grey, BORDERS).astype(np.uint8)


def photo(path, shape, seed=0):
    """Grey noise that keeps away from the borders between shades."""
    levels = np.array([20, 100, 220], np.uint8)
    pixels = levels[np.random.default_rng(seed).integers(0, 3, shape)]
    Image.fromarray(pixels).save(path)
    return pixels


def test_masks_in_the_order_asked_with_their_shares(tmp_path):
    sizes = {"c.png": (11, 17), "a.png": (1, 1), "b.png": (29, 5)}
    pixels = {name: photo(tmp_path / name, size) for name, size in sizes.items()}
    (tmp_path / "broken.png").write_text("no picture")
    files = [tmp_path / name for name in ("c.png", "broken.png", "a.png", "b.png")]
    found = MaskPredictor(Shade(), card(), CPU)(files)
    assert [answer.file for answer in found] == [str(file) for file in files]
    for answer, file in zip(found, files, strict=True):
        if file.name == "broken.png":
            assert "the file holds text" in answer.error
            assert answer.mask is None
            assert answer.to_json().keys() == {"file", "error"}
            continue
        expected = shades(pixels[file.name])
        assert answer.size == expected.shape == sizes[file.name]
        np.testing.assert_array_equal(answer.mask, expected)
        shares = [(expected == k).mean() for k in range(3)]
        assert list(answer.areas.values()) == pytest.approx(shares)
        largest = [share for _, share in answer.largest]
        assert largest == sorted(largest, reverse=True)
        record = json.loads(json.dumps(answer.to_json()))
        assert record.keys() == {"file", "height", "width", "areas"}
    assert found[2].largest == ((found[2].largest[0][0], 1.0),)


def test_large_images_by_tiles_and_small_ones_whole(tmp_path):
    pixels = photo(tmp_path / "a.png", (75, 91))
    photo(tmp_path / "small.png", (30, 33))
    net = Shade()
    predictor = MaskPredictor(net, card(), CPU, tiles=Tiles(32, 8, 3), whole=1000)
    said = []
    (found, _) = predictor.stream(
        [tmp_path / "a.png", tmp_path / "small.png"], keep=True, told=lambda *e: said.append(e)
    )
    np.testing.assert_array_equal(found.mask, shades(pixels))
    assert max(net.sizes) == (1, 1, 32, 32)
    assert len(net.sizes) == 4 * 4 + 1  # 75 + 6 and 91 + 6 pixels are 4 windows of 32 each
    assert said[0] == ("predicting", 0, 2)
    assert said[-1] == ("predicting", 2, 2)
    assert [of for text, _, of in said if text == "labelling a.png"] == [75] * 4
    assert ("labelling a.png", 75, 75) in said


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("whole", [0, 1 << 20])
def test_channels_are_those_of_the_net(channels, whole, tmp_path):
    colour = np.stack([photo(tmp_path / "x.png", (40, 50), seed) for seed in range(3)], axis=-1)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    grey = photo(tmp_path / "grey.png", (40, 50))
    predictor = MaskPredictor(Shade(), card(channels=channels), CPU, tiles=Tiles(16, 4, 2),
                              whole=whole)  # fmt: skip
    one, other = predictor([tmp_path / "colour.png", tmp_path / "grey.png"])
    luma = np.asarray(Image.fromarray(colour).convert("L"))
    np.testing.assert_array_equal(one.mask, shades(luma if channels == 1 else colour[..., 0]))
    np.testing.assert_array_equal(other.mask, shades(grey))


@pytest.mark.parametrize("fit", ["stretch", "pad"])
@pytest.mark.parametrize("shape", [(48, 72), (31, 90), (8, 12), (7, 3)])
def test_masks_have_the_size_of_their_image(fit, shape, tmp_path):
    """Three broad stripes, so that all but their seams survive the way to 16 x 24 and back."""
    grey = np.repeat(np.array([20, 100, 220], np.uint8), -(-shape[0] // 3))[: shape[0], None]
    Image.fromarray(np.repeat(grey, shape[1], axis=1)).save(tmp_path / "x.png")
    net = Shade()
    (found,) = MaskPredictor(net, card(fit), CPU)([tmp_path / "x.png"])
    assert net.sizes == [(1, 1, 16, 24)]
    assert found.mask.shape == shape
    expected = shades(np.repeat(grey, shape[1], axis=1))
    middle = np.diff(expected[:, 0], prepend=expected[0, 0], append=expected[-1, 0])
    near = np.flatnonzero(middle[:-1] | middle[1:])
    reach = -(-shape[0] // 12) + 1  # two pixels of the small mask
    sure = [row for row in range(shape[0]) if all(abs(row - edge) > reach for edge in near)]
    np.testing.assert_array_equal(found.mask[sure], expected[sure])


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_few_classes_at_a_time_say_the_same(fit, tmp_path, monkeypatch):
    class Noise(nn.Module):
        def forward(self, x):
            z = torch.randn(1, 7, *x.shape[2:], generator=torch.Generator().manual_seed(3))
            z[:, 5] = z[:, 2]  # a tie all over: the first wins
            return z

    photo(tmp_path / "x.png", (50, 40))
    way = card(fit)
    predictor = MaskPredictor(Noise(), way, CPU)
    chances = Noise()(torch.zeros(1, 1, 16, 24)).softmax(dim=1)
    expected = way.preprocess.restore(chances, (50, 40))[0].argmax(dim=0)
    names = tuple("abcdefg")
    monkeypatch.setattr(predictor, "card", Card(None, names, way.preprocess, task="segment"))
    np.testing.assert_array_equal(predictor([tmp_path / "x.png"])[0].mask, expected)
    monkeypatch.setattr(mask_predictor, "MAPS", 4 * 50 * 40 * 2)
    np.testing.assert_array_equal(predictor([tmp_path / "x.png"])[0].mask, expected)


def test_views_and_refining_reach_the_answer(tmp_path):
    class Left(nn.Module):
        """Says "bright" of the left third."""

        def forward(self, x):
            z = torch.zeros(len(x), 3, *x.shape[2:])
            z[:, 2, :, : x.shape[3] // 3] = 4
            z[:, 1] = 0.5
            return z

    Image.fromarray(np.full((12, 30), 99, np.uint8)).save(tmp_path / "x.png")
    masks = {
        word: MaskPredictor(Left(), card(), CPU, **word_of)([tmp_path / "x.png"])[0].mask
        for word, word_of in {
            "plain": {}, "flip": {"tta": "flip"}, "even": {"refine": "superpixels"},
        }.items()
    }  # fmt: skip
    assert (masks["plain"][:, :10] == 2).all()
    assert (masks["plain"][:, 10:] == 1).all()
    assert (masks["flip"] == masks["flip"][:, ::-1]).all()
    assert (masks["flip"][:, 20:] == 2).all()
    assert len(np.unique(masks["even"])) == 1  # one grey, one piece


def test_written_where_asked(tmp_path):
    pixels = photo(tmp_path / "a.png", (75, 91))
    (tmp_path / "broken.png").write_bytes(b"")
    predictor = MaskPredictor(Shade(), card(), CPU, tiles=Tiles(32, 8, 3), whole=1000)
    out = tmp_path / "masks"
    whole, broken = predictor([tmp_path / "a.png", tmp_path / "broken.png"], out=out)
    with Image.open(whole.mask_file) as mask:
        np.testing.assert_array_equal(np.asarray(mask), shades(pixels))
        assert mask.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]  # VOC's
    assert Image.open(whole.overlay_file).size == (91, 75)
    assert broken.mask_file is None
    assert {path.name for path in out.iterdir()} == {"a.png", "a.overlay.jpg", "classes.txt"}
    (plain,) = predictor([tmp_path / "a.png"], out=tmp_path / "plain", overlays=False)
    assert plain.overlay_file is None
    assert len(list((tmp_path / "plain").iterdir())) == 2
    (kept,) = predictor.stream([tmp_path / "a.png"], MaskFolder(tmp_path / "two", card()))
    assert kept.mask is None
    assert kept.to_json()["mask"] == str(tmp_path / "two" / "a.png")


# Large images -------------------------------------------------------------------------------------


def large(path, height, width):
    """Broad bands of the three shades, across and down; and the mask."""
    down, across = np.arange(height) // 700 % 3, np.arange(width) // 900 % 3
    shade = (down[:, None].astype(np.uint8) + across.astype(np.uint8)) % np.uint8(3)
    Image.fromarray(np.array([20, 100, 220], np.uint8)[shade]).save(path, compress_level=1)
    return shade


def test_an_image_of_60_million_pixels(tmp_path):
    expected = large(tmp_path / "large.png", 3000, 20_000)
    start = time.perf_counter()
    predictor = MaskPredictor(Shade(), card(), CPU)
    (found,) = predictor.stream([tmp_path / "large.png"], tmp_path / "out")
    print(f"{time.perf_counter() - start:.1f} s")
    with open_large(found.mask_file) as mask:
        np.testing.assert_array_equal(np.asarray(mask), expected)
    with Image.open(found.overlay_file) as picture:
        assert picture.size == (4000, 600)


LARGE = """
import re, sys
sys.path.insert(0, {tests!r})
from test_mask_predictor import CPU, MaskPredictor, Shade, card
from pathlib import Path
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
(found,) = MaskPredictor(Shade(), card(), CPU).stream([Path({file!r})], {out!r})
print(found.error, found.areas, file=sys.stderr)
print(peak() - before)
"""


@pytest.mark.slow
def test_an_image_of_400_million_pixels_in_bounded_memory(tmp_path):
    """K maps of it in float32 would be 4.8 GB, one copy of its pixels is 0.4 GB."""
    if psutil.virtual_memory().available < 6e9 or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and 6 GB of free memory")
    expected = large(tmp_path / "large.png", 20_000, 20_000)
    script = LARGE.format(
        tests=str(__file__).rpartition("/")[0],
        file=str(tmp_path / "large.png"),
        out=str(tmp_path / "out"),
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    kilobytes = int(done.stdout)
    print(f"{time.perf_counter() - start:.0f} s, {kilobytes / 1e6:.2f} GB", done.stderr)
    with open_large(tmp_path / "out" / "large.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), expected)
    assert kilobytes < 2.5e6


def open_large(path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        return Image.open(path)


def test_more_than_memory_holds_is_refused_in_words(tmp_path, monkeypatch):
    photo(tmp_path / "x.png", (60, 50))
    monkeypatch.setattr(mask_predictor, "MAX_PIXELS", 1000)
    monkeypatch.setattr("hubel.data.decode.MAX_PIXELS", 1000)
    free = psutil.virtual_memory()._replace(available=20_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    (found,) = MaskPredictor(Shade(), card(), CPU)([tmp_path / "x.png"])
    assert "50 x 60 pixels, at most 2,000 are decoded" in found.error
