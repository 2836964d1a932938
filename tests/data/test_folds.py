"""Folds: every image held out once, classes dealt evenly, copies together, drawn by content."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_sources import source_of

from hubel.data.check import quick_check
from hubel.data.folds import fold_split, make_folds
from hubel.data.split import Split
from hubel.errors import DataError


def counts(source, numbers, folds):
    """Images by [fold, class]."""
    table = np.zeros((folds, len(source.classes)), np.int64)
    np.add.at(table, (numbers - 1, source.targets), 1)
    return table


@given(st.lists(st.integers(7, 40), min_size=1, max_size=6), st.integers(2, 7), st.integers(0, 9))
@settings(deadline=None)
def test_folds_partition_the_images_and_are_stratified_within_one(sizes, folds, seed) -> None:
    targets = [label for label, size in enumerate(sizes) for _ in range(size)]
    source = source_of(range(len(targets)), targets, len(sizes))
    numbers = make_folds(source, folds, seed)
    assert set(numbers.tolist()) == set(range(1, folds + 1))
    table = counts(source, numbers, folds)
    assert (np.ptp(table, axis=0) <= 1).all()
    assert np.ptp(table.sum(axis=1)) <= 1
    assert np.array_equal(numbers, make_folds(source, folds, seed))


@given(st.data(), st.integers(2, 4))
@settings(deadline=None)
def test_copies_are_held_out_together(data, folds) -> None:
    contents = data.draw(st.lists(st.integers(0, 12), min_size=30, max_size=80))
    targets = data.draw(st.lists(st.integers(0, 1), min_size=len(contents), max_size=len(contents)))
    source = source_of(contents, targets)
    if len(set(contents)) < folds:
        return
    numbers = make_folds(source, folds)
    for content in set(contents):
        assert len(set(numbers[np.array(contents) == content].tolist())) == 1
    first = {c: min(t for c2, t in zip(contents, targets, strict=True) if c2 == c)
             for c in set(contents)}  # fmt: skip
    labels = np.array([first[c] for c in contents])  # the class that a group counts for
    for label in (0, 1):
        largest = max((contents.count(c) for c in first if first[c] == label), default=0)
        held = np.bincount(numbers[labels == label], minlength=folds + 1)[1:]
        assert np.ptp(held) <= largest


@given(st.permutations(range(40)), st.integers(0, 3))
@settings(deadline=None)
def test_the_cut_depends_on_content_and_seed_not_on_order(order, seed) -> None:
    contents, targets = np.arange(40) // 2 * 7, np.arange(40) % 5 % 2  # some copies disagree
    first = make_folds(source_of(contents, targets), 3, seed)
    second = make_folds(source_of(contents[order], targets[order]), 3, seed)
    assert np.array_equal(first[order], second)


def test_another_seed_deals_otherwise() -> None:
    source = source_of(range(60), [0, 1] * 30)
    assert not np.array_equal(make_folds(source, 5, 0), make_folds(source, 5, 1))


def test_twenty_copies_are_evened_out_by_the_single_images() -> None:
    """20 equal images and 40 single ones of one class in 3 folds: 20 each."""
    source = source_of([0] * 20 + list(range(1, 41)), [0] * 60, 1)
    assert np.bincount(make_folds(source, 3))[1:].tolist() == [20, 20, 20]


def test_splits_of_all_folds_hold_every_image_out_once() -> None:
    source = source_of(range(100), [0, 1] * 50)
    splits = [fold_split(source, (number, 5), val=0.1, seed=3) for number in range(1, 6)]
    held = np.concatenate([split.test for split in splits])
    assert np.array_equal(np.sort(held), np.arange(100))
    for split in splits:
        together = np.concatenate([split.train, split.val, split.test])
        assert np.array_equal(np.sort(together), np.arange(100))
        assert (len(split.train), len(split.val), len(split.test)) == (72, 8, 20)
        assert np.bincount(source.targets[split.val]).tolist() == [4, 4]
        assert split.seed == 3
        assert not len(split.apart)


def test_a_test_part_of_its_own_is_set_apart_and_a_val_part_stays() -> None:
    parts = ["train"] * 60 + ["val"] * 10 + ["test"] * 30
    source = source_of(range(100), [0, 1] * 50, parts=parts)
    for number in (1, 2, 3):
        split = fold_split(source, (number, 3), val=0.1)
        assert split.apart.tolist() == list(range(70, 100))
        assert split.val.tolist() == list(range(60, 70))
        assert (len(split.train), len(split.test)) == (40, 20)
        assert split.test.max() < 60
        back = Split.from_json(json.loads(json.dumps(split.to_json(source))), source)
        for part in ("train", "val", "test", "apart"):
            assert np.array_equal(back.rows(part), split.rows(part))


def test_the_data_check_knows_images_that_are_apart() -> None:
    parts = ["train"] * 60 + ["test"] * 30
    source = source_of(range(90), [0, 1] * 45, parts=parts)
    found = quick_check(source, fold_split(source, (1, 3), val=0.0))
    assert found.counts == {"train": [20, 20], "test": [10, 10], "apart": [15, 15]}


def test_too_many_folds() -> None:
    source = source_of([0, 0, 1, 2], [0, 0, 1, 1])
    with pytest.raises(DataError, match=r"made can be cut into 2 to 3 folds .*, given 4"):
        make_folds(source, 4)
    with pytest.raises(DataError, match="given 1"):
        make_folds(source, 1)


def test_a_class_that_would_vanish_is_named_whichever_fold_is_asked_for() -> None:
    source = source_of(range(33), [0] * 30 + [1] * 3)
    for number in range(1, 4):
        assert len(fold_split(source, (number, 3), val=0.1).test) == 11
    short = source_of(range(32), [0] * 30 + [1] * 2)
    for number in range(1, 4):
        with pytest.raises(DataError, match=r"'class1' has 2 different images: with 3 folds 1 wou"):
            fold_split(short, (number, 3), val=0.1)
        assert len(fold_split(short, (number, 3), val=0.0).val) == 0
