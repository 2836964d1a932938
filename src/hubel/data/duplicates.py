"""Images that stand in a data set more than once: exact copies, and near ones.

Exact copies share a content hash. Near copies (saved again, resized, a little brighter) are found
on thumbnails: 32 x 32 grey pixels, each brought to mean 0 and standard deviation 1, compared by
the root mean square of their difference, 0 for equal pictures up to 2 for negatives. Which
images are compared is decided on 8 x 8 block means. Those are an orthogonal projection, so their
distance never exceeds the true one, and no pair within the limit is missed.

`LIMIT` = 0.08 was decided on real images. 523 photos (every third of BCCD, CamVid and BSDS500)
were copied, and each copy compared with its original:

======================================================  ================  =============
copy                                                    largest distance  within 0.08
======================================================  ================  =============
JPEG at quality 50                                      0.066             100 %
half size                                               0.049             100 %
stretched to 200 x 150                                  0.052             100 %
contrast times 0.8                                      0.066             100 %
brightness times 1.1 (highlights are clipped)           0.099             99.4 %
half size, brightness times 1.1 and JPEG 70 at once     0.099             99.0 %
======================================================  ================  =============

Different images: the closest two of BSDS500 are 0.35 apart, of BCCD 0.19, of MNIST's 70,000
0.10. Of CamVid's consecutive frames 91 % are more than 0.08 apart; in the others the car stood.
In Fashion-MNIST 86 of 2.4 billion pairs are within 0.08: the same article, often in another
shade, 24 of them across training and test. Beyond 0.09 they are trousers that merely look alike
(188 pairs at 0.10, 727 at 0.12). In CIFAR-10 9 pairs are within 0.08, all of them true.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

SIDE = 32
LIMIT = 0.08
FLATTEST = 2.0  # grey levels of standard deviation, below which a thumbnail is mostly noise
TILE = 1024  # 1024 x 1024 float32 = 4 MiB: the comparison stays in cache
MOST_PAIRS = 100_000


def exact_duplicates(hashes: NDArray[np.uint64]) -> list[NDArray[np.int64]]:
    """Rows of equal content: one array of two or more rows, ascending, per repeated image."""
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.diff(hashes[order])) + 1
    groups = [group for group in np.split(order, starts) if len(group) > 1]
    return sorted(groups, key=lambda group: int(group[0]))


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (C, H, W), C = 1 or 3, to grey uint8 (32, 32), every pixel of it having its weight."""
    if image.shape[0] == 1:
        grey = Image.fromarray(image[0])
    else:
        grey = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def near_duplicates(
    thumbnails: NDArray[np.uint8],
    *,
    parts: NDArray[np.int64] | None = None,
    limit: float = LIMIT,
    most: int = MOST_PAIRS,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pairs of thumbnails that show the same picture, exact copies included.

    70,000 images take 2 s on one core and 100 MB.

    Args:
        thumbnails: uint8 (N, 32, 32), from `thumbnail`. Flat ones (all of about one grey) are
            passed over: there is nothing in them to compare.
        parts: (N,) numbers; where given, only pairs of rows with different numbers count.
        limit: largest distance of a pair.
        most: the search ends once it has found so many pairs.

    Returns:
        Pairs, int64 (P, 2), the smaller row first, and their distances, float32 (P,), ascending.
    """
    rows, means = _block_means(thumbnails)
    pairs, distances, total = [], [], 0
    for left, right in _candidates(means, limit):
        first, second = np.minimum(rows[left], rows[right]), np.maximum(rows[left], rows[right])
        apart = slice(None) if parts is None else parts[first] != parts[second]
        near, distance = _verified(thumbnails, first[apart], second[apart], limit)
        pairs.append(near)
        distances.append(distance)
        total += len(near)
        if total >= most:
            break
    return _sorted(pairs, distances, most)


def _standardised(thumbnails: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 (N, 1024) of mean 0 and norm 1; and the standard deviations, (N,), in grey levels.

    With norm 1 the distance of two rows is the RMS difference at standard deviation 1.
    """
    pixels = torch.from_numpy(thumbnails).flatten(1).float()
    pixels -= pixels.mean(1, keepdim=True)
    norm = pixels.norm(dim=1, keepdim=True).clamp(min=1e-6)
    return pixels / norm, norm[:, 0] / SIDE


def _block_means(thumbnails: NDArray[np.uint8]) -> tuple[NDArray[np.int64], torch.Tensor]:
    """The rows worth comparing, (M,), and their 4 x 4 block means times 4, float32 (M, 64)."""
    means, kept = [], []
    for start in range(0, len(thumbnails), 4096):
        pixels, contrast = _standardised(thumbnails[start : start + 4096])
        blocks = pixels.view(-1, 8, 4, 8, 4).sum((2, 4)).flatten(1) / 4
        worth = contrast >= FLATTEST
        means.append(blocks[worth])
        kept.append(worth.nonzero()[:, 0].numpy() + start)
    if not means:
        return np.empty(0, np.int64), torch.empty(0, 64)
    return np.concatenate(kept), torch.cat(means)


def _candidates(
    means: torch.Tensor, limit: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions (left, right) of all pairs whose block means are within `limit`, by tiles.

    Sorted along their principal axis, only neighbours can be near: a tile further along than
    `limit` ends the row of tiles. Within a tile one matrix product gives all squared distances.
    """
    if len(means) < 2:
        return
    axis = torch.linalg.eigh(torch.cov(means.T))[1][:, -1]
    place, order = (means @ axis).sort()
    means, half = means[order], means[order].square().sum(1, keepdim=True) / 2
    # |a - b|^2 <= limit^2, as one product: a.b - |a|^2 / 2 - |b|^2 / 2 >= -limit^2 / 2
    least = -(limit**2) / 2 - 1e-6  # float32 rounding must lose no pair
    lefts = torch.cat([means, -half, torch.ones_like(half)], dim=1)
    rights = torch.cat([means, torch.ones_like(half), -half], dim=1)
    for top in range(0, len(means), TILE):
        bottom = min(top + TILE, len(means)) - 1
        end = int(torch.searchsorted(place, place[bottom] + limit, right=True))
        for start in range(top, end, TILE):
            product = lefts[top : bottom + 1] @ rights[start : start + TILE].T
            left, right = (product >= least).nonzero(as_tuple=True)
            left, right = left + top, right + start
            once = left < right
            yield order[left[once]].numpy(), order[right[once]].numpy()


def _verified(
    thumbnails: NDArray[np.uint8],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    limit: float,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Those of the pairs that are within `limit` at 32 x 32, and how far they are apart."""
    distance = np.empty(len(first), np.float32)
    for start in range(0, len(first), 4096):
        chunk = slice(start, start + 4096)
        a, _ = _standardised(thumbnails[first[chunk]])
        b, _ = _standardised(thumbnails[second[chunk]])
        distance[chunk] = (a - b).norm(dim=1).numpy()
    near = distance <= limit
    return np.stack([first[near], second[near]], axis=1), distance[near]


def _sorted(
    pairs: list[NDArray[np.int64]], distances: list[NDArray[np.float32]], most: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    if not pairs:
        return np.empty((0, 2), np.int64), np.empty(0, np.float32)
    pair, distance = np.concatenate(pairs), np.concatenate(distances)
    order = np.lexsort((pair[:, 1], pair[:, 0], distance))[:most]
    return pair[order], distance[order]
