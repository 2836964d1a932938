"""Which findings repeated images make, and how they are named."""

import numpy as np

from hubel.data.findings import Finding
from hubel.data.record import ArraySource
from hubel.data.repeats import Division, exact_copies, near_copies
from hubel.data.split import make_split

NOISE = np.random.default_rng(0).integers(60, 190, (40, 1, 32, 32), dtype=np.uint8)


def source_of(which: list[int], parts: list[str] | None = None, targets=None) -> ArraySource:
    return ArraySource(
        NOISE[which],
        np.zeros(len(which), np.int64) if targets is None else np.array(targets),
        ["cat", "dog"],
        name="made",
        origin="here",
        parts=None if parts is None else np.array(parts, dtype="U5"),
    )


def exact(source: ArraySource, broken: tuple[int, ...] = ()) -> dict[str, Finding]:
    division = Division.of(source, None)
    return {finding.text: finding for finding in exact_copies(source, division, broken)}


def near(source: ArraySource, thumbnails: np.ndarray) -> dict[str, Finding]:
    found = near_copies(source, Division.of(source, None), thumbnails, ())
    return {finding.text: finding for finding in found}


def test_copies_across_and_within_parts() -> None:
    #                            train          val   test
    source = source_of([0, 1, 1, 2, 3, 2, 3, 3, 4, 4], ["train"] * 5 + ["val"] + ["test"] * 4)
    found = exact(source)
    assert set(found) == {
        "1 image repeats another one in train",
        "1 val image also stands in train",
        "2 test images also stand in train",
        "2 images repeat another one in test",
    }
    leak = found["2 test images also stand in train"]
    assert (leak.level, leak.code) == ("warning", "leak")
    assert leak.names == ("train/00004 = test/00000", "train/00004 = test/00001")
    assert leak.rows == (4, 6, 4, 7)
    within = found["1 image repeats another one in train"]
    assert (within.level, within.code) == ("note", "copies")
    assert within.names == ("train/00001 = train/00002",)


def test_a_copy_in_three_parts_is_named_for_each_two() -> None:
    found = exact(source_of([7, 7, 7], ["test", "val", "train"]))
    assert {text: finding.names for text, finding in found.items()} == {
        "1 val image also stands in train": ("train/00000 = val/00000",),
        "1 test image also stands in train": ("train/00000 = test/00000",),
        "1 test image also stands in val": ("val/00000 = test/00000",),
    }


def test_an_undivided_source_speaks_of_no_part() -> None:
    assert list(exact(source_of([1, 1, 2]))) == ["1 image repeats another one"]


def test_two_labels() -> None:
    found = exact(source_of([5, 6, 5, 5], targets=[0, 0, 1, 1]))
    finding = found["1 image carries more than one label"]
    assert (finding.level, finding.code) == ("warning", "labels")
    assert finding.names == ("00000 (cat) = 00002 (dog)",)
    assert finding.rows == (0, 2)


def test_broken_files_are_no_copies_of_each_other() -> None:
    assert not exact(source_of([1, 1, 2]), broken=(1,))


def test_near_copies_leave_exact_ones_out() -> None:
    source = source_of([0, 1, 2, 0, 4, 5], ["train"] * 3 + ["test"] * 3)
    thumbnails = source.images[:, 0].copy()
    thumbnails[4] = thumbnails[1] + 3  # a brighter train/00001
    thumbnails[2] = thumbnails[1] // 2  # a darker one, in train too
    found = near(source, thumbnails)
    assert set(found) == {
        "1 test image nearly equals one in train",
        "1 pair of images is nearly equal in train",
    }
    across = found["1 test image nearly equals one in train"]
    assert (across.level, across.code) == ("warning", "near-leak")
    assert across.names[0].startswith("train/00001 ~ test/00001 (distance 0.00")
    assert len(across.names) == 2  # the darker one is near as well
    assert found["1 pair of images is nearly equal in train"].level == "note"


def test_near_copies_name_the_earlier_part_first() -> None:
    source = source_of([0, 1], ["test", "train"])
    thumbnails = np.stack([NOISE[0, 0], NOISE[0, 0] + 5])
    (finding,) = near(source, thumbnails).values()
    assert finding.text == "1 test image nearly equals one in train"
    assert finding.names[0].startswith("train/00000 ~ test/00000")


def test_many_exact_copies_count_once() -> None:
    source = source_of([0] * 30 + [1] * 30)
    thumbnails = np.repeat(NOISE[:1, 0], 60, axis=0)
    assert list(near(source, thumbnails)) == ["1 pair of images is nearly equal"]


def test_broken_rows_have_no_thumbnail() -> None:
    source = source_of([0, 1])
    same = np.repeat(NOISE[:1, 0], 2, axis=0)
    assert not list(near_copies(source, Division.of(source, None), same, (1,)))


def test_division_by_split_and_by_files() -> None:
    source = source_of(list(range(20)), targets=[0, 1] * 10)
    split = make_split(source)
    division = Division.of(source, split)
    assert division.names == ("train", "val", "test")
    assert np.array_equal(np.flatnonzero(division.number == 2), split.test)
    assert Division.of(source, None).names == ("all",)
    partly = source_of([0, 1, 2], ["", "test", "train"])
    assert Division.of(partly, None).number.tolist() == [0, 2, 0]
