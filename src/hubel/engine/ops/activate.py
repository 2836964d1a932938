"""Non-linearities, element by element: y = f(x), dx = dy * f'(x).

Where f' reads more easily off the output (sigmoid, tanh, exp), the output is what is saved.
At a kink the slope is torch's: 0 for ReLU at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from hubel.engine.ops.base import (
    Adapt,
    Case,
    Explanation,
    Grads,
    Op,
    Saved,
    Shapes,
    register,
    unbroadcast,
)  # fmt: skip

Function = Callable[..., Tensor]


class Pointwise(Op):
    """x of any shape -> the same shape. Subclasses are made by `pointwise`."""

    kind: Literal["x", "y"] = "x"  # what the slope is a function of

    @staticmethod
    def value(x: Tensor, **options: Any) -> Tensor:
        """f(x)."""
        raise NotImplementedError

    @staticmethod
    def slope(saved: Tensor, **options: Any) -> Tensor:
        """f'(x), from x or from y."""
        raise NotImplementedError

    @classmethod
    def macs(cls, shapes: Shapes, **options: Any) -> int:
        """No products are counted for what is done element by element."""
        return 0

    @classmethod
    def explain(
        cls, tensors: Sequence[Any], options: dict[str, Any], output: Tensor, place: tuple[int, ...]
    ) -> Explanation:
        """f of the one input at the same place."""
        x, y = float(tensors[0][place]), float(output[place])
        words = "".join(f", {key} = {value}" for key, value in options.items())
        return Explanation(f"output {place} = {cls.name}({x:.6g}{words}) = {y:.6g}", result=y)


def pointwise(
    name: str,
    value: Function,
    slope: Function,
    *,
    reads: Literal["x", "y"] = "x",
    formula: str,
    source: str = "",
    spelling: str | None = None,
    adapt: Adapt | None = None,
    options: dict[str, Any] | None = None,
    domain: Callable[[Tensor], Tensor] = lambda x: x,
    kernels: tuple[Function, Function] | None = None,
    home: str = __name__,
) -> None:
    """Register one non-linearity.

    Args:
        value: f(x, **options); slope: f'(x) or f'(y), by `reads`.
        options: those its case is checked with.
        domain: takes normal random numbers to where f is defined.
        kernels: torch's own forward (x) and backward (dy, y).
        home: the module that it stands in.
    """

    def forward(x: Tensor, **options: Any) -> tuple[Tensor, Saved]:
        y = value(x, **options)
        return y, (x if reads == "x" else y, options)

    def backward(dy: Tensor, saved: Saved) -> Grads:
        return (dy * slope(saved[0], **saved[1]).to(dy.dtype),)

    def fast_forward(cls: Any, /, x: Tensor, **options: Any) -> tuple[Tensor, Saved]:
        if kernels is None:
            return forward(x, **options)
        y = kernels[0](x)
        return y, (y, options)

    def fast_backward(cls: Any, /, dy: Tensor, saved: Saved, needs: tuple[bool, ...]) -> Grads:
        return backward(dy, saved) if kernels is None else (kernels[1](dy, saved[0]),)

    def cases(cls: Any) -> Iterator[Case]:
        yield Case("plain", lambda r: (domain(r(3, 5, 7)),), options or {})
        yield Case("one number", lambda r: (domain(r()),), options or {})

    body = {
        "name": name, "formula": formula, "source": source, "kind": reads,
        "spellings": {spelling or f"{name}.default": adapt}, "__module__": home,
        "__doc__": f"{formula}. x of any shape -> the same shape.",
        "value": staticmethod(value), "slope": staticmethod(slope),
        "forward": staticmethod(forward), "backward": staticmethod(backward),
        "fast_forward": classmethod(fast_forward), "fast_backward": classmethod(fast_backward),
        "cases": classmethod(cases),
    }  # fmt: skip
    register(type(name, (Pointwise,), body))


def off_zero(x: Tensor) -> Tensor:
    """x (any shape) away from the kink at 0, where one-sided slopes differ."""
    return x + 0.1 * x.sign()


def positive(x: Tensor) -> Tensor:
    """x (any shape) above 0.5."""
    return x.abs() + 0.5


def inside(x: Tensor) -> Tensor:
    """x (any shape) between -0.9 and 0.9."""
    return 0.9 * x.tanh()


def off(*kinks: float) -> Callable[[Tensor], Tensor]:
    """A function that takes tensors (any shape) away from these kinks."""

    def shift(x: Tensor) -> Tensor:
        for kink in kinks:
            near = (x - kink).abs() < 0.05
            x = torch.where(near, x + 0.1, x)
        return x

    return shift


def _gate(x: Tensor) -> Tensor:
    """Hard sigmoid: relu6(x + 3) / 6."""
    return (x + 3).clamp(0, 6) / 6


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def _normal_density(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


_ROOT = math.sqrt(2 / math.pi)


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "none":
        return x * _normal_cdf(x)
    return 0.5 * x * (1 + torch.tanh(_ROOT * (x + 0.044715 * x**3)))


def _gelu_slope(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "none":
        return _normal_cdf(x) + x * _normal_density(x)
    t = torch.tanh(_ROOT * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * _ROOT * (1 + 3 * 0.044715 * x * x)


def _elu(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Tensor:
    return scale * torch.where(x > 0, x, alpha * torch.expm1(input_scale * x.clamp(max=0)))


def _elu_slope(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Tensor:
    left = alpha * input_scale * torch.exp(input_scale * x.clamp(max=0))
    return scale * torch.where(x > 0, torch.ones_like(x), left)


_SELU = {"alpha": 1.6732632423543772, "scale": 1.0507009873554805}  # Klambauer et al. 2017


def _softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    z = beta * x
    soft = torch.log1p(torch.exp(-z.abs())) + z.clamp(min=0)  # overflows nowhere
    return torch.where(z > threshold, x, soft / beta)


def _softplus_slope(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    z = beta * x
    return torch.where(z > threshold, torch.ones_like(x), torch.sigmoid(z))


def _sigmoid(x: Tensor) -> Tensor:
    e = torch.exp(-x.abs())  # overflows nowhere
    return torch.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _mish_slope(x: Tensor) -> Tensor:
    t = torch.tanh(_softplus(x))
    return t + x * (1 - t * t) * _sigmoid(x)


def _between(x: Tensor, low: float, high: float) -> Tensor:
    return (x > low) & (x < high)


pointwise(
    "relu", lambda x: x.clamp(min=0), lambda y: y > 0, reads="y", domain=off_zero,
    formula="y = max(0, x);  dx = dy where x > 0, else 0", source="Nair and Hinton 2010",
    kernels=(torch.relu, lambda dy, y: torch.ops.aten.threshold_backward(dy, y, 0)),
)  # fmt: skip
pointwise(
    "relu6", lambda x: x.clamp(0, 6), lambda x: _between(x, 0, 6), domain=off(0.0, 6.0),
    formula="y = min(max(0, x), 6);  dx = dy where 0 < x < 6", source="Krizhevsky 2010",
)  # fmt: skip
pointwise(
    "hardtanh", lambda x, min_val=-1, max_val=1: x.clamp(min_val, max_val),
    lambda x, min_val=-1, max_val=1: _between(x, min_val, max_val), domain=off(-1.0, 1.0),
    formula="y = min(max(a, x), b);  dx = dy where a < x < b",
)  # fmt: skip
pointwise(
    "leaky_relu", lambda x, negative_slope=0.01: torch.where(x > 0, x, negative_slope * x),
    lambda x, negative_slope=0.01: torch.where(
        x > 0, torch.ones_like(x), torch.full_like(x, negative_slope)  # scalars would be float32
    ),
    domain=off_zero, options={"negative_slope": 0.2}, source="Maas et al. 2013",
    formula="y = x where x > 0, else a x;  dx = dy where x > 0, else a dy",
)  # fmt: skip
pointwise(
    "elu", _elu, _elu_slope, domain=off_zero, source="Clevert et al. 2015",
    options={"alpha": 0.7, "scale": 1.3, "input_scale": 0.9},
    formula="y = x where x > 0, else a (exp(x) - 1);  dx = dy, a exp(x) dy",
)  # fmt: skip
pointwise(
    "selu", lambda x: _elu(x, **_SELU), lambda x: _elu_slope(x, **_SELU), domain=off_zero,
    formula="y = elu of 1.0507 scale, alpha 1.6733", source="Klambauer et al. 2017",
)  # fmt: skip
pointwise(
    "celu", lambda x, alpha=1.0: _elu(x, alpha, 1, 1 / alpha),
    lambda x, alpha=1.0: _elu_slope(x, alpha, 1, 1 / alpha), domain=off_zero,
    options={"alpha": 0.7}, source="Barron 2017",
    formula="y = max(0, x) + min(0, a (exp(x / a) - 1));  dx = dy, exp(x / a) dy",
)  # fmt: skip
pointwise(
    "sigmoid", _sigmoid, lambda y: y * (1 - y), reads="y",
    formula="y = 1 / (1 + exp(-x));  dx = y (1 - y) dy",
    kernels=(torch.sigmoid, torch.ops.aten.sigmoid_backward),
)  # fmt: skip
pointwise(
    "tanh", torch.tanh, lambda y: 1 - y * y, reads="y",
    formula="y = tanh(x);  dx = (1 - y^2) dy",
    kernels=(torch.tanh, torch.ops.aten.tanh_backward),
)  # fmt: skip
pointwise(
    "softplus", _softplus, _softplus_slope, options={"beta": 1.7, "threshold": 20},
    formula="y = log(1 + exp(b x)) / b;  dx = sigmoid(b x) dy", source="Dugas et al. 2001",
)  # fmt: skip
pointwise(
    "softsign", lambda x: x / (1 + x.abs()), lambda x: 1 / (1 + x.abs()) ** 2,
    spelling="functional.softsign", adapt=lambda input: ((input,), {}),
    formula="y = x / (1 + |x|);  dx = dy / (1 + |x|)^2", source="Turian et al. 2009",
)  # fmt: skip
pointwise(
    "log_sigmoid", lambda x: -_softplus(-x), lambda x: _sigmoid(-x),
    spelling="log_sigmoid.default",
    formula="y = log(sigmoid(x));  dx = sigmoid(-x) dy",
)  # fmt: skip
pointwise(
    "gelu", _gelu, _gelu_slope, options={"approximate": "tanh"},
    formula="y = x Phi(x);  dx = (Phi(x) + x phi(x)) dy", source="Hendrycks and Gimpel 2016",
)  # fmt: skip
pointwise(
    "silu", lambda x: x * _sigmoid(x), lambda x: _sigmoid(x) * (1 + x * (1 - _sigmoid(x))),
    formula="y = x s(x), s the sigmoid;  dx = s(x) (1 + x (1 - s(x))) dy",
    source="Elfwing et al. 2017; swish: Ramachandran et al. 2017",
)  # fmt: skip
pointwise(
    "mish", lambda x: x * torch.tanh(_softplus(x)), _mish_slope,
    formula="y = x tanh(softplus(x))", source="Misra 2019",
)  # fmt: skip
pointwise(
    "hardsigmoid", _gate, lambda x: _between(x, -3, 3).to(x.dtype) / 6, domain=off(-3.0, 3.0),
    formula="y = relu6(x + 3) / 6;  dx = dy / 6 where -3 < x < 3", source="Howard et al. 2019",
)  # fmt: skip
pointwise(
    "hardswish", lambda x: x * _gate(x),
    lambda x: _gate(x) + x * _between(x, -3, 3).to(x.dtype) / 6, domain=off(-3.0, 3.0),
    formula="y = x relu6(x + 3) / 6", source="Howard et al. 2019, MobileNetV3",
)  # fmt: skip
pointwise(
    "softshrink", lambda x, lambd=0.5: x - x.clamp(-lambd, lambd),
    lambda x, lambd=0.5: x.abs() > lambd, domain=off(-0.5, 0.5),
    formula="y = x - clamp(x, -l, l);  dx = dy where |x| > l",
)  # fmt: skip
pointwise(
    "hardshrink", lambda x, lambd=0.5: torch.where(x.abs() > lambd, x, 0 * x),
    lambda x, lambd=0.5: x.abs() > lambd, domain=off(-0.5, 0.5),
    formula="y = x where |x| > l, else 0;  dx = dy where |x| > l",
)  # fmt: skip
pointwise(
    "threshold",
    lambda x, threshold, value: torch.where(x > threshold, x, torch.full_like(x, value)),
    lambda x, threshold, value: x > threshold, domain=off(0.3),
    options={"threshold": 0.3, "value": -1.0},
    formula="y = x where x > t, else v;  dx = dy where x > t",
)  # fmt: skip


@register
class Prelu(Op):
    """x of any shape, w (broadcasting to it) -> the same shape: leaky ReLU with a learned slope."""

    name = "prelu"
    tensors = ("x", "w")
    spellings = {"_prelu_kernel.default": None}
    formula = "y = x where x > 0, else w x;  dx = dy or w dy,  dw = sum of x dy where x <= 0"
    source = "He et al. 2015"

    @staticmethod
    def forward(x: Tensor, w: Tensor) -> tuple[Tensor, Saved]:
        """The slope is often one per channel."""
        return torch.where(x > 0, x, w * x), (x, w)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """The slope learns from what is below zero."""
        x, w = saved
        dw = torch.where(x > 0, torch.zeros_like(x), x * dy)
        return torch.where(x > 0, dy, w * dy), unbroadcast(dw, w.shape)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """A slope per channel."""
        yield Case("per channel", lambda r: (off_zero(r(2, 3, 5)), r(1, 3, 1)))


@register
class Glu(Op):
    """x -> half as long along `axis`: the first half, gated by the second."""

    name = "glu"
    spellings = {"glu.default": lambda self, dim=-1: ((self,), {"axis": dim})}
    formula = "y = a sigmoid(b), x = [a, b];  da = s dy,  db = a s (1 - s) dy"
    source = "Dauphin et al. 2017"

    @staticmethod
    def forward(x: Tensor, *, axis: int = -1) -> tuple[Tensor, Saved]:
        """One half says how much of the other passes."""
        a, b = x.chunk(2, axis)
        gate = _sigmoid(b)
        return a * gate, (a, gate, axis)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """A product's and a sigmoid's."""
        a, gate, axis = saved
        return (torch.cat([gate * dy, a * gate * (1 - gate) * dy], axis),)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Channels."""
        yield Case("channels", lambda r: (r(2, 6, 3),), {"axis": 1})
