"""Elementary functions, element by element: exp, log, powers, sines."""

from __future__ import annotations

import math
from functools import partial

import torch

from hubel.engine.ops import activate
from hubel.engine.ops.activate import inside, off, off_zero, positive

pointwise = partial(activate.pointwise, home=__name__)

pointwise("neg", lambda x: -x, lambda x: -torch.ones_like(x), formula="y = -x;  dx = -dy")
pointwise("exp", torch.exp, lambda y: y, reads="y", formula="y = exp(x);  dx = y dy")
pointwise(
    "exp2", torch.exp2, lambda y: y * math.log(2), reads="y", formula="y = 2^x;  dx = log(2) y dy"
)
pointwise(
    "expm1", torch.expm1, lambda y: y + 1, reads="y", formula="y = exp(x) - 1;  dx = (y + 1) dy"
)
pointwise("log", torch.log, lambda x: 1 / x, domain=positive, formula="y = log(x);  dx = dy / x")
pointwise(
    "log2", torch.log2, lambda x: 1 / (x * math.log(2)), domain=positive,
    formula="y = log2(x);  dx = dy / (x log 2)",
)  # fmt: skip
pointwise(
    "log10", torch.log10, lambda x: 1 / (x * math.log(10)), domain=positive,
    formula="y = log10(x);  dx = dy / (x log 10)",
)  # fmt: skip
pointwise(
    "log1p", torch.log1p, lambda x: 1 / (1 + x), domain=positive,
    formula="y = log(1 + x);  dx = dy / (1 + x)",
)  # fmt: skip
pointwise(
    "sqrt", torch.sqrt, lambda y: 0.5 / y, reads="y", domain=positive,
    formula="y = sqrt(x);  dx = dy / (2 y)",
)  # fmt: skip
pointwise(
    "rsqrt", torch.rsqrt, lambda y: -0.5 * y**3, reads="y", domain=positive,
    formula="y = 1 / sqrt(x);  dx = -y^3 dy / 2",
)  # fmt: skip
pointwise(
    "reciprocal", torch.reciprocal, lambda y: -y * y, reads="y", domain=positive,
    formula="y = 1 / x;  dx = -y^2 dy",
)  # fmt: skip
pointwise("square", lambda x: x * x, lambda x: 2 * x, formula="y = x^2;  dx = 2 x dy")
pointwise(
    "abs", torch.abs, torch.sign, domain=off_zero, formula="y = |x|;  dx = sign(x) dy, 0 at 0"
)
pointwise("sin", torch.sin, torch.cos, formula="y = sin(x);  dx = cos(x) dy")
pointwise("cos", torch.cos, lambda x: -torch.sin(x), formula="y = cos(x);  dx = -sin(x) dy")
pointwise(
    "tan", torch.tan, lambda y: 1 + y * y, reads="y", domain=inside,
    formula="y = tan(x);  dx = (1 + y^2) dy",
)  # fmt: skip
pointwise(
    "asin", torch.asin, lambda x: (1 - x * x).rsqrt(), domain=inside,
    formula="y = asin(x);  dx = dy / sqrt(1 - x^2)",
)  # fmt: skip
pointwise(
    "acos", torch.acos, lambda x: -(1 - x * x).rsqrt(), domain=inside,
    formula="y = acos(x);  dx = -dy / sqrt(1 - x^2)",
)  # fmt: skip
pointwise(
    "atan", torch.atan, lambda x: 1 / (1 + x * x), formula="y = atan(x);  dx = dy / (1 + x^2)"
)
pointwise("sinh", torch.sinh, torch.cosh, formula="y = sinh(x);  dx = cosh(x) dy")
pointwise("cosh", torch.cosh, torch.sinh, formula="y = cosh(x);  dx = sinh(x) dy")
pointwise(
    "erf", torch.erf, lambda x: 2 / math.sqrt(math.pi) * torch.exp(-x * x),
    formula="y = erf(x);  dx = 2 / sqrt(pi) exp(-x^2) dy",
)  # fmt: skip


def _clamped(x: torch.Tensor, low: float | None, high: float | None) -> torch.Tensor:
    """Torch lets the gradient through on the bounds too."""
    kept = torch.ones_like(x, dtype=torch.bool)
    if low is not None:
        kept &= x >= low
    if high is not None:
        kept &= x <= high
    return kept


pointwise(
    "clamp",
    lambda x, min=None, max=None: x if min is None and max is None else x.clamp(min, max),
    lambda x, min=None, max=None: _clamped(x, min, max),
    domain=off(-0.5, 0.7),
    options={"min": -0.5, "max": 0.7},
    formula="y = min(max(a, x), b);  dx = dy where a <= x <= b",
)
pointwise(
    "clamp_min", lambda x, min: x.clamp(min=min), lambda x, min: x >= min, domain=off(0.2),
    options={"min": 0.2}, formula="y = max(a, x);  dx = dy where x >= a",
)  # fmt: skip
pointwise(
    "clamp_max", lambda x, max: x.clamp(max=max), lambda x, max: x <= max, domain=off(0.2),
    options={"max": 0.2}, formula="y = min(x, b);  dx = dy where x <= b",
)  # fmt: skip
