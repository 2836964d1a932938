"""Data sets by name: what they are, where they are found, and where they come from.

Looked for in order: hubel's cache, the Debian package of Fashion-MNIST, a download. The SHA-256
of Fashion-MNIST, MNIST and both CIFAR are those that TensorFlow Datasets lists, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from hubel.data.cifar import CIFAR10, CIFAR100, is_cifar, read_cifar
from hubel.data.fetch import Progress, Remote, Unreachable, cache_folder, fetch, is_whole
from hubel.data.idx import find_idx, read_idx_folder
from hubel.data.npz import read_npz
from hubel.data.record import ArraySource
from hubel.errors import DataError, unknown

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DIGITS = tuple("0123456789")
