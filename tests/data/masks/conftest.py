"""Small trees of images and masks, and where the real ones are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_data import REAL


def save(path: Path, pixels, palette=None) -> Path:
    """An image file of these pixels: (H, W), (H, W, 3), or a size (H, W) of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(pixels, tuple):
        seed = sum(str(path).encode())
        pixels = np.random.default_rng(seed).integers(0, 256, (*pixels, 3), dtype=np.uint8)
    picture = Image.fromarray(np.asarray(pixels))
    if palette is not None:
        picture.putpalette(bytes(channel for colour in palette for channel in colour))
    picture.save(path)
    return path


@pytest.fixture(name="save")
def _save():
    return save


@pytest.fixture
def plant(tmp_path):
    """plant({"images/a.jpg": (4, 5), "masks/a.png": array, "classes.txt": "text"}) -> the root."""

    def _plant(files, root=tmp_path):
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.mkdir()
            elif isinstance(content, str):
                path.write_text(content)
            else:
                save(path, content)
        return root

    return _plant


@pytest.fixture
def real():
    """real("camvid") is its folder; the test is skipped where it is absent."""

    def _real(name):
        if not (REAL / name).is_dir():
            pytest.skip(f"no real data: {REAL / name} is absent")
        return REAL / name

    return _real
