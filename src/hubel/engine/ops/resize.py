"""Resampling planes: nearest, linear and cubic upsampling, adaptive averages.

All of these are separable linear maps: one matrix per axis, y = A x B^T in two dimensions. So
dx = A^T dy B, and the whole map is the Kronecker product of A and B.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor

from hubel.engine.ops.base import (
    SINGLE,
    Adapted,
    Case,
    Grads,
    Op,
    Saved,
    Shapes,
    Window,
    one_hot,
    register,
    tuple_of,
)  # fmt: skip
from hubel.engine.ops.columns import last
from hubel.errors import ModelError

CUBIC = -0.75  # the free parameter of Keys' kernel as torch and OpenCV set it


def bins(n: int, o: int) -> list[tuple[int, int]]:
    """The o stretches, from .. to, of an adaptive pooling over n entries; they may overlap."""
    return [(i * n // o, -(-(i + 1) * n // o)) for i in range(o)]


def averages(n: int, o: int) -> Tensor:
    """(o, n): row i averages stretch i."""
    a = torch.zeros(o, n, dtype=torch.float64)
    for i, (low, high) in enumerate(bins(n, o)):
        a[i, low:high] = 1 / (high - low)
    return a


def nearest(n: int, o: int, scale: float | None, exact: bool = False) -> Tensor:
    """(o, n): each output copies one input; `exact` measures from pixel centres."""
    # torch finds the place in float32; so do we, or a rounding apart would be a pixel apart
    step = torch.tensor(1 / scale if scale else n / o, dtype=torch.float32)
    places = torch.arange(o, dtype=torch.float32) + (0.5 if exact else 0)
    return one_hot((places * step).floor().long().clamp(max=n - 1), n, averages(1, 1))


def _places(n: int, o: int, scale: float | None, corners: bool) -> Tensor:
    """Where each output lies on the input's axis, in entries; corners (or edges) aligned."""
    i = torch.arange(o, dtype=torch.float64)
    if corners:
        return i * ((n - 1) / (o - 1) if o > 1 else 0)
    return (i + 0.5) * (1 / scale if scale else n / o) - 0.5


def linear(n: int, o: int, scale: float | None, corners: bool) -> Tensor:
    """(o, n): each output mixes the two inputs around it by their distance."""
    s = _places(n, o, scale, corners).clamp(min=0)
    low = s.floor().long().clamp(max=n - 1)
    t = (s - low)[:, None]
    return one_hot(low, n, t) * (1 - t) + one_hot((low + 1).clamp(max=n - 1), n, t) * t


def cubic(n: int, o: int, scale: float | None, corners: bool) -> Tensor:
    """(o, n): each output mixes the four inputs around it by Keys' cubic kernel (1981)."""
    s = _places(n, o, scale, corners)
    low = s.floor().long()
    t = s - low
    a = torch.zeros(o, n, dtype=torch.float64)
    for k in (-1, 0, 1, 2):
        weight = _keys((t - k).abs())[:, None]
        a += one_hot((low + k).clamp(0, n - 1), n, a) * weight
    return a


def _keys(d: Tensor) -> Tensor:
    near = ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * CUBIC - 4 * CUBIC
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


class Separable(Op):
    """x (N, C, *S) -> (N, C, *size) by one matrix per axis. Subclasses say which."""

    linear_in = ("x",)

    @staticmethod
    def maps(x: Tensor, **options: Any) -> list[Tensor]:
        """One (out, in) matrix per spatial axis, in x's dtype and on its device."""
        raise NotImplementedError

    @classmethod
    def matrix(cls, tensors: Sequence[Any], options: dict[str, Any], argument: str) -> Tensor:
        """Kronecker product of the axes' matrices, once per channel."""
        x = tensors[0]
        whole = torch.eye(x.size(1), dtype=x.dtype, device=x.device)
        for a in cls.maps(x, **options):
            whole = torch.kron(whole, a)
        return whole.to_sparse()


def _apply(maps: list[Tensor], x: Tensor) -> Tensor:
    """Each matrix along its axis."""
    for axis, a in enumerate(maps, start=2):
        x = torch.tensordot(x, a, dims=([axis], [1])).movedim(-1, axis)
    return x


def _made(x: Tensor, kind: Callable[..., Tensor], size: Sequence[int], *rest: Any) -> list[Tensor]:
    if min(size) < 1:
        raise ModelError(f"cannot resample {tuple(x.shape[2:])} to {tuple(size)}")
    return [
        kind(n, o, *[r[i] if isinstance(r, tuple) else r for r in rest]).to(x)
        for i, (n, o) in enumerate(zip(x.shape[2:], size, strict=True))
    ]


def _adaptive(n: int) -> Any:
    def adapt(self: Tensor, output_size: Any) -> Adapted | Literal["single"]:
        if self.dim() != n + 2:
            return SINGLE
        given = output_size if isinstance(output_size, int) else list(output_size)
        return (self,), {"size": tuple_of(given, n)}

    return adapt


@register
class AdaptiveAveragePool(Separable):
    """x (N, C, *S) -> (N, C, *size): the means of `size` nearly equal stretches per axis."""

    name = "adaptive_average_pool"
    spellings = {
        **{f"adaptive_avg_pool{n}d.default": _adaptive(n) for n in (1, 2, 3)},
        **{f"_adaptive_avg_pool{n}d.default": _adaptive(n) for n in (2, 3)},
    }
    formula = "y = A x B^T, rows of A average a stretch;  dx = A^T dy B"
    source = "global average pooling (size 1): Lin et al. 2013"

    @staticmethod
    def maps(x: Tensor, *, size: tuple[int, ...]) -> list[Tensor]:  # type: ignore[override]
        """Averaging matrices."""
        return _made(x, averages, size)

    @staticmethod
    def forward(x: Tensor, *, size: tuple[int, ...]) -> tuple[Tensor, Saved]:
        """Size 1 is the global average."""
        maps = AdaptiveAveragePool.maps(x, size=size)
        return _apply(maps, x), (maps,)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """The transposed matrices."""
        return (_apply([a.mT for a in saved[0]], dy),)

    @classmethod
    def fast_forward(cls, x: Any, **options: Any) -> tuple[Any, Saved]:
        """By torch's kernel, in two dimensions."""
        if x.dim() != 4:
            return cls.forward(x, **options)
        return torch.ops.aten._adaptive_avg_pool2d(x, options["size"]), (x, "torch")

    @classmethod
    def fast_backward(cls, dy: Any, saved: Saved, needs: tuple[bool, ...]) -> Grads:
        """By torch's kernel."""
        if len(saved) == 1:
            return cls.backward(dy, saved)
        return (torch.ops.aten._adaptive_avg_pool2d_backward(dy, saved[0]),)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> Any:
        """Stretches of one length are windows; else everything."""
        x = shapes.inputs[0]
        assert x is not None
        if any(n % o for n, o in zip(x[2:], options["size"], strict=True)):
            return None
        return tuple(
            Window(Fraction(n // o), Fraction(0), Fraction(n // o - 1))
            for n, o in zip(x[2:], options["size"], strict=True)
        )

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Even and uneven stretches, one and three axes."""
        yield Case("uneven", lambda r: (r(2, 3, 7, 5),), {"size": (3, 2)})
        yield Case("global", lambda r: (r(2, 3, 7, 5),), {"size": (1, 1)})
        yield Case("larger", lambda r: (r(1, 2, 3, 2),), {"size": (5, 3)})
        yield Case("1-d", lambda r: (r(2, 3, 7),), {"size": (4,)})
        yield Case("3-d", lambda r: (r(1, 2, 5, 3, 4),), {"size": (2, 2, 3)})


@register
class AdaptiveMaxPool(Op):
    """x (..., *S) -> (values, places), each (..., *size): the largest of each stretch.

    On a slice of a feature map this is RoI max pooling. Places are row-major, int64.
    """

    name = "adaptive_max_pool"
    spellings = {
        f"adaptive_max_pool{n}d.default": (
            lambda self, output_size, n=n: (
                (self,),
                {
                    "size": tuple_of(
                        output_size if isinstance(output_size, int) else list(output_size), n
                    )
                },
            )
        )
        for n in (1, 2, 3)
    }
    formula = "y = max of each stretch;  dx = dy at the winner's place"

    @staticmethod
    def forward(x: Tensor, *, size: tuple[int, ...]) -> tuple[tuple[Tensor, Tensor], Saved]:
        """Stretch by stretch; ties go to the first."""
        n = len(size)
        plane = tuple(x.shape[-n:])
        lead = tuple(x.shape[:-n])
        stretches = [bins(extent, o) for extent, o in zip(plane, size, strict=True)]
        values, places = [], []
        grid = torch.arange(math.prod(plane), device=x.device).view(plane)
        for where in torch.cartesian_prod(*map(torch.arange, size)).view(-1, n).tolist():
            part = tuple(slice(*stretches[axis][i]) for axis, i in enumerate(where))
            value, place = x[last(part)].flatten(-n).max(-1)
            values.append(value)
            places.append(grid[part].reshape(-1)[place])
        y = torch.stack(values, -1).view(*lead, *size)
        i = torch.stack(places, -1).view(*lead, *size)
        return (y, i), (tuple(x.shape), i, n)

    @staticmethod
    def backward(dy: Any, saved: Saved) -> Grads:
        """Stretches may share a winner: its gradients add up."""
        shape, i, n = saved
        flat = dy[0].new_zeros(*shape[:-n], math.prod(shape[-n:]))
        flat.scatter_add_(-1, i.flatten(-n), dy[0].flatten(-n))
        return (flat.view(shape),)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """Stretches are no windows."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Even and uneven stretches."""
        yield Case("uneven", lambda r: (r(2, 3, 7, 5),), {"size": (3, 2)})
        yield Case("1-d", lambda r: (r(2, 3, 7),), {"size": (4,)})
        yield Case("3-d", lambda r: (r(1, 2, 5, 3, 4),), {"size": (2, 2, 3)})


def _sizes(x: Tensor, output_size: Any, factors: Any) -> tuple[tuple[int, ...], Any]:
    if output_size is not None:
        return tuple(output_size), None
    scales = tuple(float(f) for f in factors)
    return tuple(int(n * f) for n, f in zip(x.shape[2:], scales, strict=True)), scales


def _upsampled(kind: str) -> Any:
    def adapt(input: Tensor, output_size: Any, *rest: Any, **named: Any) -> Adapted:
        size, scales = _sizes(input, output_size, named.get("scale_factors"))
        options = {"size": size, "scales": scales, "kind": kind}
        return (input,), {**options, "corners": bool(named.get("align_corners"))}

    return adapt


@register
class Upsample(Separable):
    """x (N, C, *S) -> (N, C, *size), up or down, without smoothing.

    `kind`: "nearest", "nearest-exact", "linear" (bilinear, trilinear) or "cubic"; `corners` lays
    the outer pixels' centres on each other, else their edges; `scales` is what the caller asked
    for, where size is only its rounding.
    """

    name = "upsample"
    spellings = {
        **{f"upsample_nearest{n}d.vec": _upsampled("nearest") for n in (1, 2, 3)},
        **{f"_upsample_nearest_exact{n}d.vec": _upsampled("nearest-exact") for n in (1, 2, 3)},
        "upsample_linear1d.vec": _upsampled("linear"),
        "upsample_bilinear2d.vec": _upsampled("linear"),
        "upsample_trilinear3d.vec": _upsampled("linear"),
        "upsample_bicubic2d.vec": _upsampled("cubic"),
    }
    formula = "y = A x B^T, rows of A mix neighbours;  dx = A^T dy B"
    source = "cubic: Keys 1981"

    @staticmethod
    def maps(  # type: ignore[override]
        x: Tensor, *, size: tuple[int, ...], kind: str, corners: bool = False, scales: Any = None
    ) -> list[Tensor]:
        """Resampling matrices."""
        if kind.startswith("nearest"):
            return _made(x, nearest, size, scales, kind == "nearest-exact")
        return _made(x, linear if kind == "linear" else cubic, size, scales, corners)

    @staticmethod
    def forward(
        x: Tensor, *, size: tuple[int, ...], kind: str, corners: bool = False, scales: Any = None
    ) -> tuple[Tensor, Saved]:
        """Axis by axis."""
        maps = Upsample.maps(x, size=size, kind=kind, corners=corners, scales=scales)
        return _apply(maps, x), (maps,)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """The transposed matrices."""
        return (_apply([a.mT for a in saved[0]], dy),)

    @classmethod
    def fast_forward(cls, x: Any, **options: Any) -> tuple[Any, Saved]:
        """By torch's kernel, for planes by nearest and linear."""
        kind, size, corners = options["kind"], options["size"], options["corners"]
        scales = options["scales"] or (None, None)
        if x.dim() != 4 or kind not in ("nearest", "linear"):
            return cls.forward(x, **options)
        aten = torch.ops.aten
        if kind == "nearest":
            y = aten.upsample_nearest2d(x, size, *scales)
        else:
            y = aten.upsample_bilinear2d(x, size, corners, *scales)
        return y, (tuple(x.shape), size, scales, kind, corners)

    @classmethod
    def fast_backward(cls, dy: Any, saved: Saved, needs: tuple[bool, ...]) -> Grads:
        """By torch's kernel."""
        if len(saved) == 1:
            return cls.backward(dy, saved)
        shape, size, scales, kind, corners = saved
        aten = torch.ops.aten
        if kind == "nearest":
            return (aten.upsample_nearest2d_backward(dy, size, shape, *scales),)
        return (aten.upsample_bilinear2d_backward(dy, size, shape, corners, *scales),)

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> tuple[Window, ...]:
        """Bounds: the neighbours that may be mixed, around the output's place."""
        x = shapes.inputs[0]
        assert x is not None
        reach = {"nearest": 1, "nearest-exact": 1, "linear": 1, "cubic": 2}[options["kind"]]
        found = []
        for n, o in zip(x[2:], options["size"], strict=True):
            step = Fraction(n, o)
            at = (step - 1) / 2
            low, high = (
                (step - 1, Fraction(0))
                if options["kind"] == "nearest"
                else (at - reach, at + reach)
            )
            found.append(Window(step, low, high))
        return tuple(found)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """All kinds; up, down, by a factor that does not divide; corners."""
        for kind in ("nearest", "nearest-exact", "linear", "cubic"):
            plain = {"kind": kind, "corners": False, "scales": None}
            yield Case(f"{kind} up", lambda r: (r(2, 3, 5, 4),), {**plain, "size": (11, 7)})
            yield Case(f"{kind} down", lambda r: (r(2, 3, 7, 5),), {**plain, "size": (3, 2)})
            yield Case(
                f"{kind} by a factor", lambda r: (r(2, 3, 5, 4),),
                {**plain, "size": (8, 6), "scales": (1.7, 1.6)},
            )  # fmt: skip
        corners = {"corners": True, "scales": None, "size": (11, 7)}
        yield Case("corners", lambda r: (r(2, 3, 5, 4),), {**corners, "kind": "linear"})
        yield Case("cubic corners", lambda r: (r(2, 3, 5, 4),), {**corners, "kind": "cubic"})
        yield Case(
            "1-d", lambda r: (r(2, 3, 5),),
            {"kind": "linear", "corners": False, "scales": None, "size": (9,)},
        )  # fmt: skip
        yield Case(
            "to nothing", lambda r: (r(1, 1, 3, 3),),
            {"kind": "linear", "corners": False, "scales": None, "size": (0, 2)},
            error="cannot resample",
        )  # fmt: skip
