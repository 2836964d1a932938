"""Where randomness comes from: every draw has an address (seed, what for, epoch, step).

Nothing carries a random state from step to step, so a training can be taken up at any step by
knowing the step's number alone, and skipping a million batches costs nothing.
"""

from __future__ import annotations

import hashlib

import numpy as np
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


def uniform(rows: int, places: range, seed: int, *address: int | str) -> torch.Tensor:
    """Chance for things that stand in a row: float32 (rows, len(places)), uniform in [0, 1).

    What a place gets hangs on its number, the seed and the address alone, whichever places are
    drawn with it: a counter-based generator (Philox, Salmon et al. 2011) starts anywhere at once.
    """
    blocks = -(-rows // 8)  # it gives eight numbers of 32 bits at a time
    first, count = (places[0], places[-1] + 1 - places[0]) if places else (0, 0)
    philox = np.random.Philox(key=derive_seed(seed, *address), counter=first * blocks)
    words = philox.random_raw(4 * blocks * count).view(np.uint32).reshape(count, 8 * blocks)
    fractions = words[:: places.step, :rows].T >> 8  # as many bits as a float32 holds
    return torch.from_numpy(fractions.astype(np.float32) * np.float32(2**-24))
