"""Objects parted by membranes: are the same pixels together? Rand's question, by pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hubel.data.masks.record import IGNORE


def pieces(mask: NDArray[np.uint8], objects: int) -> NDArray[np.int32]:
    """The connected pieces of class `objects`, numbered 1, 2, ..., 0 elsewhere: (H, W) -> (H, W).

    Pixels are connected by their sides: a membrane one pixel thick parts cells even where it
    runs diagonally.
    """
    found: NDArray[np.int32] = ndimage.label(mask == objects)[0]
    return found


def pair_sums(
    truth: NDArray[np.uint8], said: NDArray[np.uint8], objects: int
) -> NDArray[np.float64]:
    """Pairs of pixels that lie in one piece: in both, in the truth, in the prediction: (3,).

    Over the pixels of true objects only (Arganda-Carreras et al. 2015: how thick a membrane is
    drawn says little of the cells). The predicted rest counts as one piece more, as scikit-image
    has it. A pair is counted in both orders, a pixel with itself never.

    Args:
        truth: (H, W), a class or IGNORE.
        said: (H, W), a class; counts as IGNORE where the truth is.
        objects: the class whose connected pieces are the objects.
    """
    inside = truth == objects
    said = np.where(truth == IGNORE, IGNORE, said)  # no bridge where nobody judged
    true = pieces(truth, objects)[inside].astype(np.int64)
    called = pieces(said, objects)[inside].astype(np.int64)
    both = np.unique(true * (called.max(initial=0) + 1) + called, return_counts=True)[1]
    counts = (both, np.bincount(true), np.bincount(called))
    return np.array([float(np.sum(n * (n - 1))) for n in counts])


def rand(sums: NDArray[np.float64]) -> dict[str, float]:
    """Scores 0 to 1 from summed `pair_sums` (3,); NaN where there is no pair.

    rand_split: of the pairs that belong together, the share that stayed so (low: cells are cut);
    rand_merge: of the pairs put together, the share that belong so (low: membranes have gaps);
    rand_f: their harmonic mean, both / ((true + predicted) / 2), 1 minus the adapted Rand error.
    """
    both, true, called = (float(n) for n in sums)
    nothing = float("nan")
    return {
        "rand_f": 2 * both / (true + called) if true + called else nothing,
        "rand_split": both / true if true else nothing,
        "rand_merge": both / called if called else nothing,
    }
