"""What the evidence of all tasks shares: maps kept small."""

import numpy as np
import pytest

from hubel.gather.common import _kept, spread
from hubel.probe.features import FeatureMaps


def test_large_maps_are_averaged_down_and_know_their_size():
    maps = np.arange(2 * 3 * 8 * 12, dtype=np.float32).reshape(2, 3, 8, 12)
    found = _kept(FeatureMaps("a", "Conv2d", maps, np.arange(3)), 6)
    assert found.size == (8, 12)
    by_hand = maps.reshape(2, 3, 4, 2, 6, 2).mean(axis=(3, 5))
    assert found.maps == pytest.approx(by_hand)


@pytest.mark.parametrize("largest", [None, 12, 100])
def test_small_maps_stay(largest):
    maps = np.ones((1, 2, 8, 12), np.float32)
    found = _kept(FeatureMaps("a", "Conv2d", maps, np.arange(2)), largest)
    assert found.maps is maps
    assert found.size is None


def test_rows_are_spread_evenly():
    assert spread(np.arange(100), 3).tolist() == [0, 49, 99]
    assert spread(np.arange(2), 5).tolist() == [0, 1]
