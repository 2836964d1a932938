"""Where randomness comes from: every draw has an address (seed, what for, epoch, step).

Nothing carries a random state from step to step, so a training can be taken up at any step by
knowing the step's number alone, and skipping a million batches costs nothing.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, *address: int | str) -> int:
    """A 63-bit seed for one place in a training, by BLAKE2b of the run's seed and the address."""
    text = "/".join(map(str, (seed, *address)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *address: int | str) -> torch.Generator:
    """A CPU generator seeded for one place in a training."""
    return torch.Generator().manual_seed(derive_seed(seed, *address))


def epoch_order(count: int, seed: int, epoch: int) -> torch.Tensor:
    """The order in which epoch number `epoch` visits `count` rows: int64 (count,)."""
    return torch.randperm(count, generator=generator(seed, "order", epoch))
