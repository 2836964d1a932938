"""Makes the bundled sample of Fashion-MNIST from the full set: `python tools/make_sample.py`.

Per class, 600 training and 100 test images. Which ones is decided by a hash of their row number,
so every machine and every version of NumPy draws the same. Test images that equal or nearly
equal a training image (Fashion-MNIST has eighteen: the same article again) are left out.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hubel.data.duplicates import near_duplicates, thumbnail
from hubel.data.named import open_named
from hubel.data.record import Source

SAMPLE = Path(__file__).parents[1] / "src/hubel/data/sample/fashion-mnist-sample.npz"
PER_CLASS = {"train": 600, "test": 100}


def leaked(source: Source) -> frozenset[int]:
    """Rows of test images that stand in the training set, too, exactly or nearly."""
    thumbnails = np.stack([thumbnail(source[row].image) for row in range(len(source))])
    is_test = source.parts == "test"
    pairs, _ = near_duplicates(thumbnails, parts=is_test.astype(np.int64))
    return frozenset(row for row in pairs.flatten().tolist() if is_test[row])


def drawn(source: Source, part: str, barred: frozenset[int] = frozenset()) -> NDArray[np.int64]:
    """Rows of `part`, the same number of each class, in the order of the full set."""
    rows = [row for row in source.rows(part).tolist() if row not in barred]
    rows.sort(key=lambda row: hashlib.sha256(f"hubel sample/{row}".encode()).digest())
    of_class = [[r for r in rows if source.targets[r] == k] for k in range(len(source.classes))]
    return np.array(sorted(row for chosen in of_class for row in chosen[: PER_CLASS[part]]))


def main() -> None:
    source = open_named("fashion-mnist")
    if source.notice:
        raise SystemExit(source.notice)
    train, test = drawn(source, "train"), drawn(source, "test", leaked(source))
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
