"""From any decoded image to what one model is fed: channels, size, scale. Goes with the weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from hubel.data.decode import MAX_PIXELS
from hubel.data.masks.record import IGNORE
from hubel.errors import OptionError, unknown

Fit = Literal["stretch", "crop", "pad", "same"]
Filter = Literal["bilinear", "bicubic"]
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True, slots=True)
class Preprocess:
    """The one road from a decoded image to a model's input, in training and ever after.

    Attributes:
        channels: 1 or 3. Grey becomes RGB by repetition, RGB becomes grey by BT.601 luma.
        height, width: pixels the model is fed; of `same`: the window that it learns from.
        fit: how an image of another shape gets there. `stretch` ignores the aspect ratio;
            `crop` scales the short side and cuts the centre; `pad` scales the long side and
            fills with the mean; `same` leaves every pixel as it is (masks alone: the nets that
            label pixels take any size).
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
        that neither `crop` of a long picture nor the last resizing loses anything that shows;
        all of them for `same`."""
        if self.fit == "same":
            return MAX_PIXELS
        return round(4 * max(self.height, self.width) / self.kept)

    def target(self, height: int, width: int) -> tuple[int, int]:
        """The size that an image of this one comes to."""
        return (height, width) if self.fit == "same" else (self.height, self.width)

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 (c, h, w) of any size to uint8 (channels, height, width); `same` keeps h x w."""
        height, width = self.target(image.shape[1], image.shape[2])
        if image.shape == (self.channels, height, width) and self.kept == 1:
            return image
        picture = _to_pillow(image, self.channels)
        if picture.size != (width, height) or self.kept < 1:
            picture = self._resize(picture)
        array = np.asarray(picture, dtype=np.uint8)
        return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))

    def mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Labels uint8 (h, w) brought to where `image` brings their pixels: uint8 (height, width);
        `same` keeps h x w. Each takes the label of the pixel its centre falls in; IGNORE where
        `pad` fills. Raises `OptionError` for fit `crop`."""
        self.check_masks()
        target = self.target(*mask.shape)
        if mask.shape == target:
            return mask
        (height, width), (top, left) = self._inside(*mask.shape)
        scaled = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
        found = np.full(target, IGNORE, np.uint8)
        found[top : top + height, left : left + width] = np.asarray(scaled)
        return found

    def restore(self, maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """The way back, for what the net says of each pixel: float (N, K, h, w), as prepared, to
        (N, K, H, W), `size` being the image's (H, W). Padding is cut off, the rest interpolated
        bilinearly; `same` changes nothing. Raises `OptionError` for fit `crop`."""
        self.check_masks()
        if tuple(maps.shape[-2:]) == tuple(size):
            return maps
        (height, width), (top, left) = self._inside(*size)
        inside = maps[:, :, top : top + height, left : left + width]
        return F.interpolate(inside, size, mode="bilinear", align_corners=False)

    def check_masks(self) -> None:
        """Raises `OptionError` where masks cannot go with the images: for fit `crop`."""
        if self.fit == "crop":
            raise OptionError(
                "fit 'crop' cuts borders off, whose pixels would get no label. allowed for masks: "
                "same, stretch, pad"
            )

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, C, H, W) to float32 (x / 255 - mean) / std, on the images' device."""
        floats = images.to(torch.float32, copy=True)
        for channel, shift, scale in zip(
            floats.unbind(1), *_line(self.mean, self.std), strict=True
        ):
            torch.add(shift, channel, alpha=scale, out=channel)  # sooner than a broadcast
        return floats

    def denormalise(self, images: torch.Tensor) -> torch.Tensor:
        """The way back: float32 (N, C, H, W) to uint8, clipped to 0..255."""
        mean, std = _column(self.mean, images.device), _column(self.std, images.device)
        return ((images.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Preprocess:
        return cls(**{**record, "mean": tuple(record["mean"]), "std": tuple(record["std"])})

    def _inside(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width, top and left, of what an image of this size becomes: all that the
        model is fed but for the padding."""
        if self.fit != "pad":
            return self.target(height, width), (0, 0)
        scale = min(self.width / width, self.height / height)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        return size, ((self.height - size[0]) // 2, (self.width - size[1]) // 2)

    def _resize(self, picture: Image.Image) -> Image.Image:
        how = RESAMPLING[self.filter]
        width, height = picture.size
        target = (self.width, self.height)
        same_shape = width * self.height == height * self.width
        if self.fit == "stretch" or (same_shape and self.kept == 1):
            return picture.resize(target, how)
        if self.fit == "crop":  # only what is kept is scaled: a long strip would fill the memory
            scale = max(self.width / width, self.height / height) / self.kept
            kept = (self.width / scale, self.height / scale)
            left, top = max(0.0, (width - kept[0]) / 2), max(0.0, (height - kept[1]) / 2)
            return picture.resize(target, how, (left, top, left + kept[0], top + kept[1]))
        (inner_height, inner_width), (top, left) = self._inside(height, width)
        scaled = picture.resize((inner_width, inner_height), how)
        fill = tuple(round(255 * m) for m in self.mean)
        canvas = Image.new(picture.mode, target, fill if self.channels == 3 else fill[0])
        canvas.paste(scaled, (left, top))
        return canvas


@lru_cache(maxsize=64)
def _column(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Per-channel numbers, shaped to broadcast over (N, C, H, W)."""
    return torch.tensor(values, device=device).view(-1, 1, 1)


@lru_cache(maxsize=64)
def _line(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[tuple[torch.Tensor, ...], list[float]]:
    """(x / 255 - mean) / std as shift + x scale, for each channel."""
    means, stds = torch.tensor(mean), torch.tensor(std)
    return (-means / stds).unbind(), (1 / (255 * stds)).tolist()


def _to_pillow(image: NDArray[np.uint8], channels: int) -> Image.Image:
    if image.shape[0] == 1:
        grey = Image.fromarray(image[0])
        return grey if channels == 1 else grey.convert("RGB")
    colour = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    return colour if channels == 3 else colour.convert("L")
