"""From any decoded image to what one model is fed: channels, size, scale. Goes with the weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from hubel.errors import OptionError, unknown

Fit = Literal["stretch", "crop", "pad"]
Filter = Literal["bilinear", "bicubic"]
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True, slots=True)
class Preprocess:
    """The one road from a decoded image to a model's input, in training and ever after.

    Attributes:
        channels: 1 or 3. Grey becomes RGB by repetition, RGB becomes grey by BT.601 luma.
        height, width: pixels the model is fed.
        fit: how an image of another shape gets there. `stretch` ignores the aspect ratio;
            `crop` scales the short side and cuts the centre; `pad` scales the long side and
            fills with the mean.
        mean, std: per channel, in units of full scale (0..1).
        kept: of `crop`: the share of the short side that is kept; 0.875 is 224 of 256.
        filter: how pixels are made on the way.
    """

    channels: int
    height: int
    width: int
    fit: Fit
    mean: tuple[float, ...]
    std: tuple[float, ...]
    kept: float = 1.0
    filter: Filter = "bilinear"

    def __post_init__(self) -> None:
        if self.fit not in get_args(Fit):
            raise OptionError(unknown("fit", self.fit, get_args(Fit)))
        if self.filter not in get_args(Filter):
            raise OptionError(unknown("filter", self.filter, get_args(Filter)))
        if not 0 < self.kept <= 1 or (self.kept < 1 and self.fit != "crop"):
            raise OptionError(f"kept must be above 0, at most 1, and 1 but for crop: {self.kept}")
        if self.channels not in (1, 3):
            raise OptionError(f"channels must be 1 or 3, given {self.channels}")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise OptionError(f"mean and std need {self.channels} numbers each")
        if min(self.height, self.width) < 1:
            raise OptionError(f"sides must be 1 or more, given {self.height} x {self.width}")
        if not all(deviation > 0 for deviation in self.std):
            raise OptionError(f"std must be above 0, given {self.std}")

    @property
    def enough(self) -> int:
        """Pixels of the longest side that a photo need be decoded to: four times what is kept, so
        that neither `crop` of a long picture nor the last resizing loses anything that shows."""
        return round(4 * max(self.height, self.width) / self.kept)

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 (c, h, w) of any size to uint8 (channels, height, width)."""
        if image.shape == (self.channels, self.height, self.width) and self.kept == 1:
            return image
        picture = _to_pillow(image, self.channels)
        if picture.size != (self.width, self.height) or self.kept < 1:
            picture = self._resize(picture)
        array = np.asarray(picture, dtype=np.uint8)
        return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, C, H, W) to float32 (x / 255 - mean) / std, on the images' device."""
        shift, scale = _line(self.mean, self.std, images.device)
        return torch.addcmul(shift, images.float(), scale)

    def denormalise(self, images: torch.Tensor) -> torch.Tensor:
        """The way back: float32 (N, C, H, W) to uint8, clipped to 0..255."""
        mean, std = _column(self.mean, images.device), _column(self.std, images.device)
        return ((images.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Preprocess:
        return cls(**{**record, "mean": tuple(record["mean"]), "std": tuple(record["std"])})

    def _resize(self, picture: Image.Image) -> Image.Image:
        how = RESAMPLING[self.filter]
        width, height = picture.size
        target = (self.width, self.height)
        same_shape = width * self.height == height * self.width
        if self.fit == "stretch" or (same_shape and self.kept == 1):
            return picture.resize(target, how)
        scales = (self.width / width, self.height / height)
        if self.fit == "crop":  # only what is kept is scaled: a long strip would fill the memory
            scale = max(scales) / self.kept
            kept = (self.width / scale, self.height / scale)
            left, top = max(0.0, (width - kept[0]) / 2), max(0.0, (height - kept[1]) / 2)
            return picture.resize(target, how, (left, top, left + kept[0], top + kept[1]))
        size = (max(1, round(width * min(scales))), max(1, round(height * min(scales))))
        scaled = picture.resize(size, how)
        fill = tuple(round(255 * m) for m in self.mean)
        canvas = Image.new(picture.mode, target, fill if self.channels == 3 else fill[0])
        canvas.paste(scaled, ((self.width - size[0]) // 2, (self.height - size[1]) // 2))
        return canvas


@lru_cache(maxsize=64)
def _column(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Per-channel numbers, shaped to broadcast over (N, C, H, W)."""
    return torch.tensor(values, device=device).view(-1, 1, 1)


@lru_cache(maxsize=64)
def _line(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(x / 255 - mean) / std as shift + x scale."""
    means, stds = _column(mean, device), _column(std, device)
    return -means / stds, 1 / (255 * stds)


def _to_pillow(image: NDArray[np.uint8], channels: int) -> Image.Image:
    if image.shape[0] == 1:
        grey = Image.fromarray(image[0])
        return grey if channels == 1 else grey.convert("RGB")
    colour = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    return colour if channels == 3 else colour.convert("L")
