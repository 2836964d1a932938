"""Windows as columns (im2col), back again (col2im), and the matrix that a sliding kernel is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Geometry(NamedTuple):
    """How a kernel of spatial size K slides; one number per axis each."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def out(self, size: Sequence[int]) -> tuple[int, ...]:
        """Size out of size in: floor((H + 2P - D (K - 1) - 1) / S) + 1."""
        return tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(size, *self, strict=True)
        )

    def transposed_out(self, size: Sequence[int], extra: Sequence[int]) -> tuple[int, ...]:
        """Size out of a transposed convolution: (H - 1) S - 2P + D (K - 1) + 1 + extra."""
        return tuple(
            (n - 1) * s - 2 * p + d * (k - 1) + 1 + e
            for n, k, s, p, d, e in zip(size, *self, extra, strict=True)
        )


def columns(x: Tensor, geometry: Geometry, out: Sequence[int], fill: float = 0) -> Tensor:
    """Every window as a column: (N, C, H, W) -> (N, C, K..., Ho, Wo), `fill` outside of `x`.

    One strided view per kernel position; any number of spatial axes.
    """
    padded = _pad(x, geometry, out, fill)
    pieces = [padded[last(_reach(place, geometry, out))] for place in _places(geometry.kernel)]
    return torch.stack(pieces, dim=2).unflatten(2, geometry.kernel)


def uncolumns(cols: Tensor, geometry: Geometry, size: Sequence[int]) -> Tensor:
    """The adjoint of `columns`: add every window back to where it was read; (N, C, *size)."""
    n = len(geometry.kernel)
    out = cols.shape[-n:]
    room = _padded_size(size, geometry, out)
    padded = cols.new_zeros(*cols.shape[:2], *room)
    for place in _places(geometry.kernel):
        at: Any = (slice(None), slice(None), *place)
        padded[last(_reach(place, geometry, out))] += cols[at]
    inner = tuple(slice(p, p + n) for p, n in zip(geometry.padding, size, strict=True))
    return padded[last(inner)]


def last(axes: Sequence[slice]) -> Any:
    """An index of these slices of the last axes."""
    return (..., *axes)


def _places(kernel: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, kernel))


def _reach(place: Sequence[int], geometry: Geometry, out: Sequence[int]) -> tuple[slice, ...]:
    """The places that one kernel position touches, over all windows."""
    return tuple(
        slice(k * d, k * d + (o - 1) * s + 1, s)
        for k, d, s, o in zip(place, geometry.dilation, geometry.stride, out, strict=True)
    )


def _padded_size(size: Sequence[int], geometry: Geometry, out: Sequence[int]) -> tuple[int, ...]:
    """Room for the padding in front, and behind for the padding or the last window."""
    return tuple(
        max(n + 2 * p, (o - 1) * s + d * (k - 1) + 1)
        for n, o, k, s, p, d in zip(size, out, *geometry, strict=True)
    )


def _pad(x: Tensor, geometry: Geometry, out: Sequence[int], fill: float) -> Tensor:
    size = x.shape[2:]
    room = _padded_size(size, geometry, out)
    sides: list[int] = []
    for n, p, r in reversed(list(zip(size, geometry.padding, room, strict=True))):
        sides += [p, r - n - p]
    return torch.nn.functional.pad(x, sides, value=fill) if any(sides) else x


def toeplitz(
    x: Tensor, w: Tensor, geometry: Geometry, groups: int, argument: str,
    out: tuple[int, ...] | None = None,
) -> Tensor:  # fmt: skip
    """The convolution as a sparse matrix, for one image.

    With `argument` "x" it is W (O * Ho * Wo, C * H * W) in y = W x; with "w" it is X
    (O * Ho * Wo, O * C / G * K * K) in y = X w. x (1, C, H, W); no bias.
    """
    size, device = x.shape[2:], x.device
    out = out or geometry.out(size)
    axes = [torch.arange(n, device=device) for n in (w.size(0), w.size(1), *geometry.kernel, *out)]
    o, c, *rest = torch.meshgrid(*axes, indexing="ij")
    n = len(size)
    k, i = rest[:n], rest[n:]
    where = [at * s - p + kk * d for at, kk, s, p, d in zip(i, k, *geometry[1:], strict=True)]
    inside = torch.ones_like(o, dtype=torch.bool)
    for v, extent in zip(where, size, strict=True):
        inside &= (v >= 0) & (v < extent)
    channel = c + o.div(w.size(0) // groups, rounding_mode="floor") * w.size(1)
    row = _flat((o, *i), (w.size(0), *out))
    source = _flat((channel, *where), (x.size(1), *size))
    weight = _flat((o, c, *k), tuple(w.shape))
    if argument == "x":
        column, values, width = source, w.reshape(-1)[weight[inside]], math.prod(x.shape[1:])
    else:
        column, values, width = weight, x.reshape(-1)[source[inside]], w.numel()
    places = torch.stack([row[inside], column[inside]])
    shape = (w.size(0) * math.prod(out), width)
    return torch.sparse_coo_tensor(places, values, shape, check_invariants=False).coalesce()


def _flat(indices: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Row-major position of multi-dimensional indices."""
    flat = torch.zeros_like(indices[0])
    for index, extent in zip(indices, shape, strict=True):
        flat = flat * extent + index
    return flat
