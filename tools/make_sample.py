"""Makes the bundled sample of Fashion-MNIST from the full set: `python tools/make_sample.py`.

Per class, 600 training and 100 test images. Which ones is decided by a hash of their row number,
so every machine and every version of NumPy draws the same. Test images that stand in the training
set as well (Fashion-MNIST has ten) are left out.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hubel.data.named import open_named
from hubel.data.record import Source

SAMPLE = Path(__file__).parents[1] / "src/hubel/data/sample/fashion-mnist-sample.npz"
PER_CLASS = {"train": 600, "test": 100}


def drawn(source: Source, part: str, barred: frozenset[int]) -> NDArray[np.int64]:
    """Rows of `part`, balanced over the classes, in the order of the full set."""
    hashes = source.hashes().tolist()
    rows = [row for row in source.rows(part).tolist() if hashes[row] not in barred]
    rows.sort(key=lambda row: hashlib.sha256(f"hubel sample/{row}".encode()).digest())
    taken = [
        row
        for target in range(len(source.classes))
        for row in [r for r in rows if source.targets[r] == target][: PER_CLASS[part]]
    ]
    return np.array(sorted(taken), dtype=np.int64)


def main() -> None:
    source = open_named("fashion-mnist")
    if source.notice:
        raise SystemExit(source.notice)
    train = drawn(source, "train", frozenset())
    test = drawn(source, "test", frozenset(source.hashes()[source.rows("train")].tolist()))
    images = source.images[:, 0]
    np.savez_compressed(
        SAMPLE,
        x_train=images[train],
        y_train=source.targets[train].astype(np.uint8),
        x_test=images[test],
        y_test=source.targets[test].astype(np.uint8),
        classes=np.array(source.classes),
        rows_train=train.astype(np.uint32),  # in the full set, its 60,000 training images first
        rows_test=test.astype(np.uint32),
    )
    print(f"{SAMPLE}: {SAMPLE.stat().st_size:,} bytes, {len(train):,} + {len(test):,} images")


if __name__ == "__main__":
    main()
