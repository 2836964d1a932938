"""Lp pooling: the p-norm of each window, between the sum and the maximum."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hubel.engine.ops.base import (
    Adapted,
    Case,
    Grads,
    Saved,
    register,
)  # fmt: skip
from hubel.engine.ops.columns import Geometry, columns, uncolumns
from hubel.engine.ops.pool import Pool, check_window, geometry_of, window_sizes


def _power_adapt(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Adapted | None:
    n = input.dim() - 2
    if n < 1:
        return None
    options = geometry_of(n, kernel_size, stride, 0)
    return (input,), {
        "kernel": options["kernel"], "stride": options["stride"], "padding": options["padding"],
        "power": float(norm_type), "ceil_mode": ceil_mode,
    }  # fmt: skip


@register
class PowerPool(Pool):
    """Lp pooling: x (N, C, H, W) -> (N, C, Ho, Wo). p = 1 sums, p = infinity is max pooling.

    As torch has it, without absolute values: the power of a negative number stands, and a window
    whose sum is not positive gives 0 and takes no gradient.
    """

    name = "power_pool"
    spellings = {f"functional.lp_pool{n}d": _power_adapt for n in (1, 2, 3)}
    formula = "y = (sum of x^p)^(1/p);  dx = dy y^(1-p) x^(p-1)"
    source = "Sermanet et al. 2012"

    @staticmethod
    def forward(
        x: Tensor, *, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...],
        power: float, ceil_mode: bool = False,
    ) -> tuple[Tensor, Saved]:  # fmt: skip
        """Sum of powers over each window, then its root."""
        geometry = Geometry(kernel, stride, padding, (1,) * len(kernel))
        out = check_window(x, geometry, ceil_mode)
        window = tuple(range(2, 2 + len(kernel)))
        count = window_sizes(x, geometry, out, True)
        # torch's own takes the mean of a window and multiplies by its full size
        total = columns(x**power, geometry, out).sum(window) / count * math.prod(kernel)
        y = total.clamp(min=0) ** (1 / power)
        return y, (x, y, count, power, geometry)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """The root's slope, spread over the window, times the power's."""
        x, y, count, power, geometry = saved
        up = torch.where(y > 0, dy * y ** (1 - power), torch.zeros_like(dy))
        up = up / count * math.prod(geometry.kernel)
        n = len(geometry.kernel)
        cols = up.reshape(*dy.shape[:2], *[1] * n, *dy.shape[2:])
        cols = cols.expand(*dy.shape[:2], *geometry.kernel, *dy.shape[2:])
        return (uncolumns(cols, geometry, x.shape[2:]) * x ** (power - 1),)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Second and third power, partial windows, one axis."""
        two = {"kernel": (3, 2), "stride": (2, 2), "padding": (0, 0), "power": 2.0}
        yield Case("squares", lambda r: (r(2, 3, 7, 5),), two)
        yield Case("cubes", lambda r: (r(2, 3, 7, 5).abs() + 0.1,), {**two, "power": 3.0})
        yield Case("partial windows", lambda r: (r(2, 3, 8, 7),), {**two, "ceil_mode": True})
        yield Case(
            "1-d", lambda r: (r(2, 3, 9),),
            {"kernel": (3,), "stride": (3,), "padding": (0,), "power": 2.0},
        )  # fmt: skip
