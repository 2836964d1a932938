"""Map sizes against torch itself: what `map_size` foretells is what the layers then give."""

from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hubel.errors import ModelError
from hubel.models.geometry import map_size

layers = st.tuples(
    st.sampled_from(["conv", "pool", "relu"]),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(0, 2),
)


def body_of(rows):
    body = OrderedDict()
    for number, (kind, kernel, stride, border) in enumerate(rows):
        padding = min(border, kernel // 2) if kind == "pool" else border
        body[f"{kind}{number}"] = {
            "conv": lambda k=kernel, s=stride, p=padding: nn.Conv2d(1, 1, (k, 1), (s, 1), (p, 0)),
            "pool": lambda k=kernel, s=stride, p=padding: nn.MaxPool2d(k, s, p),
            "relu": nn.ReLU,
        }[kind]()
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
