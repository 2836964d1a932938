"""`Augment`: which random changes a training image may go through, and the batched code for them.

Nothing here loops over images. A batch is changed in two stages, so that the cheap things happen
on bytes: `moved` on uint8 images, `mix` on normalised ones. What an image goes through is decided
by its place in the epoch alone, whatever the batch and however many the processes; all chance comes
as one small table and is moved to the images' device: CPU and CUDA see the same augmentation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hubel.data.order import uniform
from hubel.data.warp import (
    KNOTS,
    Motion,
    affine,
    sampling_grid,
    to_bytes,
)
from hubel.errors import OptionError, unknown

# Rows of the table of chance, uniform in [0, 1): one column per image. Every augmentation owns its
# rows, so switching one on leaves the draws of the others as they were.
ALWAYS = ("flip", "top", "left", "angle", "zoom", "y", "x", "brightness", "contrast", "saturation")
BENDS = tuple(f"bend {number}" for number in range(2 * KNOTS * KNOTS))
LATER = ("vflip", *BENDS)  # drawn only where one of them is on
DRAWS = ALWAYS + LATER
SMALLEST_DRAW = 2.0**-25  # stands for 0, whose normal quantile would be infinite
LUMA = (0.299, 0.587, 0.114)  # BT.601, as Pillow's convert("L")


class Augment(BaseModel):
    """The random changes of one training, as words: `flip,shift=4,rotate=10`.

    Attributes:
        flip: left-right, with probability 1/2.
        vflip: up-down, with probability 1/2.
        shift: pixels; each image moves by a whole number in -shift..shift, down and across.
        rotate: degrees; the angle is uniform in -rotate..rotate.
        scale: share; the size is multiplied by a number uniform in 1 - scale..1 + scale.
        elastic: pixels; the standard deviation of random vectors at 3 x 3 points spread over the
            image, between which it is bent smoothly (Ronneberger et al. 2015, U-Net: 10).
        erase: side in pixels of a square that is cut out, its centre on any pixel (Cutout,
            DeVries and Taylor 2017); the part beyond the border is lost.
        jitter: brightness, contrast and saturation are each multiplied by a number uniform in
            1 - jitter..1 + jitter; grey images have no saturation.
        mixup: alpha of Beta(alpha, alpha), the share of the blended partner (Zhang et al. 2018).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    flip: bool = False
    vflip: bool = False
    shift: int = Field(0, ge=0, le=1024)
    rotate: float = Field(0.0, ge=0, le=180)
    scale: float = Field(0.0, ge=0, lt=1)
    elastic: float = Field(0.0, ge=0, le=100)
    erase: int = Field(0, ge=0, le=1024)
    jitter: float = Field(0.0, ge=0, le=1)
    mixup: float = Field(0.0, ge=0)

    @classmethod
    def parse(cls, text: str) -> Augment:
        """The augmentation that `text` spells; "none" is none at all. `str` is the inverse.

        Raises `OptionError` for an unknown or doubled word, and for a number that does not fit.

        >>> Augment.parse("flip,shift=4").shift
        4
        """
        if text.strip() == "none":
            return cls()
        values: dict[str, Any] = {}
        for word in text.split(","):
            name, value = _setting(word)
            if name in values:
                raise OptionError(f"augmentation {name!r} is given twice in {text!r}")
            values[name] = value
        try:
            return cls(**values)
        except ValidationError as error:
            raise OptionError(_sentence(error)) from None

    def __str__(self) -> str:
        words = [
            name if value is True else f"{name}={value!r}".removesuffix(".0")
            for name, value in self.model_dump().items()
            if value
        ]
        return ",".join(words) or "none"

    def chances(self, places: range, seed: int) -> torch.Tensor:
        """What decides the fate of the images at these places of an epoch: float32 (rows, images)
        in [0, 1), the rows those of DRAWS, or its first ten where none of the later ones is on.

        The later ones have an address of their own: the earlier ones are the same with them as
        without.
        """
        first = uniform(len(ALWAYS), places, seed)
        if not (self.vflip or self.elastic):
            return first
        return torch.cat([first, uniform(len(LATER), places, seed, "later draws")])

    @property
    def exact(self) -> bool:
        """Whether pixels are only moved, so that any number of images can be done together and
        come out the same to the last bit."""
        return not (self.warps or self.jitter or self.mixup)

    @property
    def steps_alone(self) -> bool:
        """Whether all that is on is told by `moves`."""
        return self == Augment(flip=self.flip, vflip=self.vflip, shift=self.shift)

    @property
    def warps(self) -> bool:
        """Whether pixels come to lie between those of the source."""
        return bool(self.rotate or self.scale or self.elastic)

    def moved(
        self, images: torch.Tensor, chances: torch.Tensor, fill: torch.Tensor
    ) -> torch.Tensor:
        """Flip, shift, rotate, scale and bend, then jitter, then erase: every image by its own
        column of `chances`.

        Args:
            images: uint8 (N, C, H, W), C = 1 or 3, any device; left unchanged.
            fill: uint8 (C,), the colour of pixels from outside and of erased ones: the data's
                mean, which normalisation makes 0.

        Returns:
            uint8 (N, C, H, W); `images` itself where nothing is on.
        """
        draws = named(chances.to(images.device))
        shade = fill.to(images.device).view(-1, 1, 1)
        if self.warps:
            images = self._warp(images, draws, shade)
        elif self.flip or self.vflip or self.shift:
            images = self._flip_and_shift(images, draws, shade)
        return self.recoloured(images, draws, fill)

    def recoloured(
        self, images: torch.Tensor, draws: dict[str, torch.Tensor], fill: torch.Tensor
    ) -> torch.Tensor:
        """The part of `moved` that leaves every pixel in its place: jitter and erase.

        Args:
            draws: as `named` gives them, on the images' device.
        """
        fill = fill.to(images.device).view(-1, 1, 1)
        if self.jitter:
            images = self._recolour(images, draws)
        if self.erase:
            images = self._cut_out(images, draws, fill)
        return images

    def mix(
        self,
        images: torch.Tensor,
        targets: torch.Tensor,
        classes: int,
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mixup: each image and its target blended with those of a partner in the batch.

        One share lambda ~ Beta(mixup, mixup) serves the whole batch; the partners are a random
        permutation of it.

        Args:
            images: float32 (N, C, H, W), normalised; left unchanged.
            targets: int64 (N,), class indices.
            generator: on the CPU.

        Returns:
            lambda * images + (1 - lambda) * partners, and the targets likewise: float32
            (N, classes), one-hot where mixup is off.
        """
        soft = F.one_hot(targets, classes).float()
        if not self.mixup:
            return images, soft
        seed = int(torch.randint(2**62, (), generator=generator))  # torch's Beta takes no generator
        share = np.random.default_rng(seed).beta(self.mixup, self.mixup)
        partner = torch.randperm(len(images), generator=generator).to(images.device)
        return torch.lerp(images[partner], images, share), torch.lerp(soft[partner], soft, share)

    def _flip_and_shift(
        self, images: torch.Tensor, draws: dict[str, torch.Tensor], fill: torch.Tensor
    ) -> torch.Tensor:
        """A window of each image with a margin, then mirrored: exact."""
        top, left = self._steps(draws["top"]), self._steps(draws["left"])
        images = _windows(images, fill, self.shift, top, left) if self.shift else images.clone()
        for along, mirrored in zip((-2, -1), self.mirrors(draws), strict=True):
            rows = mirrored.nonzero().view(-1)
            images.index_copy_(0, rows, images.index_select(0, rows).flip(along))
        return images

    def _warp(
        self, images: torch.Tensor, draws: dict[str, torch.Tensor], fill: torch.Tensor
    ) -> torch.Tensor:
        """One bilinear grid sample that carries flip and shift along (`data/warp.py`)."""
        size, motion = (images.shape[-2], images.shape[-1]), self.motion(draws)
        theta = affine(motion, size, size, self.steps(draws))
        if motion.bend is None:  # to the last bit as it has always been
            grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        else:
            grid = sampling_grid(theta, motion.bend, size, size)
        # Zeros come in from outside: with `fill` as the zero, `fill` comes in.
        return to_bytes(F.grid_sample(images.float() - fill, grid, align_corners=False) + fill)

    def steps(self, draws: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """How far each image is shown from below and from the right: int64 (N,) each, pixels in
        -shift..shift."""
        return self._steps(draws["top"]) - self.shift, self._steps(draws["left"]) - self.shift

    def moves(self, chances: torch.Tensor) -> torch.Tensor:
        """What flips and shifts come to: int64 (4, N), of each image how many pixels down and
        across it is shown from, whether upside down, and whether mirrored."""
        draws = named(chances)
        return torch.stack([*self.steps(draws), *(m.long() for m in self.mirrors(draws))])

    def mirrors(self, draws: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Which images are flipped up-down, and which left-right: bool (N,) each."""
        flips = draws["flip"] < (0.5 if self.flip else 0)
        return (draws["vflip"] < 0.5 if self.vflip else torch.zeros_like(flips)), flips

    def motion(self, draws: dict[str, torch.Tensor]) -> Motion:
        """What the draws make of each image, shift and colour aside; on the draws' device."""
        down, across = (torch.where(mirror, -1.0, 1.0) for mirror in self.mirrors(draws))
        angle = torch.deg2rad(self.rotate * _signed(draws["angle"]))
        zoom = 1 + self.scale * _signed(draws["zoom"])
        return Motion(angle, zoom, across, down, self._bend(draws) if self.elastic else None)

    def _bend(self, draws: dict[str, torch.Tensor]) -> torch.Tensor:
        """float32 (N, 2, 3, 3), normally distributed, pixels."""
        uniform = torch.stack([draws[name] for name in BENDS], dim=1).clamp(min=SMALLEST_DRAW)
        normal: torch.Tensor = torch.special.ndtri(uniform)
        return self.elastic * normal.view(-1, 2, KNOTS, KNOTS)

    def _recolour(self, images: torch.Tensor, draws: dict[str, torch.Tensor]) -> torch.Tensor:
        """Contrast about the image's mean grey, then brightness, then saturation about each
        pixel's grey: all linear, so they fold into three factors; rounded and clipped once."""
        names = ("brightness", "contrast", "saturation")
        brightness, contrast, saturation = (
            (1 + self.jitter * _signed(draws[name])).view(-1, 1, 1, 1) for name in names
        )
        colour = images.float()
        luma = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
        grey = (colour * luma).sum(1, keepdim=True) if colour.shape[1] == 3 else colour
        gain = brightness * contrast
        offset = brightness * (1 - contrast) * grey.mean((2, 3), keepdim=True)
        return to_bytes(
            torch.addcmul(gain * (1 - saturation) * grey + offset, colour, gain * saturation)
        )

    def _cut_out(
        self, images: torch.Tensor, draws: dict[str, torch.Tensor], fill: torch.Tensor
    ) -> torch.Tensor:
        height, width = images.shape[-2:]
        rows = self._erased(draws["y"], height).view(-1, 1, height, 1)
        columns = self._erased(draws["x"], width).view(-1, 1, 1, width)
        gone = rows & columns
        return images * ~gone + fill * gone  # on a CPU a twentieth of the time of torch.where

    def _erased(self, draw: torch.Tensor, extent: int) -> torch.Tensor:
        """Which of `extent` positions the square covers: bool (N, extent)."""
        start = (draw * extent).long() - self.erase // 2
        offset = torch.arange(extent, device=draw.device) - start[:, None]
        return (offset >= 0) & (offset < self.erase)

    def _steps(self, draw: torch.Tensor) -> torch.Tensor:
        """Whole numbers in 0..2 * shift. (A float32 draw is at most 1 - 2^-24, and its product
        with n rounds below n.)"""
        return (draw * (2 * self.shift + 1)).long()


def _windows(
    images: torch.Tensor, fill: torch.Tensor, reach: int, top: torch.Tensor, left: torch.Tensor
) -> torch.Tensor:
    """(N, C, H, W): each image with a margin of `reach` pixels, seen from its own place on.

    NumPy copies a window at a time where PyTorch copies pixel by pixel, four times as long.
    """
    n, c, h, w = images.shape
    wide = images.new_empty(n, c, h + 2 * reach, w + 2 * reach).copy_(fill)
    wide[:, :, reach : reach + h, reach : reach + w] = images
    all_windows = wide.unfold(2, h, 1).unfold(3, w, 1).permute(0, 2, 3, 1, 4, 5)
    mine = (torch.arange(n, device=images.device), top, left)
    if images.device.type == "cpu":
        return torch.from_numpy(all_windows.numpy()[tuple(place.numpy() for place in mine)])
    return all_windows[mine]


def _signed(draw: torch.Tensor) -> torch.Tensor:
    """[0, 1) to [-1, 1)."""
    return 2 * draw - 1


def named(chances: torch.Tensor) -> dict[str, torch.Tensor]:
    """A table of `Augment.chances` by what its rows are for: (count,) each."""
    return dict(zip(DRAWS, chances, strict=False))  # the later ones may not have been drawn


def _setting(word: str) -> tuple[str, Any]:
    """("shift", 4) from "shift=4"; ("flip", True) from "flip"."""
    name, equals, number = (piece.strip() for piece in word.partition("="))
    if name == "none":
        raise OptionError("augmentation 'none' stands alone")
    if name not in Augment.model_fields:
        raise OptionError(unknown("augmentation", name, [*Augment.model_fields, "none"]))
    if Augment.model_fields[name].annotation is bool:
        if equals:
            raise OptionError(f"augmentation {name!r} takes no number, given {word.strip()!r}")
        return name, True
    whole = Augment.model_fields[name].annotation is int
    try:
        return name, int(number) if whole else float(number)
    except ValueError:
        wanted = "a whole number, as in" if whole else "a number, as in"
        example = f"{name}={4 if whole else 0.5}"
        given = f"given {word.strip()!r}"
        raise OptionError(f"augmentation {name!r} needs {wanted} {example}, {given}") from None


def _sentence(error: ValidationError) -> str:
    """Pydantic's first complaint, on one line."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Input should be ")
    return f"augmentation {first['loc'][0]!r} must be {message}, given {first['input']!r}"
