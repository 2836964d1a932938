"""How large a map is after a row of layers, and how large an image must be for any of it to remain.

A window of K pixels that moves S at a time over n pixels padded by P on both sides gives
floor((n + 2P - K) / S) + 1 outputs; m outputs need at least (m - 1) S + K - 2P pixels. A pool in
ceil mode rounds up, as if S - 1 more pixels lay at the end, if the last window begins on the map.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from hubel.errors import ModelError

Pair = tuple[int, int]


def map_size(model: str, body: nn.Sequential, size: Pair) -> Pair:
    """(Ho, Wo) of what `body` makes of an image of `size` (H, W).

    Convolutions and pools without dilation count, in nested modules too, as one chain in their
    order (branches must keep the size); every other layer keeps the size.
    Raises `ModelError` saying how large images must be, and which layer's map would vanish.
    """
    needed = (_least(body, 0), _least(body, 1))
    short = [axis for axis in (0, 1) if size[axis] < needed[axis]]
    if short:
        words = [f"{needed[axis]} pixels {('high', 'wide')[axis]}" for axis in short]
        raise ModelError(
            f"{model} needs images at least {' and '.join(words)}, given {size[0]}x{size[1]}: "
            f"nothing would be left after {_where_it_ends(body, size[short[0]], short[0])}"
        )
    return _length(body, size[0], 0), _length(body, size[1], 1)


class _Window(NamedTuple):
    """A layer that may change the size, along one axis."""

    name: str
    kernel: int
    stride: int
    padding: int
    ceil: bool

    def after(self, length: int) -> int:
        """Outputs on a map of `length`; below 1 where nothing is left."""
        room = length + 2 * self.padding - self.kernel
        if not self.ceil:
            return room // self.stride + 1
        outputs = -(-room // self.stride) + 1
        begins_outside = (outputs - 1) * self.stride >= length + self.padding
        return outputs - 1 if begins_outside else outputs

    def before(self, outputs: int) -> int:
        """The shortest map that gives so many outputs."""
        begin = (outputs - 1) * self.stride - self.padding  # of the last window
        whole = begin + self.kernel - self.padding
        return max(1, max(whole - self.stride, begin) + 1 if self.ceil else whole)


def _windows(body: nn.Sequential, axis: int) -> list[_Window]:
    found = []
    for name, layer in body.named_modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            numbers = (layer.kernel_size, layer.stride, layer.padding)
            kernel, stride, padding = (n[axis] if isinstance(n, tuple) else n for n in numbers)
            ceil = getattr(layer, "ceil_mode", False)
            found.append(_Window(name, int(kernel), int(stride), int(padding), ceil))
    return found


def _length(body: nn.Sequential, length: int, axis: int) -> int:
    for window in _windows(body, axis):
        length = window.after(length)
    return length


def _least(body: nn.Sequential, axis: int) -> int:
    """The shortest side that leaves one pixel at the end."""
    needed = 1
    for window in reversed(_windows(body, axis)):
        needed = window.before(needed)
    return needed


def _where_it_ends(body: nn.Sequential, length: int, axis: int) -> str:
    """The first layer that gets less than its window."""
    for window in _windows(body, axis):
        after = window.after(length)
        if after < 1:
            return f"{window.name}, a window of {window.kernel} on a map of {length}"
        length = after
    raise AssertionError("the side is long enough")
