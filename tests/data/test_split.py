"""Splits: every row once, stratified, copies together, found again by content."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_sources import source_of

from hubel.data.record import PARTS, ArraySource
from hubel.data.split import Split, make_split
from hubel.errors import DataError


def distinct(targets, classes: int, parts=None) -> ArraySource:
    return source_of(range(len(targets)), targets, classes, parts)


def per_class(source: ArraySource, rows: np.ndarray) -> np.ndarray:
    return np.bincount(source.targets[rows], minlength=len(source.classes))


class_sizes = st.lists(st.integers(2, 60), min_size=1, max_size=8)
shares = st.floats(0.01, 0.3)


@given(class_sizes, shares, shares, st.integers(0, 5), st.randoms())
@settings(deadline=None)
def test_parts_cover_every_row_once_and_are_stratified(sizes, val, test, seed, random) -> None:
    targets = [label for label, size in enumerate(sizes) for _ in range(size)]
    random.shuffle(targets)
    source = distinct(targets, len(sizes))
    split = make_split(source, val=val, test=test, seed=seed)
    together = np.concatenate([split.train, split.val, split.test])
    assert np.array_equal(np.sort(together), np.arange(len(source)))
    for rows in (split.train, split.val, split.test):
        assert rows.dtype == np.int64
        assert np.array_equal(rows, np.sort(rows))
    for share, rows in ((val, split.val), (test, split.test)):
        counts = per_class(source, rows)
        assert (np.abs(counts - share * np.array(sizes)) <= 1).all()
        assert (counts[np.array(sizes) >= 3] >= 1).all()
    assert (per_class(source, split.train) >= 1).all()
    assert np.array_equal(np.array(PARTS)[split.numbers()][split.val], ["val"] * len(split.val))


@given(st.data())
@settings(deadline=None)
def test_copies_land_on_the_same_side(data) -> None:
    contents = data.draw(st.lists(st.integers(0, 12), min_size=30, max_size=80))
    targets = data.draw(st.lists(st.integers(0, 1), min_size=len(contents), max_size=len(contents)))
    for label in (0, 1):  # enough different images of each class
        contents += [100 + 10 * label + k for k in range(4)]
        targets += [label] * 4
    source = source_of(contents, targets, 2)
    numbers = make_split(source, val=0.2, test=0.2).numbers()
    for content in set(contents):
        assert len(set(numbers[np.array(contents) == content].tolist())) == 1


@given(st.permutations(range(40)), st.integers(0, 3))
@settings(deadline=None)
def test_the_cut_depends_on_content_and_seed_not_on_order(order, seed) -> None:
    contents, targets = np.arange(40) // 2 * 7, np.arange(40) % 5 % 2  # some copies disagree
    first = make_split(source_of(contents, targets, 2), seed=seed).numbers()
    second = make_split(source_of(contents[order], targets[order], 2), seed=seed).numbers()
    assert np.array_equal(first[order], second)


def test_another_seed_cuts_otherwise_and_the_same_one_alike() -> None:
    source = distinct([0, 1] * 100, 2)
    one, same, two = (make_split(source, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.test, same.test)
    assert not np.array_equal(one.test, two.test)
    assert one.seed == 1


def test_the_total_is_exact_and_val_is_capped() -> None:
    source = distinct(np.arange(1000) % 7, 7)
    split = make_split(source, val=0.1, test=0.2)
    assert (len(split.val), len(split.test)) == (100, 200)
    assert len(make_split(source, val=0.4, most_val=50).val) == 50
    assert len(make_split(source, val=0, test=0).train) == 1000


def test_a_class_of_two_is_trained_and_tested_one_of_three_validated_too() -> None:
    split = make_split(distinct([0] * 50 + [1] * 2 + [2] * 3, 3))
    source = distinct([0] * 50 + [1] * 2 + [2] * 3, 3)
    assert per_class(source, split.train).tolist()[1:] == [1, 1]
    assert per_class(source, split.val).tolist()[1:] == [0, 1]
    assert per_class(source, split.test).tolist()[1:] == [1, 1]


def test_a_large_test_share_leaves_one_of_three_to_validate() -> None:
    source = distinct([0] * 3 + [1] * 3, 2)
    split = make_split(source, val=0.1, test=0.6)
    for rows in (split.train, split.val, split.test):
        assert per_class(source, rows).tolist() == [1, 1]


def test_large_groups_of_copies_do_not_burst_a_part() -> None:
    """Twenty copies of one image among 100: a test part of ten takes ten others."""
    source = source_of([0] * 20 + list(range(1, 81)), [0] * 100, 1)
    for seed in range(5):
        split = make_split(source, val=0, test=0.1, seed=seed)
        assert len(split.test) == 10
        assert not np.isin(split.test, np.arange(20)).any()


def test_where_every_group_is_large_the_smallest_is_taken() -> None:
    source = source_of([0] * 9 + [1] * 5 + [2] * 9, [0] * 23, 1)
    assert make_split(source, val=0, test=0.1).test.tolist() == [9, 10, 11, 12, 13]


# ---------------------------------------------------------------- parts that the source gives


def test_given_parts_stay_and_val_is_cut_where_only_test_is_given() -> None:
    parts = ["train"] * 40 + [""] * 20 + ["test"] * 40
    split = make_split(distinct([0, 1] * 50, 2, parts), val=0.1, test=0.5)
    assert split.test.tolist() == list(range(60, 100))
    assert len(split.val) == 6
    assert split.val.max() < 60


def test_a_given_val_part_means_that_nothing_is_cut() -> None:
    parts = ["train"] * 30 + ["val"] * 10
    split = make_split(distinct([0, 1] * 20, 2, parts), test=0.5)
    assert split.val.tolist() == list(range(30, 40))
    assert len(split.test) == 0


def test_given_train_alone_is_cut_like_no_parts() -> None:
    split = make_split(distinct([0, 1] * 50, 2, ["train"] * 100))
    assert (len(split.train), len(split.val), len(split.test)) == (80, 10, 10)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("val", "test"), [(-0.1, 0.1), (0.1, -0.1), (0.5, 0.5), (1, 0), (float("nan"), 0.1)]
)
def test_shares_out_of_range(val: float, test: float) -> None:
    with pytest.raises(DataError, match=f"0 or more and below 1 in sum, given {val} and {test}"):
        make_split(distinct([0, 1] * 9, 2), val=val, test=test)


@pytest.mark.parametrize(
    ("contents", "targets", "classes", "message"),
    [
        ([0, 1, 2], [0, 0, 1], 2, "class 'class1' has 1 image: it needs 2 different ones"),
        ([0, 1], [0, 0], 3, r"class 'class1' has 0 images \(and 1 more such\): it needs 2"),
        ([0, 1, 7, 7], [0, 0, 1, 1], 2, "class 'class1' has 2 images, all equal: it needs 2"),
    ],
)
def test_too_few_images_name_the_class(contents, targets, classes, message) -> None:
    with pytest.raises(DataError, match=message):
        make_split(source_of(contents, targets, classes))


def test_few_images_are_allowed_where_parts_were_given_or_nothing_is_cut() -> None:
    given = distinct([0, 0, 0, 1, 0], 3, ["train"] * 4 + ["test"])
    assert 3 in make_split(given, val=0.3).train
    assert len(make_split(distinct([0, 1], 2), val=0, test=0).train) == 2


def test_no_training_rows() -> None:
    with pytest.raises(DataError, match="made has no training images: all 3 are set apart"):
        make_split(distinct([0, 1, 0], 2, ["test", "test", "val"]))


# ---------------------------------------------------------------- stored


def reordered(source: ArraySource, order: np.ndarray) -> ArraySource:
    return ArraySource(
        source.images[order],
        source.targets[order],
        source.classes,
        name="moved",
        origin="elsewhere",
        parts=source.parts[order],
        ids=[f"renamed{k}" for k in range(len(order))],
    )


@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["train", "", "test"])), min_size=8),
    st.randoms(),
)
@settings(deadline=None)
def test_a_stored_split_is_found_again_in_any_order(rows, random) -> None:
    contents, parts = [c for c, _ in rows] + [50, 51], [p for _, p in rows] + ["train", "train"]
    source = source_of(contents, [0] * len(contents), 1, parts)
    split = make_split(source, val=0.2, seed=4)
    order = np.array(random.sample(range(len(source)), len(source)))
    record = json.loads(json.dumps(split.to_json(source)))
    moved = reordered(source, order)
    found = Split.from_json(record, moved)
    assert found.seed == 4
    for part in PARTS:
        # Row for row the same content: a training that goes on meets the same batches.
        before, after = source.hashes()[split.rows(part)], moved.hashes()[found.rows(part)]
        assert np.array_equal(before, after)
        if part == "test" and (source.parts == "test").any():
            assert (moved.parts[found.test] == "test").all()
    assert sorted(np.concatenate([found.train, found.val, found.test]).tolist()) == sorted(order)


def test_the_record_holds_hashes_in_hex_the_seed_and_the_fingerprint() -> None:
    source = distinct([0, 1] * 10, 2)
    split = make_split(source, seed=9)
    record = split.to_json(source)
    assert record["seed"] == 9
    assert record["source"] == source.fingerprint()
    assert record["test"] == [f"{source.hashes()[row]:016x}" for row in split.test]


def test_gone_and_new_images_are_counted_as_a_multiset() -> None:
    source = source_of([1, 1, 1, 2, 3, 4], [0] * 6, 1)
    record = make_split(source).to_json(source)
    changed = source_of([1, 2, 3, 4, 5], [0] * 5, 1)
    with pytest.raises(DataError, match="stored split: 2 of 6 are gone, 1 are new"):
        Split.from_json(record, changed)


@pytest.mark.parametrize("damage", [{"train": None}, {"seed": "x"}, {"val": ["zz"]}, {"test": [1]}])
def test_a_damaged_record_is_named(damage) -> None:
    source = distinct([0, 1] * 10, 2)
    record = make_split(source).to_json(source) | damage
    with pytest.raises(DataError, match="not a stored split"):
        Split.from_json(record, source)
