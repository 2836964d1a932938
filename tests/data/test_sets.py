"""The table of named sets: complete, consistent, and true where the files are at hand."""

import gzip
import hashlib
import os
import struct
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from hubel.data.sets import SETS

FASHION = Path("/usr/share/datasets/fashion-mnist")
MNIST = Path(os.environ.get("HUBEL_TEST_MNIST", "/nowhere"))

# The time in the gzip header of the four published files of Fashion-MNIST.
MADE = {"train": 1504176606, "t10k": 1504176627}

# SHA-256 of MNIST's files without gzip, as published beside those with it.
MNIST_UNPACKED = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@pytest.mark.parametrize("named", SETS.values(), ids=lambda named: named.name)
def test_each_line_is_whole(named):
    assert SETS[named.name] is named
    assert len(set(named.classes)) == len(named.classes) == (100 if "100" in named.name else 10)
    assert named.licence
    assert (named.kind == "npz") == (not named.remotes)
    for remote in named.remotes:
        assert len(bytes.fromhex(remote.sha256)) == 32
        assert remote.bytes > 0
        assert len(remote.mirrors) > 1
        assert len({urlsplit(url).hostname for url in remote.mirrors}) == len(remote.mirrors)
        assert all(url.endswith("/" + remote.name) for url in remote.mirrors)


def test_sizes():
    assert SETS["mnist"].bytes == 9_912_422 + 28_881 + 1_648_877 + 4_542
    assert SETS["sample"].bytes == 0


@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
@pytest.mark.parametrize("remote", SETS["fashion-mnist"].remotes, ids=lambda remote: remote.name)
def test_fashion_mnists_hashes_are_those_of_the_published_files(remote):
    """Debian's copies are the published ones with name and time cut from the gzip header."""
    copy = (FASHION / remote.name).read_bytes()
    assert copy[3] == 0  # no name
    name = remote.name.removesuffix(".gz").encode()
    made = struct.pack("<I", MADE[remote.name.partition("-")[0]])
    original = copy[:3] + b"\x08" + made + copy[8:10] + name + b"\0" + copy[10:]
    assert len(original) == remote.bytes
    assert hashlib.sha256(original).hexdigest() == remote.sha256
    assert gzip.decompress(original) == gzip.decompress(copy)


@pytest.mark.skipif(not MNIST.is_dir(), reason="HUBEL_TEST_MNIST names no folder with MNIST")
@pytest.mark.parametrize("name", MNIST_UNPACKED)
def test_mnist_is_the_published_one(name):
    assert hashlib.sha256((MNIST / name).read_bytes()).hexdigest() == MNIST_UNPACKED[name]
