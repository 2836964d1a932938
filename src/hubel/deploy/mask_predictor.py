"""`MaskPredictor`: weights, preprocessing and class names as one callable, from files to masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hubel.data.decode import MAX_PIXELS, decode
from hubel.deploy.mask_files import MaskFolder, Place, Thumbnail
from hubel.deploy.mask_views import viewed_masks
from hubel.deploy.refine import refined
from hubel.errors import BrokenImage
from hubel.models.tiles import WHOLE, Tiles, bands, probabilities
from hubel.runs.weights import Card

BYTES = 10  # of memory that a pixel of a large image takes: 8 to decode it, then image and mask
MAPS = 1 << 28  # bytes of probabilities that are brought back to an image's size at a time

Told = Callable[[str, int, int], None]
Write = Callable[[NDArray[np.uint8]], None]


@dataclass(frozen=True, eq=False)
class MaskPrediction:
    """What the net says of one image's pixels.

    Attributes:
        file: the image's path.
        size: its (H, W), upright; None where it is broken.
        areas: each class's share of the pixels, 0..1.
        mask: uint8 (H, W), each pixel's class; None unless it was to be kept.
        mask_file, overlay_file: where mask and picture were written, if they were.
        error: why the image could not be read, else None.
    """

    file: str
    size: tuple[int, int] | None = None
    areas: dict[str, float] = field(default_factory=dict)
    mask: NDArray[np.uint8] | None = None
    mask_file: str | None = None
    overlay_file: str | None = None
    error: str | None = None

    @property
    def largest(self) -> tuple[tuple[str, float], ...]:
        """(class, share) of the classes that are there, the largest first."""
        there = [(name, share) for name, share in self.areas.items() if share > 0]
        return tuple(sorted(there, key=lambda pair: -pair[1]))

    def to_json(self) -> dict[str, Any]:
        """All but the mask itself."""
        if self.size is None:
            return {"file": self.file, "error": self.error}
        record: dict[str, Any] = {"file": self.file, "height": self.size[0], "width": self.size[1]}
        record["areas"] = self.areas
        written = {"mask": self.mask_file, "overlay": self.overlay_file}
        return record | {name: path for name, path in written.items() if path is not None}


def labelling(model: nn.Module, card: Card, tta: str, refine: str) -> nn.Module:
    """A segmentation net with its views and what comes after it.

    Args:
        tta: as `hubel.deploy.mask_views.viewed_masks` has it.
        refine: as `hubel.deploy.refine.refined` has it.
    """
    return refined(viewed_masks(model, tta), card.preprocess, refine)


class MaskPredictor:
    """A trained segmentation net, ready for files.

    >>> predictor = hubel.load_run("runs/streets-unet_padded-1").predictor()  # doctest: +SKIP
    >>> predictor(["crossing.png"])[0].mask.shape  # doctest: +SKIP
    (720, 960)
    """

    def __init__(
        self,
        model: nn.Module,
        card: Card,
        device: torch.device,
        *,
        tta: str = "none",
        refine: str = "none",
        tiles: Tiles | None = None,
        whole: int = WHOLE,
    ) -> None:
        """Args:
        tiles, whole: how images of more than `whole` pixels are cut, where they keep their size.
        """
        self.model = labelling(model, card, tta, refine).to(device).eval()
        self.card = card
        self.device = device
        self.tiles, self.whole = tiles or Tiles(), whole

    def __call__(
        self, files: Iterable[str | Path], out: str | Path | None = None, overlays: bool = True
    ) -> list[MaskPrediction]:
        """One prediction per file, in order, masks kept; a broken file gets one that says why.

        Args:
            out: a folder to write masks to; see `hubel.deploy.mask_files`.
            overlays: pictures as well.
        """
        paths = [Path(file) for file in files]
        return list(self.stream(paths, self._folder(out, overlays), keep=True))

    def stream(
        self,
        files: Sequence[Path],
        out: MaskFolder | str | Path | None = None,
        *,
        keep: bool = False,
        told: Told | None = None,
    ) -> Iterator[MaskPrediction]:
        """The same, file by file, for many or large ones; masks are kept if `keep`.

        Args:
            told: called with what is being done, how much of it, and of how much.
        """
        folder = self._folder(out, True)
        places = folder.places(files) if folder else [None] * len(files)
        for number, (file, place) in enumerate(zip(files, places, strict=True)):
            if told is not None:
                told("predicting", number, len(files))
            yield self._answer(file, place, keep, told)
        if told is not None:
            told("predicting", len(files), len(files))

    def bands(self, image: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        """The mask of an image uint8 (c, H, W) of any size, band by band: uint8 (n, W)."""
        height, width = image.shape[1:]
        if self.card.preprocess.fit != "same" or height * width <= self.whole:
            yield self._restored(image)
            return
        for band in bands(self._chances, torch.from_numpy(image), self.tiles, _labels):
            yield band.cpu().numpy()

    def _folder(self, out: MaskFolder | str | Path | None, overlays: bool) -> MaskFolder | None:
        if out is None or isinstance(out, MaskFolder):
            return out
        return MaskFolder(out, self.card, overlays)

    def _answer(
        self, file: Path, place: Place | None, keep: bool, told: Told | None
    ) -> MaskPrediction:
        try:
            image = decode(file, most=max(MAX_PIXELS, psutil.virtual_memory().available // BYTES))
        except BrokenImage as error:
            return MaskPrediction(str(file), error=error.reason)
        size = (image.shape[1], image.shape[2])
        found = _Found(size, len(self.card.classes), keep)
        large = size[0] * size[1] > self.whole
        with _writing(place, size) as write:
            for band in self.bands(image):
                write(band)
                found.add(band)
                if told is not None and large:
                    told(f"labelling {file.name}", found.seen, size[0])
        if place is not None and place.picture is not None:
            place.draw(image, found.thumbnail)
        return found.prediction(file, self.card.classes, place)

    @torch.no_grad()
    def _chances(self, window: Tensor) -> Tensor:
        """Pixels uint8 (1, c, h, w) -> probabilities float32 (1, K, h, w) at the net's size."""
        prepared = self.card.preprocess.image(window[0].numpy())
        x = torch.tensor(prepared)[None].to(self.device)
        x = self.card.preprocess.normalise(x)
        return probabilities(self.model(x), (x.shape[2], x.shape[3]))

    def _restored(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The mask (H, W) of an image (c, H, W) that is taken whole; a few classes at a time, for
        K maps of a photo's size would take gigabytes."""
        chances = self._chances(torch.from_numpy(image)[None])
        size = (image.shape[1], image.shape[2])
        step = max(1, MAPS // (4 * size[0] * size[1]))
        highest = label = None
        for first in range(0, chances.shape[1], step):
            some = self.card.preprocess.restore(chances[:, first : first + step], size)[0]
            value, place = some.max(dim=0)
            if highest is None or label is None:
                highest, label = value, place.to(torch.uint8)
            else:
                label[value > highest] = (place + first).to(torch.uint8)[value > highest]
                highest = torch.maximum(highest, value)
        assert label is not None
        return label.cpu().numpy()


class _Found:
    """What is kept of a mask that comes in bands."""

    def __init__(self, size: tuple[int, int], classes: int, keep: bool) -> None:
        self.size, self.seen = size, 0
        self.counts = np.zeros(classes, np.int64)
        self.mask = np.empty(size, np.uint8) if keep else None
        self.thumbnail = Thumbnail(size)

    def add(self, band: NDArray[np.uint8]) -> None:
        """The next lines (n, W)."""
        self.counts += np.bincount(band.ravel(), minlength=len(self.counts))
        self.thumbnail.add(band)
        if self.mask is not None:
            self.mask[self.seen : self.seen + len(band)] = band
        self.seen += len(band)

    def prediction(self, file: Path, classes: Sequence[str], place: Place | None) -> MaskPrediction:
        """All of it."""
        shares = (self.counts / self.counts.sum()).tolist()
        return MaskPrediction(
            str(file),
            self.size,
            dict(zip(classes, shares, strict=True)),
            self.mask,
            str(place.mask) if place else None,
            str(place.picture) if place and place.picture else None,
        )


@contextmanager
def _writing(place: Place | None, size: tuple[int, int]) -> Iterator[Write]:
    """What takes the bands of a mask: its file, or nobody."""
    if place is None:
        yield lambda band: None
        return
    with place.writing(size) as write:
        yield write


def _labels(chances: Tensor) -> Tensor:
    """(K, h, w) -> uint8 (h, w)."""
    return chances.max(dim=0).indices.to(torch.uint8)
