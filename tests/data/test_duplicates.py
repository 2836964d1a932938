"""Exact and near copies: by definition, by brute force, on real photos and Fashion-MNIST."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageEnhance
from real_data import REAL

from hubel.data.decode import decode
from hubel.data.duplicates import LIMIT, exact_duplicates, near_duplicates, thumbnail
from hubel.data.idx import read_idx_folder

FASHION = Path("/usr/share/datasets/fashion-mnist")


def brute_force(thumbnails: np.ndarray, limit: float) -> dict[tuple[int, int], float]:
    """Every pair, in float64, by the definition: RMS difference at mean 0 and deviation 1."""
    flat = thumbnails.reshape(len(thumbnails), -1).astype(float)
    kept = np.flatnonzero(flat.std(1) >= 2)
    unit = (flat - flat.mean(1, keepdims=True)) / np.maximum(flat.std(1, keepdims=True), 1e-9)
    pairs = {}
    for place, i in enumerate(kept):
        for j in kept[place + 1 :]:
            distance = np.sqrt(((unit[i] - unit[j]) ** 2).mean())
            if distance <= limit:
                pairs[int(i), int(j)] = distance
    return pairs


def blobs(count: int, seed: int = 0) -> np.ndarray:
    """Soft random pictures, (count, 32, 32), of which many lie near to each other."""
    rng = np.random.default_rng(seed)
    bases = rng.normal(size=(count // 4, 6, 6))
    weights = (
        rng.normal(scale=0.04, size=(count, 6, 6)) + bases[rng.integers(count // 4, size=count)]
    )
    smooth = [Image.fromarray(w).resize((32, 32), Image.Resampling.BICUBIC) for w in weights]
    return np.stack([np.clip(128 + 40 * np.asarray(s), 0, 255) for s in smooth]).astype(np.uint8)


@given(arrays(np.uint64, st.integers(0, 40), elements=st.integers(0, 9)))
def test_exact_groups_are_the_rows_of_each_repeated_hash(hashes: np.ndarray) -> None:
    expected = [np.flatnonzero(hashes == h).tolist() for h in dict.fromkeys(hashes.tolist())]
    found = [group.tolist() for group in exact_duplicates(hashes)]
    assert found == [group for group in expected if len(group) > 1]


@pytest.mark.parametrize("limit", [0.05, 0.1, 0.3])
def test_no_pair_within_the_limit_is_missed(limit: float) -> None:
    thumbnails = blobs(200)
    pairs, distances = near_duplicates(thumbnails, limit=limit)
    expected = brute_force(thumbnails, limit)
    assert {tuple(pair) for pair in pairs.tolist()} == set(expected)
    assert len(expected) > 10
    for pair, distance in zip(pairs.tolist(), distances, strict=True):
        assert distance == pytest.approx(expected[tuple(pair)], abs=1e-4)
    assert (np.diff(distances) >= 0).all()


def test_tiles_meet_at_their_borders(monkeypatch: pytest.MonkeyPatch) -> None:
    thumbnails = blobs(150)
    whole = near_duplicates(thumbnails, limit=0.2)[0].tolist()
    monkeypatch.setattr("hubel.data.duplicates.TILE", 7)
    assert near_duplicates(thumbnails, limit=0.2)[0].tolist() == whole


def test_parts_limit_the_pairs_to_those_across() -> None:
    thumbnails, parts = blobs(120), np.arange(120) % 3
    pairs, _ = near_duplicates(thumbnails, parts=parts, limit=0.2)
    every, _ = near_duplicates(thumbnails, limit=0.2)
    across = every[parts[every[:, 0]] != parts[every[:, 1]]]
    assert 0 < len(across) < len(every)
    assert pairs.tolist() == across.tolist()


def test_flat_thumbnails_are_passed_over_and_small_sets_are_fine() -> None:
    flat = np.full((5, 32, 32), 90, np.uint8)
    assert len(near_duplicates(flat)[0]) == 0
    assert near_duplicates(flat[:0])[0].shape == (0, 2)
    assert len(near_duplicates(blobs(4)[:1])[0]) == 0
    both = np.concatenate([flat, blobs(4)[:1], blobs(4)[:1]])
    assert near_duplicates(both)[0].tolist() == [[5, 6]]


def test_brightness_and_contrast_make_no_distance() -> None:
    picture = blobs(4)[0] // 2
    pairs, distances = near_duplicates(np.stack([picture, picture * 2, picture + 60]))
    assert len(pairs) == 3
    assert distances.max() < 1e-3


def test_the_search_ends_at_most_pairs() -> None:
    same = np.repeat(blobs(4)[:1], 60, axis=0)
    assert len(near_duplicates(same, most=100)[0]) == 100


def test_thumbnails_weigh_every_pixel() -> None:
    checks = np.indices((320, 640)).sum(0) % 2 * 200
    assert np.ptp(thumbnail(checks[None].astype(np.uint8))) <= 2
    red = np.zeros((3, 64, 64), np.uint8)
    red[0] = 255
    assert thumbnail(red).shape == (32, 32)
    assert (thumbnail(red) == round(0.299 * 255)).all()


# ---------------------------------------------------------------- real images


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file)


COPIES = {
    "saved again": lambda p: jpeg(p, 50),
    "half size": lambda p: p.resize((p.width // 2, p.height // 2), Image.Resampling.BICUBIC),
    "stretched": lambda p: p.resize((200, 150), Image.Resampling.LANCZOS),
    "less contrast": lambda p: ImageEnhance.Contrast(p).enhance(0.8),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.1),
}


def photos(pattern: str, step: int) -> list[Path]:
    files = sorted(REAL.glob(pattern))[::step]
    if not files:
        pytest.skip(f"real photos not found at {REAL / pattern}")
    return files


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)


@pytest.mark.parametrize("pattern", ["bccd/JPEGImages/*.jpg", "bsds500/images/*/*.jpg"])
@pytest.mark.parametrize("copy", COPIES)
def test_copies_of_photos_are_found_and_nothing_else(pattern: str, copy: str) -> None:
    files = photos(pattern, 12)
    pictures = [Image.open(file).convert("RGB") for file in files]
    originals = [thumbnail(pixels(picture)) for picture in pictures]
    copies = [thumbnail(pixels(COPIES[copy](picture))) for picture in pictures]
    pairs, _ = near_duplicates(np.stack(originals + copies))
    count = len(files)
    found = {tuple(pair) for pair in pairs.tolist()}
    assert found <= {(row, row + count) for row in range(count)}  # no two different photos
    assert len(found) >= (count if copy != "brighter" else 0.95 * count)


def test_most_consecutive_frames_of_a_film_are_not_copies() -> None:
    files = photos("camvid/train/*.jpg", 1)[:200]
    thumbnails = np.stack([thumbnail(decode(file)) for file in files])
    pairs, _ = near_duplicates(thumbnails)
    followed = {row for row, later in pairs.tolist() if later == row + 1}
    assert len(followed) < 0.12 * len(files)


@pytest.mark.skipif(not FASHION.is_dir(), reason=f"Fashion-MNIST not found at {FASHION}")
def test_fashion_mnist_has_near_copies_across_and_no_exact_ones() -> None:
    """The copies that issue 44 of its repository lists (43 in train, 1 in test, 10 across) were
    replaced by its makers in August 2017; what is distributed since has none."""
    source = read_idx_folder(FASHION)
    assert exact_duplicates(source.hashes()) == []
    thumbnails = np.stack([thumbnail(image) for image in source.images])
    parts = (source.parts == "test").astype(np.int64)
    pairs, distances = near_duplicates(thumbnails, parts=parts)
    assert (pairs[0] == [13_360, 60_000 + 4_998]).all()
    assert len(pairs) == pytest.approx(24, abs=2)  # some lie at the limit, as float32 rounds
    assert distances.max() <= LIMIT
    assert (source.targets[pairs[:, 0]] == source.targets[pairs[:, 1]]).mean() > 0.8
