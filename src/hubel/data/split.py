"""`Split`: which rows of a source train, validate and test. Made once, kept by content hash."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubel.data.record import PARTS, Source
from hubel.errors import DataError

MOST_VAL = 5_000  # validation images: one standard error of 90 % accuracy is then 0.4 points
ALL_PARTS = (*PARTS, "apart")
# An image without a part belongs to the training pool.
PART_NUMBER = {"": 0} | {part: number for number, part in enumerate(PARTS)}


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of one source by part; every row stands in exactly one.

    Attributes:
        train, val, test: int64 positions in the source; `val` and `test` may be empty.
        seed: what the cut was drawn with.
        apart: rows that this training has no use for: the files' own test part, where a fold of
            the others is held out as `test`.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    seed: int = 0
    apart: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def rows(self, part: str) -> NDArray[np.int64]:
        """The rows of "train", "val", "test" or "apart"."""
        parts = {"train": self.train, "val": self.val, "test": self.test, "apart": self.apart}
        return parts[part]

    def numbers(self) -> NDArray[np.int64]:
        """Each row's part as its position in `ALL_PARTS`, (N,)."""
        numbers = np.empty(sum(len(self.rows(part)) for part in ALL_PARTS), np.int64)
        for number, part in enumerate(ALL_PARTS):
            numbers[self.rows(part)] = number
        return numbers

    def to_json(self, source: Source) -> dict[str, Any]:
        """The split by content hash (16 hex digits), row order kept, and where it came from."""
        hashes = source.hashes()
        kept = ALL_PARTS if len(self.apart) else PARTS
        parts = {part: [f"{h:016x}" for h in hashes[self.rows(part)].tolist()] for part in kept}
        return {"seed": self.seed, "source": source.fingerprint(), **parts}

    @classmethod
    def from_json(cls, record: dict[str, Any], source: Source) -> Split:
        """The split that `to_json` kept, found again in `source` whatever its order or file names.

        Each part keeps its order, so the batches of a training come back in theirs. Labels are
        not looked at: `record["source"]` differs from `source.fingerprint()` where they changed.

        Raises:
            DataError: images are gone or new, or `record` is no split.
        """
        stored, numbers = _stored(record)
        hashes = source.hashes()
        _require_same_images(stored, hashes)
        # Equal images that the source's own parts hold apart go back to where they were.
        home = np.array([PART_NUMBER[part] for part in source.parts.tolist()])
        rows = np.empty(len(stored), np.int64)
        rows[np.lexsort((numbers, stored))] = np.lexsort((home, hashes))
        parts = {part: rows[numbers == number] for number, part in enumerate(ALL_PARTS)}
        return cls(**parts, seed=int(record["seed"]))


def make_split(
    source: Source,
    *,
    val: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    most_val: int = MOST_VAL,
) -> Split:
    """Cut validation and test images from those that train.

    Rows that the source assigns to a part stay there. If it gives a test part none is cut; if it
    gives a validation part neither is cut. The cut is stratified by class: each class gives its
    share to within one image, and at least one image to each part if it has three. Equal images
    land on the same side. The cut depends on the images and the seed, not on their order or names.

    Args:
        source: any source; its content hashes are read.
        val, test: shares of the rows to cut from, at least 0, together below 1; 0 cuts none.
        seed: at least 0.
        most_val: most validation images, unless a class needs its one.

    Raises:
        DataError: a share out of range, no training images, or a class with fewer than two
            different images where the source gives neither part.
    """
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise DataError(
            f"val and test must be 0 or more and below 1 in sum, given {val} and {test}"
        )
    given = {part: source.rows(part) for part in ("val", "test")}
    pool = np.flatnonzero(~np.isin(source.parts, list(given))).astype(np.int64)
    if not len(pool):
        raise DataError(f"{source.name} has no training images: all {len(source)} are set apart")
    if len(given["val"]):
        val = test = 0.0
    if len(given["test"]):
        test = 0.0
    groups = _Groups.of(source, pool)
    if (val or test) and not (len(given["val"]) or len(given["test"])):
        _require_two(groups, strata(source))
    numbers = _cut(groups, min(val, most_val / len(pool)), test, seed)[groups.of_row]
    return Split(
        train=pool[numbers == 0],
        val=np.sort(np.concatenate([given["val"], pool[numbers == 1]])),
        test=np.sort(np.concatenate([given["test"], pool[numbers == 2]])),
        seed=seed,
    )


@dataclass(frozen=True, eq=False)
class _Groups:
    """The different images of a pool, in the order of their hashes.

    Attributes:
        of_row: the group of each pool row, (rows,).
        size: how many rows share the image, (groups,).
        label: its class, (groups,); the lowest, where copies disagree.
        rows_of_class: pool rows per class, (classes,).
        different: different images per class, (classes,).
    """

    of_row: NDArray[np.int64]
    size: NDArray[np.int64]
    label: NDArray[np.int64]
    rows_of_class: NDArray[np.int64]
    different: NDArray[np.int64]

    @classmethod
    def of(cls, source: Source, pool: NDArray[np.int64]) -> _Groups:
        classes = len(strata(source))
        targets, hashes = source.targets[pool], source.pictures()[pool]
        order = np.lexsort((targets, hashes))
        targets, hashes = targets[order], hashes[order]
        first = np.r_[True, hashes[1:] != hashes[:-1]]
        relabelled = np.r_[True, targets[1:] != targets[:-1]]
        of_row = np.empty(len(pool), np.int64)
        of_row[order] = np.cumsum(first) - 1
        return cls(
            of_row=of_row,
            size=np.bincount(of_row),
            label=targets[first],
            rows_of_class=np.bincount(targets, minlength=classes),
            different=np.bincount(targets[first | relabelled], minlength=classes),
        )


def _cut(groups: _Groups, val: float, test: float, seed: int) -> NDArray[np.int64]:
    """The part number of each group."""
    wanted = {2: _quotas(groups.rows_of_class, test), 1: _quotas(groups.rows_of_class, val)}
    shuffled = np.random.Generator(np.random.PCG64(seed)).permutation(len(groups.size))
    by_class = shuffled[np.argsort(groups.label[shuffled], kind="stable")]
    ends = np.cumsum(np.bincount(groups.label, minlength=len(groups.rows_of_class)))
    numbers = np.zeros(len(groups.size), np.int64)
    for label, members in enumerate(np.split(by_class, ends[:-1])):
        left = members
        for number, quota in wanted.items():
            # One group stays for training, and one for validation if there are three.
            spare = 2 if number == 2 and wanted[1].any() and len(members) >= 3 else 1
            taken = _take(groups.size[left], int(quota[label]), len(left) - spare)
            numbers[left[taken]] = number
            left = left[~taken]
    return numbers


def _quotas(counts: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """Images wanted per class: largest remainders, at least one where the class has any."""
    if not share:
        return np.zeros_like(counts)
    exact = share * counts
    quota: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    missing = int(share * counts.sum() + 0.5) - int(quota.sum())
    quota[np.argsort(quota - exact, kind="stable")[:missing]] += 1
    quota[(counts > 0) & (quota == 0)] = 1
    return quota


def _take(sizes: NDArray[np.int64], quota: int, most: int) -> NDArray[np.bool_]:
    """Which groups fill the quota: in order, at most `most` of them, none that overfills it.

    Where every group is too large, the smallest is taken.
    """
    taken = np.zeros(len(sizes), np.bool_)
    if quota < 1 or most < 1:
        return taken
    room = quota
    for position, size in enumerate(sizes.tolist()):
        if size <= room and most:
            taken[position] = True
            room, most = room - size, most - 1
    if room == quota:
        taken[np.argmin(sizes)] = True
    return taken


def strata(source: Source) -> tuple[str, ...]:
    """What a cut keeps in proportion, as messages name it: the classes; of masks, the whole."""
    if source.kind == "masks":
        return (source.name,)
    return tuple(f"class {name!r}" for name in source.classes)


def _require_two(groups: _Groups, strata: tuple[str, ...]) -> None:
    few = np.flatnonzero(groups.different < 2).tolist()
    if not few:
        return
    name, images = strata[few[0]], groups.rows_of_class[few[0]]
    has = "1 image" if images == 1 else f"{images} images{', all equal' if images else ''}"
    others = f" (and {len(few) - 1} more such)" if len(few) > 1 else ""
    raise DataError(
        f"{name} has {has}{others}: it needs 2 different ones to be both trained and tested"
    )


def _stored(record: dict[str, Any]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hashes of a kept split, part after part, and each one's part number."""
    try:
        parts = [[int(h, 16) for h in record[part]] for part in PARTS]
        parts.append([int(h, 16) for h in record.get("apart", ())])
        int(record["seed"])
        numbers = np.repeat(np.arange(len(ALL_PARTS)), [len(part) for part in parts])
        return np.array([h for part in parts for h in part], np.uint64), numbers
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"not a stored split: {error!r}") from None


def _require_same_images(stored: NDArray[np.uint64], present: NDArray[np.uint64]) -> None:
    hashes, inverse = np.unique(np.concatenate([stored, present]), return_inverse=True)
    before = np.bincount(inverse[: len(stored)], minlength=len(hashes))
    now = np.bincount(inverse[len(stored) :], minlength=len(hashes))
    gone, new = np.maximum(before - now, 0).sum(), np.maximum(now - before, 0).sum()
    if gone or new:
        raise DataError(
            f"the images are not those of the stored split: {gone} of {len(stored)} are gone, "
            f"{new} are new"
        )
