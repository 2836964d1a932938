"""One kernel of the native step, compiled by itself and called on arrays, for its tests."""

from __future__ import annotations

import ctypes
import functools

import numpy as np
import pytest
import torch

from hubel.engine.native.jit import Loaded, compile_object, module_text
from hubel.engine.native.kernels.writers import WRITERS
from hubel.engine.native.machine import Machine, fitting, narrower, this_machine

_TYPES = {
    "ptr": ctypes.c_void_p, "i64": ctypes.c_int64, "i32": ctypes.c_int32,
    "float": ctypes.c_float, "double": ctypes.c_double,
}  # fmt: skip
_RIM = 1024  # bytes before and after every array that no kernel may touch
_MARK = 0xA5


def _machines() -> list[Machine]:
    """This processor, and the same one held to 8 and to 4 lanes."""
    full = this_machine()
    found = [full]
    if full.lanes > 8:
        found.append(narrower(full))
    if full.lanes > 4:
        last = found[-1]
        found.append(Machine(4, 16, last.cpu, last.features))
    return found


MACHINES = _machines()
SMALL = fitting(MACHINES[0], 2, 1)  # tiles of two images, several columns to a vector
# All that a thread may be given: whole tiles of each machine, and this one's of 8, 4 and 2 images.
TILES = [*MACHINES, *(fitting(MACHINES[0], n, 1) for n in (8, 4)), SMALL]


def every(machines: list[Machine]) -> pytest.MarkDecorator:
    """A test for each of these."""
    machines = list(dict.fromkeys(machines))
    ids = [f"{m.lanes}x{m.wide}-{m.registers}" for m in machines]
    return pytest.mark.parametrize("machine", machines, ids=ids)


every_machine = every(MACHINES)
wide_machines = every(MACHINES[:2])
every_tile = every(TILES)
some_tiles = every([*MACHINES, SMALL])  # for whole steps, whose kernels have had every one


def array(*shape: int, dtype: type = np.float32) -> np.ndarray:
    """Zeros on a 64-byte border between two marked rims, which every call looks at again."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.full(size + 2 * _RIM + 64, _MARK, dtype=np.uint8)
    start = _start(raw)
    inner = raw[start : start + size]
    inner[:] = 0
    return inner.view(dtype).reshape(shape)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """An array of normal numbers."""
    filled = array(*shape)
    filled[...] = np.random.default_rng([seed, *shape]).standard_normal(shape)
    return filled


def like(values: np.ndarray | torch.Tensor) -> np.ndarray:
    """A float32 array with these values."""
    values = np.asarray(values)
    filled = array(*values.shape)
    filled[...] = values
    return filled


def wide(values: np.ndarray) -> np.ndarray:
    """A float64 array with these values."""
    filled = array(*values.shape, dtype=np.float64)
    filled[...] = values
    return filled


def to_torch(tile: np.ndarray) -> torch.Tensor:
    """A tile (C, H, W, lanes) as float64 images (lanes, C, H, W)."""
    return torch.tensor(np.moveaxis(tile, -1, 0), dtype=torch.float64)


def to_tile(images: torch.Tensor) -> np.ndarray:
    """Images (lanes, C, ...) as a float64 tile (C, ..., lanes)."""
    return np.moveaxis(images.detach().double().numpy(), 0, -1)


def _start(raw: np.ndarray) -> int:
    return _RIM + (-raw.ctypes.data - _RIM) % 64


def _rims(given: np.ndarray) -> None:
    raw = given
    while isinstance(raw.base, np.ndarray):
        raw = raw.base
    if raw is given or raw.dtype != np.uint8:
        return
    start, size = _start(raw), len(raw) - 2 * _RIM - 64
    assert (raw[:start] == _MARK).all(), "written before an array's start"
    assert (raw[start + size :] == _MARK).all(), "written past an array's end"


@functools.lru_cache(maxsize=64)
def kernel(spec, machine: Machine):
    """The kernel of `spec` as a Python function of arrays and numbers (0 for no array)."""
    function = WRITERS[type(spec)]("kernel", spec, machine)
    return compiled(function, machine)


def compiled(function, machine: Machine):
    """A function written with `emit`, ready to be called."""
    function.internal = False
    code = compile_object(module_text([function], machine), machine)
    loaded = Loaded(code, machine, [function.name])
    types = [_TYPES[kind] for _, kind in function.arguments]
    entry = ctypes.CFUNCTYPE(_TYPES.get(function.gives), *types)(loaded.address[function.name])

    def call(*given):
        assert len(given) == len(types), [name for name, _ in function.arguments]
        for one in given:
            assert not isinstance(one, np.ndarray) or one.flags.c_contiguous
        words = [one.ctypes.data if isinstance(one, np.ndarray) else one for one in given]
        result = entry(*words)
        for one in given:
            if isinstance(one, np.ndarray):
                _rims(one)
        return result

    call.loaded = loaded  # the code lives as long as it may be called
    return call


def worst(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest deviation, over the largest number that should have come out."""
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.abs(ours - theirs).max(initial=0) / max(np.abs(theirs).max(initial=0), 1e-30))
