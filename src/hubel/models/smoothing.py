"""Images made smoother, each map by itself, with mirrored borders."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hubel.models.margin import framed

BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # Burt and Adelson's, with a = 3/8
REACH = 3  # standard deviations; 0.3 % of a bell lies beyond


def smoothed(x: Tensor, taps: Sequence[float]) -> Tensor:
    """(N, C, H, W) -> the same shape: convolved with odd `taps`, along columns and along rows."""
    maps, reach = x.shape[1], len(taps) // 2
    line = torch.tensor(taps, dtype=x.dtype, device=x.device).expand(maps, 1, len(taps))
    x = framed(x, reach)
    x = F.conv2d(x, line.unsqueeze(3), groups=maps)
    return F.conv2d(x, line.unsqueeze(2), groups=maps)


def bell(deviation: float) -> list[float]:
    """The taps of a Gaussian of so many pixels; they add to 1. Deviation 0: one tap."""
    reach = math.ceil(REACH * deviation)
    raw = [math.exp(-0.5 * (i / max(deviation, 1e-9)) ** 2) for i in range(-reach, reach + 1)]
    return [tap / sum(raw) for tap in raw]
