"""Map sizes against torch itself: what `map_size` foretells is what the layers then give."""

from collections import OrderedDict
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hubel.errors import ModelError
from hubel.models.geometry import map_size

layers = st.tuples(
    st.sampled_from(["conv", "pool", "ceil", "mean", "mean_ceil", "relu"]),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(0, 2),
)


def body_of(rows):
    body = OrderedDict()
    for number, (kind, kernel, stride, border) in enumerate(rows):
        numbers = kernel, stride, border if kind == "conv" else min(border, kernel // 2)
        body[f"{kind}{number}"] = {
            "conv": lambda k, s, p: nn.Conv2d(1, 1, (k, 1), (s, 1), (p, 0)),
            "pool": nn.MaxPool2d,
            "ceil": lambda k, s, p: nn.MaxPool2d(k, s, p, ceil_mode=True),
            "mean": nn.AvgPool2d,
            "mean_ceil": lambda k, s, p: nn.AvgPool2d(k, s, p, ceil_mode=True),
            "relu": lambda k, s, p: nn.ReLU(),
        }[kind](*numbers)
    return nn.Sequential(body)


@given(st.lists(layers, max_size=4), st.integers(1, 40), st.integers(1, 40))
def test_foretells_what_torch_gives(rows, height, width):
    body = body_of(rows)
    try:
        truth = tuple(body(torch.zeros(1, 1, height, width)).shape[2:])
    except RuntimeError:
        truth = None
    if truth is None:
        with pytest.raises(ModelError, match="net needs images at least"):
            map_size("net", body, (height, width))
    else:
        assert map_size("net", body, (height, width)) == truth


@pytest.mark.parametrize("kind", ["pool", "ceil", "mean", "mean_ceil"])
def test_every_small_pool_on_every_small_map(kind):
    """Kernels to 4, strides to 5 (windows that leave gaps too), borders, maps of 1 to 12 pixels."""
    for kernel, stride, border, length in product(range(1, 5), range(1, 6), range(3), range(1, 13)):
        body = body_of([(kind, kernel, stride, border)])
        try:
            truth = tuple(body(torch.zeros(1, 1, length, 9)).shape[2:])
        except RuntimeError:
            with pytest.raises(ModelError, match=f"given {length}x9"):
                map_size("net", body, (length, 9))
        else:
            assert map_size("net", body, (length, 9)) == truth, (kernel, stride, border, length)


def test_a_gap_wider_than_the_window():
    """Ceil mode, windows of 1 that move by 3: two outputs need 4 pixels, not 2, for the second
    would begin beyond the map; behind them a window of 2 needs both."""
    body = nn.Sequential(nn.MaxPool2d(1, 3, ceil_mode=True), nn.Conv2d(1, 1, 2))
    assert map_size("net", body, (4, 4)) == tuple(body(torch.zeros(1, 1, 4, 4)).shape[2:]) == (1, 1)
    with pytest.raises(ModelError, match="at least 4 pixels high and 4 pixels wide, given 3x3"):
        map_size("net", body, (3, 3))


def test_googlenets_maps_by_hand():
    """Szegedy et al. 2014, table 1: 224, 112, 56, 56, 28, 28, 14, 14, 7, its pools rounding up."""
    rows = [("conv", 7, 2, 3), *([("ceil", 3, 2, 0)] * 4)]
    sides = [map_size("net", body_of(rows[: n + 1]), (224, 224))[0] for n in range(5)]
    assert sides == [112, 56, 28, 14, 7]


def test_nested_rows_count_too():
    body = nn.Sequential(nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU()), nn.MaxPool2d(2))
    assert map_size("net", body, (7, 4)) == tuple(body(torch.zeros(1, 1, 7, 4)).shape[2:]) == (2, 1)
    with pytest.raises(
        ModelError, match=r"given 2x9: nothing would be left after 0\.0, a window of 3"
    ):
        map_size("net", body, (2, 9))


def test_says_how_large_and_where_it_ends():
    body = nn.Sequential(OrderedDict(a=nn.Conv2d(1, 1, 5), b=nn.ReLU(), c=nn.MaxPool2d((2, 3))))
    assert map_size("net", body, (6, 7)) == (1, 1)
    with pytest.raises(ModelError) as error:
        map_size("net", body, (5, 9))
    assert str(error.value) == (
        "net needs images at least 6 pixels high, given 5x9: "
        "nothing would be left after c, a window of 2 on a map of 1"
    )
    with pytest.raises(
        ModelError, match=r"6 pixels high and 7 pixels wide, given 4x4.*after a, a "
    ):
        map_size("net", body, (4, 4))
