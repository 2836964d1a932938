"""Functions of one number, on vectors: forward above backward, as in `engine/ops/activate.py`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hubel.engine.native.emit import F32, I32, Function, Value, lanes_of, literal, vector

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
    half = f.make(whole, f"ashr {whole} {f.convert('fptosi', n, whole).name}, {literal(whole, 1)}")
    rest = f.convert("fptosi", n, whole) - half
    y = y * _power_of_two(f, half, x.kind) * _power_of_two(f, rest, x.kind)
    y = f.select(x > 88.73, math.inf, y)
    y = f.select(x < -87.4, 0.0, y)
    return f.select(f.compare("uno", x, x), x, y)


def _power_of_two(f: Function, n: Value, kind: str) -> Value:
    raised = n + f.constant(127, n.kind)
    bits = f.make(n.kind, f"shl {n.kind} {raised.name}, {literal(n.kind, 23)}")
    return f.convert("bitcast", bits, kind)


def logarithm(f: Function, x: Value) -> Value:
    """ln x of numbers from 1.2e-38 on, to 2 units in the last place; NaN and infinity stay.

    x = 2^e m, ln m by a polynomial in m - 1 (Moshier's Cephes, logf).
    """
    whole = vector(I32, lanes_of(x.kind))
    bits = f.convert("bitcast", x, whole)
    power = f.make(whole, f"lshr {whole} {bits.name}, {literal(whole, 23)}") - 126
    m = f.convert("bitcast", (bits & 0x007FFFFF) | 0x3F000000, x.kind)  # from 1/2 to 1
    low = m < math.sqrt(0.5)
    e = f.convert("sitofp", power, x.kind) - f.select(low, f.constant(1.0, x.kind), 0.0)
    m = f.select(low, m + m, m) - 1.0
    y = f.constant(_LOGARITHM[0], x.kind)
    for c in _LOGARITHM[1:]:
        y = f.fma(y, m, f.constant(c, x.kind))
    square = m * m
    y = f.fma(e, -2.12194440e-4, y * m * square)
    y = f.fma(square, -0.5, y)
    found = f.fma(e, 0.693359375, m + y)
    return f.select(x < math.inf, found, x)


_LOGARITHM = (
    *(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1),
    *(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
)


def lanewise(f: Function, name: str, x: Value, *rest: Value) -> Value:
    """A function of C's, lane by lane; `rest` are numbers that it is given as well."""
    result = x
    for place in range(lanes_of(x.kind)):
        one = f.call(F32, name, f.lane(x, place), *rest)
        words = f"insertelement {x.kind} {result.name}, float {one.name}, i64 {place}"
        result = f.make(x.kind, words)
    return result


def beats(f: Function, value: Value, largest: Value) -> Value:
    """Where a number takes the place of the largest so far: NaN does, as in PyTorch."""
    return (value > largest) | f.compare("uno", value, value)


def relu(f: Function, x: Value) -> Value:
    """max(0, x); NaN stays NaN."""
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


def _clamp_back(f: Function, x: Value, y: Value, dy: Value, low: float, high: float) -> Value:
    """Unlike `hardtanh`'s, with the borders themselves inside."""
    return f.select((x >= low) & (x <= high), dy, 0.0)


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


# Phi(-z) e^(z^2 / 2) = t Q(t), t = 1 / (1 + 0.3 z), z >= 0: to 4e-9 of itself from 0 to 14, by
# least squares whose weights were moved until the largest relative errors were alike.
_TAIL = (
    -0.02061283514, 0.1123758086, -0.2280675819, 0.1915817814, -0.07924740831,
    0.09605786414, 0.07842556834, 0.1102273262, 0.119572841, 0.1196866341,
)  # fmt: skip


def _below(f: Function, x: Value, bell: Value) -> Value:
    """Phi(x), the normal distribution's; `bell` is e^(-x^2 / 2)."""
    t = 1.0 / f.fma(f.size_of(x), 0.3, f.constant(1.0))
    q = f.constant(_TAIL[0])
    for c in _TAIL[1:]:
        q = f.fma(q, t, f.constant(c))
    tail = q * t * bell
    return f.select(x > 0.0, 1.0 - tail, tail)


def _gelu(f: Function, x: Value) -> Value:
    return x * _below(f, x, exponential(f, x * x * -0.5))


def _gelu_back(f: Function, x: Value, y: Value, dy: Value) -> Value:
    """Phi(x) + x phi(x)."""
    bell = exponential(f, x * x * -0.5)
    return dy * f.fma(x * (1 / math.sqrt(2 * math.pi)), bell, _below(f, x, bell))


_BEND, _CUBE = math.sqrt(2 / math.pi), 0.044715  # of gelu's tanh form


def _gelu_tanh(f: Function, x: Value) -> Value:
    """x (1 + tanh u) / 2 = x s(2 u): the sigmoid keeps its digits where the tanh is near -1."""
    u = f.fma(x * x, _CUBE, f.constant(1.0)) * x * _BEND
    return x * _sigmoid(f, u * 2.0)


def _gelu_tanh_back(f: Function, x: Value, y: Value, dy: Value) -> Value:
    """s + x s (1 - s) 2 u'; beyond 16 that is 0 or 1, and below it no cube overflows."""
    x = _hardtanh(f, x, -16.0, 16.0)
    z = x * x
    u = f.fma(z, _CUBE, f.constant(1.0)) * x * _BEND
    slope = f.fma(z, 3 * _CUBE, f.constant(1.0)) * (2 * _BEND)
    s, rest = _sigmoid(f, u * 2.0), _sigmoid(f, u * -2.0)
    return dy * (s * f.fma(x * rest, slope, f.constant(1.0)))


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


def _hardsigmoid(f: Function, x: Value) -> Value:
    return _hardtanh(f, x + 3.0, 0.0, 6.0) * (1 / 6)


def _hardsigmoid_back(f: Function, x: Value, y: Value, dy: Value) -> Value:
    return f.select((x > -3.0) & (x < 3.0), dy * (1 / 6), 0.0)


def _elu(f: Function, x: Value, alpha: float, scale: float = 1, inside: float = 1) -> Value:
    below = (exponential(f, x * inside) - 1.0) * (scale * alpha)
    return f.select(x > 0.0, x * scale, below)


def _elu_back(
    f: Function, x: Value, y: Value, dy: Value, alpha: float, scale: float = 1, inside: float = 1
) -> Value:
    return f.select(x > 0.0, dy * scale, dy * ((y + scale * alpha) * inside))


def _log_one_and(f: Function, t: Value) -> Value:
    """log(1 + t), t from 0 to 1: 2 artanh(s) = 2 (s + s^3 / 3 + ...), s = t / (2 + t) <= 1 / 3."""
    s = t / (t + 2.0)
    z = s * s
    p = f.constant(2 / 17)
    for n in range(15, 0, -2):
        p = f.fma(p, z, f.constant(2 / n))
    return p * s


def _softplus(f: Function, x: Value, beta: float, threshold: float) -> Value:
    """log(1 + e^(b x)) / b = (max(0, b x) + log(1 + e^-|b x|)) / b: no overflow."""
    z = x * beta
    soft = _log_one_and(f, exponential(f, f.size_of(z) * -1.0)) + relu(f, z)
    return f.select(z > threshold, x, soft * (1 / beta))


def _softplus_back(
    f: Function, x: Value, y: Value, dy: Value, beta: float, threshold: float
) -> Value:
    z = x * beta
    return f.select(z > threshold, dy, dy * _sigmoid(f, z))


def _mish(f: Function, x: Value) -> Value:
    return x * _tanh(f, _softplus(f, x, 1.0, 20.0))


def _mish_back(f: Function, x: Value, y: Value, dy: Value) -> Value:
    t = _tanh(f, _softplus(f, x, 1.0, 20.0))
    return dy * f.fma(x * (1.0 - t * t), _sigmoid(f, x), t)


def _square(f: Function, x: Value) -> Value:
    return x * x


def _square_back(f: Function, x: Value, y: Value, dy: Value) -> Value:
    return dy * x * 2.0


def _size(f: Function, x: Value) -> Value:
    return f.size_of(x)


def _size_back(f: Function, x: Value, y: Value, dy: Value) -> Value:
    return f.select(x > 0.0, dy, f.select(x < 0.0, dy * -1.0, 0.0))


def _linear(f: Function, x: Value, scale: float, shift: float) -> Value:
    return f.fma(x, scale, f.constant(shift))


def _linear_back(f: Function, x: Value, y: Value, dy: Value, scale: float, shift: float) -> Value:
    return dy * scale


UNARY = {
    "relu": Unary(relu, _relu_back),
    "leaky_relu": Unary(_leaky, _leaky_back),
    "hardtanh": Unary(_hardtanh, _hardtanh_back),
    "clamp": Unary(_hardtanh, _clamp_back),
    "sigmoid": Unary(_sigmoid, _sigmoid_back),
    "tanh": Unary(_tanh, _tanh_back),
    "gelu": Unary(_gelu, _gelu_back),
    "silu": Unary(_silu, _silu_back),
    "hardswish": Unary(_hardswish, _hardswish_back),
    "elu": Unary(_elu, _elu_back),
    "gelu_tanh": Unary(_gelu_tanh, _gelu_tanh_back),
    "hardsigmoid": Unary(_hardsigmoid, _hardsigmoid_back),
    "softplus": Unary(_softplus, _softplus_back),
    "mish": Unary(_mish, _mish_back),
    "square": Unary(_square, _square_back),
    "abs": Unary(_size, _size_back),
    "linear": Unary(_linear, _linear_back),
}
