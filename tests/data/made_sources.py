"""Labelled images made on the spot."""

import numpy as np

from hubel.data.record import ArraySource
from hubel.data.split import Split


def source_of(contents, targets, classes=2, parts=None) -> ArraySource:
    """Images whose whole content is one number each: equal numbers, equal images."""
    images = np.asarray(contents, np.uint64).reshape(-1, 1, 1, 1).view(np.uint8)
    names = [f"class{k}" for k in range(classes)]
    parts = None if parts is None else np.array(parts, dtype="U5")
    return ArraySource(images, np.array(targets), names, name="made", origin="here", parts=parts)


def arrays(channels=1, height=20, width=24, count=40):
    """Noise of two classes by turns."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    return ArraySource(images, np.arange(count) % 2, ("a", "b"), name="s", origin="s")


def whole(source):
    """The first thirty to train on, five to validate, the rest to test."""
    rows = np.arange(len(source))
    return Split(train=rows[:30], val=rows[30:35], test=rows[35:])


def stripes(count=240):
    """Two classes of 16 x 16: noise, and noise with a bright band."""
    draw = np.random.default_rng(0)
    targets = np.arange(count) % 2
    images = draw.integers(0, 120, (count, 1, 16, 16), dtype=np.uint8)
    images[targets == 1, :, 4:8] += 100
    return ArraySource(images, targets, ("plain", "striped"), name="stripes", origin="made here")
