"""Weights by formula, the same on every machine: what `golden.json`'s outputs were made with."""

import json
from pathlib import Path

import torch

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "golden.json").read_text())
MASK = 0xFFFFFFFF
BLOCK = 1 << 20


def layout(name):
    """[(key, shape), ...] of a published state dict, in its order."""
    lines = (HERE / "layouts" / f"{name}.txt").read_text().splitlines()
    pairs = (line.split() for line in lines if not line.startswith("#"))
    return [(key, () if s == "-" else tuple(map(int, s.split(",")))) for key, s in pairs]


def noise(first, count):
    """float64 (count,) in [-1, 1): a mix of the whole numbers from `first` on, exactly."""
    found = torch.empty(count, dtype=torch.float64)
    for begin in range(0, count, BLOCK):
        end = min(count, begin + BLOCK)
        h = torch.arange(first + begin + 1, first + end + 1, dtype=torch.int64)
        for factor in (1640531513, 1367130551):
            h.bitwise_and_(MASK).mul_(factor).bitwise_and_(MASK)
            h.bitwise_xor_(h >> 16)
        found[begin:end] = h.double() / 2**31 - 1
    return found


def fill(state, gain):
    """Set every tensor of a state dict, in place, as the golden file's rule says."""
    for number, (key, tensor) in enumerate(state.items()):
        if not tensor.is_floating_point():
            tensor.zero_()
            continue
        v = noise(1000003 * number, tensor.numel()).reshape(tensor.shape)
        if key.endswith("running_var"):
            v = 1 + 0.5 * v
        elif tensor.ndim >= 2:
            v = v * gain * (6 / tensor[0].numel()) ** 0.5
        elif key.endswith(".weight"):
            v = 1 + 0.1 * v
        else:
            v = 0.1 * v
        tensor.copy_(v)
    return state


def images(size):
    """float32 (2, 3, size, size)."""
    count = 2 * 3 * size * size
    return torch.sin(torch.arange(count, dtype=torch.float64) * 0.37).view(2, 3, size, size).float()


def close(found, name):
    """Raises `AssertionError` unless the logits (2, 1000) are the golden ones to rounding."""
    golden = GOLDEN[name]
    bound = 1e-5 + 2 * golden["float32_error"]
    torch.testing.assert_close(found[:, :10], torch.tensor(golden["logits"]), rtol=0, atol=bound)
    assert abs(found.sum().item() - golden["sum"]) < 2000 * bound
