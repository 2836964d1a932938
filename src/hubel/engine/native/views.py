"""Images by their rows, flipped, shifted and made floats: from bytes to a net's input in one go.

Operators one by one take all images through memory each; here a byte is read once and its float
written once. Floats are looked up: they are to the last bit those of whoever made the table.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hubel.engine.native.emit import F32, I8, I64, PTR, Function, Value
from hubel.engine.native.jit import Loaded, compile_object, module_text
from hubel.engine.native.machine import Machine, this_machine
from hubel.errors import ModelError

BYTES = 256  # a table's floats, but for the last: what stands outside an image
TURN = 8  # pixels that a loop takes at a time


def views(images: Tensor, rows: Tensor, moves: Tensor, values: Tensor) -> Tensor:
    """View i shows at (y, x) what image `rows[i]` has at (y + down, x + across); y is counted from
    below where it is upside down, x from the right where it is mirrored.

    Args:
        images: uint8 (M, C, H, W) on the CPU, contiguous.
        rows: int64 (N,).
        moves: int64 (4, N): down and across (pixels of either sign), upside down, mirrored (0, 1).
        values: float32 (C, 257): what each byte becomes, and what stands outside an image.

    Returns float32 (N, C, H, W). Raises `ModelError` for what is of another shape or kind, and for
    rows that are not there.
    """
    _look_at(images, rows, moves, values)
    (count, c, h, w), n = images.shape, rows.shape[0]
    found = torch.empty(n, c, h, w)
    if n:
        low, high = (int(end) for end in torch.aminmax(rows))
        if low < 0 or high >= count:
            raise ModelError(f"rows must lie from 0 to {count - 1}, given {low} to {high}")
        given = [images, rows.contiguous(), moves.contiguous(), values.contiguous(), found]
        _loaded()[1](*(tensor.data_ptr() for tensor in given), n, c, h, w)
    return found


def _look_at(images: Tensor, rows: Tensor, moves: Tensor, values: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or not images.is_contiguous():
        raise ModelError(
            f"images must be uint8 (M, C, H, W), contiguous, given {images.dtype} "
            f"{tuple(images.shape)}, strides {images.stride()}"
        )
    n, c = rows.numel(), images.shape[1]
    wanted = {
        "rows": (rows, torch.int64, (n,)),
        "moves": (moves, torch.int64, (4, n)),
        "values": (values, torch.float32, (c, BYTES + 1)),
    }
    for name, (tensor, kind, shape) in wanted.items():
        if tensor.dtype != kind or tensor.shape != shape:
            raise ModelError(
                f"{name} must be {kind} {shape}, given {tensor.dtype} {tuple(tensor.shape)}"
            )
    if not all(tensor.is_cpu for tensor in (images, rows, moves, values)):
        raise ModelError("views are made on the CPU")


@functools.cache
def _loaded() -> tuple[Loaded, Callable[..., Any]]:
    """The machine code, which lives as long as it is held, and what calls it."""
    machine = this_machine()
    text = module_text([write_views(machine)], machine)
    code = Loaded(compile_object(text, machine), machine, ["views"])
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 5, *[ctypes.c_int64] * 4)
    return code, kind(code.address["views"])


def write_views(machine: Machine) -> Function:
    """void (images, rows, moves, values, views, n, c, h, w)."""
    pointers = ("images", "rows", "moves", "values", "views")
    arguments = [*((word, PTR) for word in pointers), *((word, I64) for word in "nchw")]
    f = Function("views", arguments, machine.floats, internal=False)
    n, c, h, w = (f.arg(word) for word in "nchw")
    with f.loop(0, n) as i:
        row = f.load(f.arg("rows").at(i * 8), I64, 8)
        down, across, turned, mirrored = (
            f.load(f.arg("moves").at((n * k + i) * 8), I64, 8) for k in range(4)
        )
        way = f.select(mirrored > 0, f.constant(-1, I64), 1)  # of x in the image
        start = f.select(mirrored > 0, w - 1, f.constant(0, I64)) + across
        slide = across * way  # the image's columns stand so far to the left
        low, high = (f.smaller(f.larger(end, 0), w) for end in (0 - slide, w - slide))
        with f.loop(0, c) as channel:
            values = f.arg("values").at(channel * (4 * (BYTES + 1)))
            plane = (row * c + channel) * h
            target = (i * c + channel) * h
            with f.loop(0, h) as y:
                source = f.select(turned > 0, h - 1 - y, y) + down
                there = (source > -1) & (source < h)
                line = _Line(
                    f,
                    values,
                    f.arg("images").at((plane + source) * w + start),
                    way,
                    f.arg("views").at((target + y) * w * 4),
                )
                first, last = f.select(there, low, w), f.select(there, high, w)
                line.fill(f.constant(0, I64), first)
                line.copy(first, last)
                line.fill(last, w)
    return f


class _Line:
    """One line of a view."""

    def __init__(self, f: Function, values: Value, image: Value, way: Value, view: Value) -> None:
        self.f, self.values, self.image, self.way, self.view = f, values, image, way, view

    def fill(self, low: Value, high: Value) -> None:
        """With what stands outside."""
        outside = self.f.load(self.values.at(4 * BYTES), F32)
        with self.f.loop(low, high) as x:
            self.f.store(outside, self.view.at(x * 4))

    def copy(self, low: Value, high: Value) -> None:
        whole = low + (high - low) // TURN * TURN
        with self.f.loop(low, whole, TURN) as x:
            self._pixels(x, TURN)
        with self.f.loop(whole, high) as x:
            self._pixels(x, 1)

    def _pixels(self, x: Value, count: int) -> None:
        f, source, target = self.f, self.image.at(x * self.way), self.view.at(x * 4)
        for k in range(count):
            byte = f.convert("zext", f.load(source.at(self.way * k if k else 0), I8, 1), I64)
            f.store(f.load(self.values.at(byte * 4), F32), target.at(4 * k))
