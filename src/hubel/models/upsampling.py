"""The ways up: from a small map to a large one, as layers.

    nearest       every value fills its block of S x S
    bed_of_nails  every value in the first corner of its block, zeros elsewhere
    max_unpool    every value where the maximum of its block was, zeros elsewhere
    bilinear      straight lines between the centres of blocks
    transposed    learned: the backward of a convolution with stride S (Dumoulin, Visin 2016),
                  which the literature also calls deconvolution or up-convolution

Zeiler, Taylor, Fergus 2011 introduced unpooling by switches; Noh, Hong, Han 2015 segment with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hubel.engine.bridge import bridge
from hubel.engine.ops.unpool import BedOfNails
from hubel.errors import ModelError, unknown
from hubel.models.check import whole
from hubel.models.margin import Pair, cut

Kind = Literal["nearest", "bed_of_nails", "max_unpool", "bilinear", "transposed"]

_nails: Callable[..., Any] = bridge(BedOfNails)  # torch has none


class Upsample(nn.Module):
    """(N, C, H, W) -> (N, C', S H, S W), or of `size`, which may be a little smaller.

    Args:
        kind: one of the five above.
        factor: S.
        maps: (C, C') of "transposed"; the others have no weights and keep C.
        kernel: of "transposed", at least S; S unless said. Its border is cut so that centres of
            blocks stay where they are.

    Raises `ModelError` for an unknown kind, or numbers that do not fit together.
    """

    def __init__(
        self, kind: str, factor: int = 2, *, maps: Pair | None = None, kernel: int | None = None
    ) -> None:
        super().__init__()
        if kind not in get_args(Kind):
            raise ModelError(unknown("upsampling", kind, get_args(Kind)))
        if (kind == "transposed") != (maps is not None):
            raise ModelError(f"transposed upsampling alone has maps=(C, C'), given {kind}: {maps}")
        self.kind, self.factor = kind, whole("factor", factor)
        if maps is not None:
            self.conv = up_convolution(*maps, self.factor, kernel or self.factor)

    def forward(self, x: Tensor, places: Tensor | None = None, size: Pair | None = None) -> Tensor:
        """Args:
        places: int64, the shape of x: what `nn.MaxPool2d(S, return_indices=True)` gave with the
            maxima, on a map of `size`; for "max_unpool" alone.
        size: (H', W') of the result; S times the input's unless said.
        """
        size = size or (self.factor * x.shape[-2], self.factor * x.shape[-1])
        if (self.kind == "max_unpool") != (places is not None):
            raise ModelError(f"max_unpool alone takes the maxima's places, not {self.kind}")
        if places is not None:
            window = (self.factor, self.factor)
            return F.max_unpool2d(x, places, window, window, (0, 0), list(size))
        return cut(self._larger(x), size)

    def _larger(self, x: Tensor) -> Tensor:
        if self.kind == "transposed":
            return self.conv(x)  # type: ignore[no-any-return]
        if self.kind == "bed_of_nails":
            return _nails(x, stride=(self.factor, self.factor))  # type: ignore[no-any-return]
        if self.kind == "nearest":
            return F.interpolate(x, scale_factor=float(self.factor), mode="nearest")
        return bilinear(x, self.factor)

    def extra_repr(self) -> str:
        return f"{self.kind}, factor={self.factor}"


def bilinear(x: Tensor, factor: int) -> Tensor:
    """(N, C, H, W) -> (N, C, S H, S W), each value at its block's centre; as it is where S is 1."""
    if factor == 1:
        return x
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


def up_convolution(
    maps_in: int, maps: int, factor: int, kernel: int, *, bias: bool = True, groups: int = 1
) -> nn.ConvTranspose2d:
    """(N, C, H, W) -> (N, maps, S H, S W): a transposed convolution, its border cut off evenly.

    Raises `ModelError` for a kernel below S, which would leave gaps.
    """
    if kernel < factor:
        raise ModelError(f"a kernel of at least {factor} covers a stride of {factor}, not {kernel}")
    border = (kernel - factor + 1) // 2
    odd = (kernel - factor) % 2
    return nn.ConvTranspose2d(
        maps_in, maps, kernel, factor, border, output_padding=odd, bias=bias, groups=groups
    )


def bilinear_filter(kernel: int) -> Tensor:
    """float32 (K, K): (1 - |i - c| / f) (1 - |j - c| / f), c the middle, f = ceil(K / 2).

    As the weights of a transposed convolution of stride f it is bilinear interpolation (Long,
    Shelhamer, Darrell 2015, section 3.3).
    """
    reach = (kernel + 1) // 2
    line = 1 - (torch.arange(kernel) - (kernel - 1) / 2).abs() / reach
    return line[:, None] * line


def make_bilinear(layer: nn.ConvTranspose2d) -> None:
    """Set the weights (C, C' / groups, K, K), in place: every map to itself, bilinearly."""
    with torch.no_grad():
        layer.weight.zero_()
        own = range(layer.in_channels)
        other = [number % layer.weight.shape[1] for number in own]
        layer.weight[list(own), other] = bilinear_filter(int(layer.kernel_size[0])).to(layer.weight)
        if layer.bias is not None:
            layer.bias.zero_()
