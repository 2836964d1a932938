"""VOC's palette against its published colours, and colours as numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hubel.data.masks.palette import VOC_CLASSES, pack, packed, runs, unpacked, voc_palette

PUBLISHED = {
    "background": (0, 0, 0),
    "aeroplane": (128, 0, 0),
    "bicycle": (0, 128, 0),
    "bird": (128, 128, 0),
    "boat": (0, 0, 128),
    "car": (128, 128, 128),
    "cat": (64, 0, 0),
    "person": (192, 128, 128),
    "train": (128, 192, 0),
    "tvmonitor": (0, 64, 128),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_colours(name):
    assert voc_palette()[VOC_CLASSES.index(name)] == PUBLISHED[name]


def test_the_border_is_cream_and_all_256_differ():
    assert voc_palette()[255] == (224, 224, 192)
    assert len(set(voc_palette())) == 256
    assert voc_palette(3) == voc_palette()[:3]
    assert len(VOC_CLASSES) == 21


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_packing_goes_both_ways(colour):
    assert unpacked(packed(colour)) == colour
    assert f"{packed(colour):06x}" == bytes(colour).hex()
    assert pack(np.array([[colour]], np.uint8)).tolist() == [[packed(colour)]]


@given(arrays(np.uint8, st.integers(0, 30), elements=st.integers(0, 2)))
def test_runs_rebuild_their_array(flat):
    starts = runs(flat)
    assert np.array_equal(np.repeat(flat[starts], np.diff(np.r_[starts, flat.size])), flat)
    assert (np.diff(flat[starts].astype(int)) != 0).all()
