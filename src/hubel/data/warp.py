"""The geometry of augmentation: where in its source each pixel of a window comes from.

A window is what the net is fed. In pixels from its centre, output p shows the source at
R(angle) F p / zoom + bend(p): F mirrors, R turns, and the bend is a smooth random field (elastic
deformation: Simard, Steinkraus and Platt 2003; as 3 x 3 random vectors that are interpolated
bicubically: Ronneberger, Fischer and Brox 2015). Pixels are squares: the outermost centres lie half
a pixel inside the border, as in `grid_sample` with align_corners=False.

Classification warps whole images, and lets a colour in from outside. Segmentation cuts windows, and
mirrors what lies outside (index -1 is 0 again, -2 is 1): a mirrored label is as true as a flipped
one. But where the image is smaller than the window, mirroring would show the same pixels several
times in every window, always in the same place beside themselves; the mirrored part then gets no
label, so that nothing is learnt twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from hubel.data.masks.record import IGNORE

KNOTS = 3  # random vectors of a bend, along each side

Size = tuple[int, int]  # height, width


@dataclass(frozen=True, slots=True)
class Motion:
    """How each of n windows is moved about its centre; all tensors on one device.

    Attributes:
        angle: float32 (n,), radians.
        zoom: float32 (n,), above 0; 2 shows things twice as large.
        across, down: float32 (n,), -1 where the window is mirrored left-right, up-down, else 1.
        bend: float32 (n, 2, 3, 3), pixels to the right and down at 3 x 3 points spread from
            corner to corner of the window; None: nothing is bent.
    """

    angle: Tensor
    zoom: Tensor
    across: Tensor
    down: Tensor
    bend: Tensor | None = None


def affine(
    motion: Motion, window: Size, source: Size, steps: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """The part of `motion` that is not bent, as `affine_grid` takes it: float32 (n, 2, 3).

    Args:
        window: of the output, in the middle of the source unless `steps` move it.
        steps: int64 (n,) each, pixels down and to the right.
    """
    (height, width), (source_height, source_width) = window, source
    cos, sin = motion.angle.cos() / motion.zoom, motion.angle.sin() / motion.zoom
    across, down = motion.across, motion.down
    below, right = (torch.zeros_like(cos), torch.zeros_like(cos)) if steps is None else steps
    # Grids count in half heights and half widths, hence the ratios. They are the last factors: of
    # whole images they are 1 on the diagonal, and batches stay what they were to the last bit.
    first = torch.stack(
        [
            across * cos * (width / source_width),
            -sin * down * height / source_width,
            right * 2 / source_width,
        ],
        dim=1,
    )
    second = torch.stack(
        [
            across * sin * width / source_height,
            down * cos * (height / source_height),
            below * 2 / source_height,
        ],
        dim=1,
    )
    return torch.stack([first, second], dim=1)


def sampling_grid(theta: Tensor, bend: Tensor | None, window: Size, source: Size) -> Tensor:
    """Where each pixel of the windows comes from, as `grid_sample` takes it.

    A bend is of rank 3 and the rest of rank 2, so rows times (5 x 5) times columns makes the whole
    grid: on a CPU a twentieth of the time of `affine_grid`.

    Args:
        theta: from `affine`.
        bend: see `Motion`.

    Returns:
        float32 (n, height, width, 2), x before y, -1..1 within the source.
    """
    (height, width), (source_height, source_width) = window, source
    # Doubles (which Apple's GPUs lack): with TensorFloat32, where it is on, pixels would move.
    exact = torch.float32 if theta.device.type == "mps" else torch.float64
    middle = theta.new_zeros(len(theta), 2, KNOTS + 2, KNOTS + 2)
    middle[:, :, -1, -2], middle[:, :, -2, -1], middle[:, :, -1, -1] = theta.unbind(2)
    if bend is not None:
        half = bend.new_tensor([source_width / 2, source_height / 2]).view(2, 1, 1)
        middle[:, :, :KNOTS, :KNOTS] = bend / half
    rows, columns = (_line(side, theta.device).to(exact) for side in (height, width))
    return (rows @ middle.to(exact) @ columns.T).float().permute(0, 2, 3, 1)


@lru_cache(maxsize=64)
def knots(length: int) -> Tensor:
    """Bicubic weights (Keys 1981, a = -0.75) of 3 equally spaced points, the outer ones on the
    first and the last of `length` pixels, for each pixel: float32 (length, 3)."""
    unit = torch.eye(KNOTS).view(1, KNOTS, KNOTS, 1)
    weights = F.interpolate(unit, (length, 1), mode="bicubic", align_corners=True)
    return weights[0, :, :, 0].T.contiguous()


@lru_cache(maxsize=64)
def _line(length: int, device: torch.device) -> Tensor:
    """Beside the knots: the place of each pixel in -1..1, and 1. float32 (length, 5)."""
    places = (2 * torch.arange(length) + 1) / length - 1
    whole = torch.cat([knots(length), places[:, None], torch.ones(length, 1)], dim=1)
    return whole.to(device)


def margin(motion: Motion, window: Size) -> Size:
    """Whole pixels above (and below) and left (and right) of a window that suffice to make any of
    the n moved windows."""
    height, width = window
    cos, sin = motion.angle.cos().abs() / motion.zoom, motion.angle.sin().abs() / motion.zoom
    above = (cos * height + sin * width - height) / 2
    beside = (cos * width + sin * height - width) / 2
    if motion.bend is not None:
        overshoot = [float(knots(side).abs().sum(1).max()) for side in window]
        right, below = (motion.bend.abs().amax((2, 3)) * math.prod(overshoot)).unbind(1)
        above, beside = above + below, beside + right
    # One pixel more: bilinear interpolation mixes in the next.
    return max(0, math.ceil(above.max()) + 1), max(0, math.ceil(beside.max()) + 1)


def corner(size: int, window: int, draw: float) -> int:
    """Where a window begins along one side of an image, by a draw uniform in [0, 1): every place
    that keeps the window within the image is as likely as every other; where the image is
    shorter, every place (0 or less) that keeps the image within the window."""
    step = int(draw * (abs(size - window) + 1))
    return step if size >= window else -step


def cut(pixels: Tensor, top: int, left: int, window: Size) -> Tensor:
    """The window of `pixels` (..., H, W) that begins at (top, left), any whole numbers; outside,
    the pixels are mirrored, as often as it takes. A view where nothing is."""
    for axis, start, length in ((-2, top, window[0]), (-1, left, window[1])):
        size = pixels.shape[axis]
        if start >= 0 and start + length <= size:
            pixels = pixels.narrow(axis, start, length)
        else:
            pixels = pixels.index_select(axis, _mirrored(start, length, size).to(pixels.device))
    return pixels


def cut_labels(mask: Tensor, top: int, left: int, window: Size, *, mirrored: bool) -> Tensor:
    """`cut` for labels uint8 (H, W); unless `mirrored`, what lies outside is IGNORE."""
    if mirrored:
        return cut(mask, top, left, window)
    found = mask.new_full(window, IGNORE)
    (first, last), (begin, end) = (
        (max(0, -start), max(0, min(length, size - start)))
        for start, length, size in zip((top, left), window, mask.shape, strict=True)
    )
    inside = mask[max(0, top) : max(0, top + last), max(0, left) : max(0, left + end)]
    found[first : first + inside.shape[0], begin : begin + inside.shape[1]] = inside
    return found


def _mirrored(start: int, length: int, size: int) -> Tensor:
    """start, start + 1, ... folded into 0..size - 1: int64 (length,)."""
    place = torch.arange(start, start + length) % (2 * size)
    return torch.minimum(place, 2 * size - 1 - place)


def flipped(pixels: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """(n, C, h, w), mirrored up-down and left-right where the bools (n,) say so."""
    for axis, mirror in ((-2, down), (-1, across)):
        if bool(mirror.any()):
            pixels = torch.where(mirror.view(-1, 1, 1, 1), pixels.flip(axis), pixels)
    return pixels


def warped(images: Tensor, targets: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Images sampled bilinearly, what is said of their pixels by the nearest one.

    Args:
        images: uint8 (n, C, H, W).
        targets: uint8 or float32 (n, T, H, W).
        grid: (n, h, w, 2), from `sampling_grid`; within the images but for rounding.

    Returns:
        uint8 (n, C, h, w) and float32 (n, T, h, w).
    """
    sample = partial(F.grid_sample, grid=grid, padding_mode="border", align_corners=False)
    return to_bytes(sample(images.float())), sample(targets.float(), mode="nearest")


def to_bytes(images: Tensor) -> Tensor:
    """Float images in 0..255, about, to uint8: rounded, clipped; `images` is overwritten."""
    return images.round_().clamp_(0, 255).to(torch.uint8)
