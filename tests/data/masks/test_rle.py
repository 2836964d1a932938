"""COCO's run-length codes: by hand, there and back, and as pycocotools writes them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hubel.data.masks.rle import decode, encode, from_text, to_text
from hubel.errors import DataError

regions = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12))
counts = st.lists(st.integers(0, 1 << 40), max_size=20)


def test_runs_go_down_the_columns():
    region = np.array([[0, 1, 1], [0, 1, 0]], bool)
    assert encode(region) == [2, 3, 1]
    assert np.array_equal(decode([2, 3, 1], 2, 3), region)
    assert encode(~region) == [0, 2, 3, 1]  # the first run is outside, and may be empty


@given(regions)
def test_there_and_back(region):
    runs = encode(region)
    assert sum(runs) == region.size
    assert np.array_equal(decode(runs, *region.shape), region)
    assert from_text(to_text(runs)).tolist() == runs


@given(counts)
def test_text_there_and_back(runs):
    assert from_text(to_text(runs)).tolist() == runs
    assert set(to_text(runs)) <= {chr(c) for c in range(48, 112)}


@given(regions)
def test_pycocotools_writes_and_reads_the_same(region):
    coco = pytest.importorskip("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray(region.astype(np.uint8)))
    assert to_text(encode(region)) == theirs["counts"].decode()
    assert np.array_equal(decode(from_text(theirs["counts"]), *region.shape), region)
    ours = {"size": list(region.shape), "counts": to_text(encode(region)).encode()}
    assert np.array_equal(coco.decode(ours).astype(bool), region)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([2, 3], r"its runs are 5 pixels in sum; 2 x 3 pixels \(height x width\) are 6"),
        ([], "its runs are 0 pixels in sum; 2 x 3"),
        ([2, -1, 5], "run 1 is -1; allowed: 0 and more"),
        ([2, 3.5, 0.5], "its runs must be one list of whole numbers"),
        ([2, float("nan"), 4], "its runs must be one list of whole numbers"),
        ([[2, 4]], "its runs must be one list of whole numbers"),
        ([2, "x"], "its runs are not all numbers"),
        ([1e300, 1], "pixels in sum"),
    ],
)
def test_wrong_runs(runs, message):
    with pytest.raises(DataError, match=message):
        decode(runs, 2, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("23 4", r"character 2 of its text is ' '; allowed: '0' to 'o'"),
        ("23p", "character 2 of its text is 'p'"),
        ("2é", "character 1 of its text"),
        ("2P", "its text ends within a number"),
        ("o" * 14 + "0", "its text has a number of more than 60 bits"),
    ],
)
def test_wrong_text(text, message):
    with pytest.raises(DataError, match=message):
        from_text(text)
