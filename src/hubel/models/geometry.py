"""How large a map is after a row of layers, and how large an image must be for any of it to remain.

A window of K pixels that moves S at a time over n pixels padded by P on both sides gives
floor((n + 2P - K) / S) + 1 outputs; m outputs need at least (m - 1) S + K - 2P pixels.
"""

from __future__ import annotations

from torch import nn

from hubel.errors import ModelError

Pair = tuple[int, int]


def map_size(model: str, body: nn.Sequential, size: Pair) -> Pair:
    """(Ho, Wo) of what `body` makes of an image of `size` (H, W).

    Convolutions and max pools without dilation count, in nested `nn.Sequential`s too; every other
    layer keeps the size.
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


def _windows(body: nn.Sequential, axis: int) -> list[tuple[str, int, int, int]]:
    """Name, kernel, stride and padding of every layer that changes the size, along one axis."""
    found = []
    for name, layer in body.named_modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            numbers = (layer.kernel_size, layer.stride, layer.padding)
            kernel, stride, padding = (n[axis] if isinstance(n, tuple) else n for n in numbers)
            found.append((name, int(kernel), int(stride), int(padding)))
    return found


def _length(body: nn.Sequential, length: int, axis: int) -> int:
    for _, kernel, stride, padding in _windows(body, axis):
        length = (length + 2 * padding - kernel) // stride + 1
    return length


def _least(body: nn.Sequential, axis: int) -> int:
    """The shortest side that leaves one pixel at the end."""
    needed = 1
    for _, kernel, stride, padding in reversed(_windows(body, axis)):
        needed = max(1, (needed - 1) * stride + kernel - 2 * padding)
    return needed


def _where_it_ends(body: nn.Sequential, length: int, axis: int) -> str:
    """The first layer that gets less than its window."""
    for name, kernel, stride, padding in _windows(body, axis):
        after = (length + 2 * padding - kernel) // stride + 1
        if after < 1:
            return f"{name}, a window of {kernel} on a map of {length}"
        length = after
    raise AssertionError("the side is long enough")
