"""Gaussian filtering of points in a few dimensions, on the permutohedral lattice.

sum_j exp(-|p_i - p_j|^2 / 2) x_j takes P^2 products; here it takes a few dozen per point: every
point spreads its values over the d + 1 corners of the simplex around it (splat), the corners mix
with their neighbours along d + 1 axes (blur), and every point reads its corners (slice). Adams,
Baek, Davis 2010, "Fast high-dimensional filtering using the permutohedral lattice".
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hubel.engine.ops.base import Case, Grads, Op, Saved, Shapes, register
from hubel.errors import ModelError

ROOM = 2**62  # codes up to here are exact


class Lattice:
    """The lattice under `points` float (P, d), measured in standard deviations of the Gaussian.

    Built once, it filters any number of values: `Lattice(points).filter(x)`. Two deviations from
    the released code: empty places that join two or more touched ones are there too (`bridges`),
    as what is blurred into a missing place is lost; without them errors are 1.3 to 2 times as
    large on photos. And values are multiplied by (d + 2) / 4, so that a point's weight on itself
    is 1 on average, as the Gaussian's is; with 1 / (1 + 2^-d), which makes it 1 for points on a
    corner, sums come out 40 % low in five dimensions.

    Attributes:
        points, axes, size: P, d, and how many places the lattice has (M).
        corners, weights: int32 and float (P, d + 1): the places around each point, and its
            barycentric coordinates among them, which sum to 1.
        neighbours: int32 (d + 1, M + 1, 3): along each axis the place itself, the next, the one
            before; M stands for those that are missing.

    Raises `ModelError` for points that are not (P, d), not floating or not finite.
    """

    def __init__(self, points: Tensor, *, bridges: bool = True) -> None:
        if points.dim() != 2 or not points.numel() or not points.is_floating_point():
            given = f"{points.dtype} {tuple(points.shape)}"
            raise ModelError(f"a lattice takes floating points (P, d), at least one; given {given}")
        if not bool(points.isfinite().all()):
            raise ModelError("a lattice takes finite points, given some that are infinite or NaN")
        points = points.detach()
        self.points, self.axes = points.shape
        nearest, order, weights = _simplex(_lifted(points.double()))
        base, steps = _coded(nearest)
        walk = steps[order.flip(1)[:, : self.axes]]  # corner r: r steps from the first
        codes = torch.cat([base[:, None], walk], 1).cumsum(1).flatten()
        self.weights = weights.to(points.dtype)
        places = self._group(codes, steps, bridges)
        self.size = len(places)
        self.neighbours = _neighbours(places, steps)

    def _group(self, codes: Tensor, steps: Tensor, bridges: bool) -> Tensor:
        """Number the places (codes, sorted, are returned) and list who splats to each."""
        ranked, order = codes.sort()
        places, ids = torch.unique_consecutive(ranked, return_inverse=True)
        if bridges:
            touched, places = places, _bridged(places, steps)
            ids = torch.searchsorted(places, touched)[ids]
        self.corners = torch.empty_like(ids).scatter_(0, order, ids).int().view_as(self.weights)
        ends = torch.arange(len(places) + 2, device=codes.device)  # one bag more: the missing
        self._offsets = torch.searchsorted(ids, ends).int()
        self._splatters = (order // (self.axes + 1)).int()
        self._shares = self.weights.flatten()[order]
        return places

    def splat(self, x: Tensor) -> Tensor:
        """S^T: values (P, K) of the points -> (M + 1, K) of the places; the last row is 0."""
        shares = self._shares.to(x.dtype)
        return F.embedding_bag(
            self._splatters, x, self._offsets, mode="sum",
            per_sample_weights=shares, include_last_offset=True,
        )  # fmt: skip

    def blur(self, v: Tensor, *, back: bool = False) -> Tensor:
        """B: (1, 2, 1) / 2 along each axis, (M + 1, K) -> the same; B^T in reverse order."""
        taps = v.new_tensor([1, 0.5, 0.5]).expand(len(v), 3).contiguous()
        for places in reversed(self.neighbours) if back else self.neighbours:
            v = F.embedding_bag(places, v, mode="sum", per_sample_weights=taps)
        return v

    def slice(self, v: Tensor) -> Tensor:
        """S: values (M + 1, K) of the places -> (P, K) of the points."""
        weights = self.weights.to(v.dtype)
        return F.embedding_bag(self.corners, v, mode="sum", per_sample_weights=weights)

    def filter(self, x: Tensor, *, back: bool = False) -> Tensor:
        """About sum_j exp(-|p_i - p_j|^2 / 2) x_j: (P, K) -> (P, K); `back`: its transpose."""
        return self.slice(self.blur(self.splat(x.contiguous()), back=back)) * self.gain

    @property
    def gain(self) -> float:
        """What makes the weight of a point on itself 1, averaged over places in the simplex."""
        return (self.axes + 2) / 4

    def diagonal(self) -> Tensor:
        """The weight of each point on itself: (P,), as it is where no place is missing.

        Corners r and s are k = |r - s| steps apart, which the blur crosses in two ways: k steps on
        or d + 1 - k steps back, as all d + 1 steps together lead nowhere.
        """
        r = torch.arange(self.axes + 1, device=self.weights.device, dtype=self.weights.dtype)
        k = (r[:, None] - r).abs()
        ways = 0.5**k + 0.5 ** (self.axes + 1 - k) * (1 + (k == 0).to(r))
        return ((self.weights @ ways) * self.weights).sum(1) * self.gain

    def __repr__(self) -> str:
        return f"Lattice({self.points} points, {self.axes} axes, {self.size} places)"


def _lifted(points: Tensor) -> Tensor:
    """(P, d) -> (P, d + 1) with sum 0, an isometry up to scale: splat, blur and slice together
    have the variance 2/3 (d + 1)^2 there."""
    d = points.size(1)
    rows = torch.ones(d, d + 1, dtype=points.dtype, device=points.device).tril()
    i = torch.arange(d, device=points.device)
    rows[i, i + 1] = -(i + 1).to(rows)
    return points @ (rows / rows.norm(dim=1, keepdim=True)) * ((d + 1) * math.sqrt(2 / 3))


def _simplex(lifted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest place of remainder 0 (P, d + 1), axes in falling order of what is left over
    (P, d + 1), barycentric weights of the d + 1 corners (P, d + 1)."""
    n = lifted.size(1)  # d + 1
    nearest = (lifted / n).round()  # in units of n
    left = lifted / n - nearest
    i = torch.arange(n, device=lifted.device)
    before = (left[:, None] > left[:, :, None]) | (
        (left[:, None] == left[:, :, None]) & (i < i[:, None])
    )
    rank = before.sum(2) + nearest.sum(1, keepdim=True).long()  # moved so that the sum is 0
    wrap = torch.div(rank, n, rounding_mode="floor")
    rank, nearest, left = rank - n * wrap, nearest - wrap, left + wrap
    order = torch.empty_like(rank).scatter_(1, rank, i.expand_as(rank))
    falling = left.gather(1, order)
    gaps = (falling[:, :-1] - falling[:, 1:]).flip(1)
    first = 1 - (falling[:, :1] - falling[:, -1:])
    return nearest.long(), order, torch.cat([first, gaps], 1)


def _coded(nearest: Tensor) -> tuple[Tensor, Tensor]:
    """One number per place (P,), and what a step along each axis adds to it (d + 1,).

    A step adds 1 to all coordinates but one, from which it takes d: d of the steps are a basis of
    the lattice, and in units of them places are d small integers, packed into one.
    """
    d = nearest.size(1) - 1
    cells = nearest[:, -1:] - nearest[:, :-1]
    low, high = cells.aminmax(dim=0)
    extents = (high - low + 9).tolist()  # corners 1 more, bridges 1 more, their neighbours 1 more
    if math.prod(extents) < ROOM:
        radix = [math.prod(extents[:k]) for k in range(d)]
    else:  # numbers by chance: two of a million places share a code once in a million lattices
        chance = torch.Generator().manual_seed(0)
        radix = (torch.randint(2**62, (d,), generator=chance) | 1).tolist()
    digits = torch.tensor(radix, device=nearest.device)
    return ((cells - low + 4) * digits).sum(1), torch.cat([digits, -digits.sum(0, keepdim=True)])


def _bridged(places: Tensor, steps: Tensor) -> Tensor:
    """The places, and with them those that have two or more of them as neighbours."""
    around = torch.cat([places + sign * s for s in steps for sign in (1, -1)])
    found, times = torch.unique(around, return_counts=True)
    return torch.unique(torch.cat([places, found[times > 1]]))


def _neighbours(places: Tensor, steps: Tensor) -> Tensor:
    """int32 (d + 1, M + 1, 3): itself, next, before; M where there is none."""
    m = len(places)
    itself = torch.arange(m + 1, device=places.device)
    table = itself.int().repeat(len(steps), 3, 1)
    for row, step in zip(table, steps, strict=True):
        for column, wanted in ((1, places + step), (2, places - step)):
            at = torch.searchsorted(places, wanted).clamp_(max=m - 1)
            row[column, :m] = torch.where(places[at] == wanted, at, m).int()
    return table.mT.contiguous()


@register
class LatticeFilter(Op):
    """x (P, K) at the points of a `lattice` -> (P, K): Gaussian weighted sums over all points."""

    name = "lattice_filter"
    linear_in = ("x",)
    formula = "y = S B S^T x, about sum_j exp(-|p_i - p_j|^2 / 2) x_j;  dx = S B^T S^T dy"
    source = "Adams, Baek, Davis 2010; Krähenbühl and Koltun 2011"

    @staticmethod
    def forward(x: Tensor, *, lattice: Lattice) -> tuple[Tensor, Saved]:
        """Splat, blur, slice."""
        if x.dim() != 2 or len(x) != lattice.points:
            raise ModelError(
                f"a lattice of {lattice.points} points filters values ({lattice.points}, K), "
                f"given {tuple(x.shape)}"
            )
        return lattice.filter(x), (lattice,)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """The same, the blur's axes in reverse order: its steps are symmetric, not its product."""
        (lattice,) = saved
        return (lattice.filter(dy, back=True),)

    @classmethod
    def macs(cls, shapes: Shapes, **options: Any) -> int:
        """d + 1 corners twice, two neighbours along d + 1 axes."""
        lattice = options["lattice"]
        each = (lattice.axes + 1) * (2 * lattice.points + 2 * lattice.size)
        return int(each * shapes.outputs[0][1])

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """Who is near is in the points."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """One to five axes, far and near, with and without bridges."""
        chance = torch.Generator().manual_seed(7)
        for axes in (1, 2, 5):
            points = 1.5 * torch.randn(23, axes, generator=chance, dtype=torch.float64)
            options = {"lattice": Lattice(points)}
            yield Case(f"{axes} axes", lambda r: (r(23, 3),), options)
        yield Case("no bridges", lambda r: (r(23, 3),), {"lattice": Lattice(points, bridges=False)})
        yield Case(
            "other points", lambda r: (r(22, 3),), options,
            error=r"of 23 points filters values \(23, K\), given \(22, 3\)",
        )  # fmt: skip
