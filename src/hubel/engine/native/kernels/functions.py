"""Functions of one number, on vectors: forward above backward, as in `engine/ops/activate.py`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hubel.engine.native.emit import F32, I32, Function, Value, lanes_of, vector

Forward = Callable[..., Value]


@dataclass(frozen=True)
class Unary:
    """One function.

    Attributes:
        forward: (f, x, *figures) -> y.
        backward: (f, x, y, dy, *figures) -> dx.
    """

    forward: Forward
    backward: Forward


def exponential(f: Function, x: Value) -> Value:
    """e^x, to 2 units in the last place from -87 to 88; NaN and infinities as they should be.

    x = n ln 2 + r, e^r by a polynomial (Moshier's Cephes, expf), times 2^n by the exponent's bits.
    """
    whole = vector(I32, lanes_of(x.kind))
    bounded = f.select(x < -87.0, -87.0, x)
    bounded = f.select(bounded > 88.5, 88.5, bounded)
    n = f.nearest(bounded * (1 / math.log(2)))
    r = f.fma(n, -0.693359375, bounded)
    r = f.fma(n, 2.12194440e-4, r)
    y = f.constant(1.9875691500e-4, x.kind)
    for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        y = f.fma(y, r, f.constant(c, x.kind))
    y = f.fma(y, r * r, r + 1.0)
    # 2^n in two halves: 2^128 is no float, though e^88.5 is one
    half = f.make(whole, f"ashr {whole} {f.convert('fptosi', n, whole).name}, {_ones(whole, 1)}")
    rest = f.convert("fptosi", n, whole) - half
    y = y * _power_of_two(f, half, x.kind) * _power_of_two(f, rest, x.kind)
    y = f.select(x > 88.73, math.inf, y)
    y = f.select(x < -87.4, 0.0, y)
    return f.select(f.compare("uno", x, x), x, y)


def _ones(kind: str, number: int) -> str:
    return "<" + ", ".join([f"i32 {number}"] * lanes_of(kind)) + ">"


def _power_of_two(f: Function, n: Value, kind: str) -> Value:
    raised = n + f.constant(127, n.kind)
    bits = f.make(n.kind, f"shl {n.kind} {raised.name}, {_ones(n.kind, 23)}")
    return f.convert("bitcast", bits, kind)


def lanewise(f: Function, name: str, x: Value) -> Value:
    """A function of C's, lane by lane."""
    result = x
    for place in range(lanes_of(x.kind)):
        one = f.call(F32, name, f.lane(x, place))
        result = f.make(
            x.kind, f"insertelement {x.kind} {result.name}, float {one.name}, i64 {place}"
        )
    return result


def _relu(f: Function, x: Value) -> Value:
    return f.select(x < 0.0, 0.0, x)


def _relu_back(f: Function, x: Value, y: Value, dy: Value) -> Value:
    return f.select(x > 0.0, dy, 0.0)


def _leaky(f: Function, x: Value, slope: float) -> Value:
    return f.select(x > 0.0, x, x * slope)


def _leaky_back(f: Function, x: Value, y: Value, dy: Value, slope: float) -> Value:
    return f.select(x > 0.0, dy, dy * slope)


def _hardtanh(f: Function, x: Value, low: float, high: float) -> Value:
    y = f.select(x < low, low, x)
    return f.select(y > high, high, y)


def _hardtanh_back(f: Function, x: Value, y: Value, dy: Value, low: float, high: float) -> Value:
    return f.select((x > low) & (x < high), dy, 0.0)


def _sigmoid(f: Function, x: Value) -> Value:
    """1 / (1 + e^-x) = e^-|x| / (1 + e^-|x|) where x < 0: no overflow."""
    small = exponential(f, f.size_of(x) * -1.0)
    low = f.constant(1.0) / (small + 1.0)
    return f.select(x < 0.0, small * low, low)


def _sigmoid_back(f: Function, x: Value, y: Value, dy: Value) -> Value:
    return dy * (y * (1.0 - y))


def _tanh(f: Function, x: Value) -> Value:
    """(1 - t) / (1 + t), t = e^-2|x|; below 0.35, where that cancels, a polynomial (Cephes)."""
    t = exponential(f, f.size_of(x) * -2.0)
    large = (1.0 - t) / (t + 1.0)
    large = f.select(x < 0.0, 0.0 - large, large)
    z = x * x
    p = f.constant(-5.70498872745e-3)
    for c in (2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1):
        p = f.fma(p, z, f.constant(c))
    y = f.select(f.size_of(x) < 0.35, f.fma(p * z, x, x), large)
    return f.select(f.compare("uno", x, x), x, y)


def _tanh_back(f: Function, x: Value, y: Value, dy: Value) -> Value:
    return dy * (1.0 - y * y)


def _gelu(f: Function, x: Value) -> Value:
    return x * (lanewise(f, "erff", x * math.sqrt(0.5)) + 1.0) * 0.5


def _gelu_back(f: Function, x: Value, y: Value, dy: Value) -> Value:
    """Phi(x) + x phi(x)."""
    phi = exponential(f, x * x * -0.5) * (1 / math.sqrt(2 * math.pi))
    below = (lanewise(f, "erff", x * math.sqrt(0.5)) + 1.0) * 0.5
    return dy * f.fma(x, phi, below)


def _silu(f: Function, x: Value) -> Value:
    return x * _sigmoid(f, x)


def _silu_back(f: Function, x: Value, y: Value, dy: Value) -> Value:
    s = _sigmoid(f, x)
    return dy * (s * f.fma(x, 1.0 - s, f.constant(1.0)))


def _hardswish(f: Function, x: Value) -> Value:
    return x * _hardtanh(f, x + 3.0, 0.0, 6.0) * (1 / 6)


def _hardswish_back(f: Function, x: Value, y: Value, dy: Value) -> Value:
    inside = f.select(x < 3.0, (x * 2.0 + 3.0) * (1 / 6), 1.0)
    return dy * f.select(x > -3.0, inside, 0.0)


def _elu(f: Function, x: Value, alpha: float) -> Value:
    return f.select(x > 0.0, x, (exponential(f, x) - 1.0) * alpha)


def _elu_back(f: Function, x: Value, y: Value, dy: Value, alpha: float) -> Value:
    return f.select(x > 0.0, dy, dy * (y + alpha))


def _linear(f: Function, x: Value, scale: float, shift: float) -> Value:
    return f.fma(x, scale, f.constant(shift))


def _linear_back(f: Function, x: Value, y: Value, dy: Value, scale: float, shift: float) -> Value:
    return dy * scale


UNARY = {
    "relu": Unary(_relu, _relu_back),
    "leaky_relu": Unary(_leaky, _leaky_back),
    "hardtanh": Unary(_hardtanh, _hardtanh_back),
    "sigmoid": Unary(_sigmoid, _sigmoid_back),
    "tanh": Unary(_tanh, _tanh_back),
    "gelu": Unary(_gelu, _gelu_back),
    "silu": Unary(_silu, _silu_back),
    "hardswish": Unary(_hardswish, _hardswish_back),
    "elu": Unary(_elu, _elu_back),
    "linear": Unary(_linear, _linear_back),
}
