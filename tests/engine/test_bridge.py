"""Operators that torch lacks, made differentiable: torch's own gradcheck, and the tape."""

import pytest
import torch
from torch.autograd import gradcheck

from hubel.engine.backprop import backpropagate
from hubel.engine.bridge import bridge
from hubel.engine.ops import OPS
from hubel.engine.ops.unpool import BedOfNails
from hubel.engine.tape import Tape

BOXES = torch.tensor([[0, 1, 1, 5, 6.0], [1, 0, 0, 8, 8]], dtype=torch.float64)


def image():
    torch.manual_seed(0)
    return torch.randn(2, 3, 9, 9, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("name", ["roi_max_pool", "roi_align"])
def test_torchs_gradcheck_agrees(name):
    pool = bridge(OPS[name])
    assert gradcheck(lambda x: pool(x, BOXES, size=(2, 3)), image())


@pytest.mark.parametrize(
    ("name", "args", "options"),
    [
        ("bed_of_nails", (), {"stride": (2, 3)}),
        ("local_response_norm", (), {"size": 3}),
        ("conv", (torch.ones(2, 3, 3, 3).double(), None),
         {"stride": (1, 1), "padding": (0, 1), "dilation": (1, 1), "groups": 1}),
    ],
)  # fmt: skip
def test_any_operator_can_be_bridged(name, args, options):
    call = bridge(OPS[name])
    assert gradcheck(lambda x: call(x, *args, **options), image())


def test_on_a_tape_it_is_itself():
    pool = bridge(OPS["roi_align"])
    x = image()
    (theirs,) = torch.autograd.grad((pool(x, BOXES, size=(2, 2)) ** 2).sum(), x)
    with Tape(watch={"x": x}) as tape:
        loss = (pool(x, BOXES, size=(2, 2)) ** 2).sum()
    assert tape.records[0].op.name == "roi_align"
    assert torch.allclose(backpropagate(tape, loss)["x"], theirs)


def test_a_gradient_of_the_wrong_shape_is_refused():
    class Wrong(BedOfNails):
        @staticmethod
        def backward(dy, saved):
            return (dy,)

    call = bridge(Wrong)
    with pytest.raises(ValueError, match="the backward of bed_of_nails gave a gradient of shape"):
        call(image(), stride=(2, 2)).sum().backward()


def test_an_outside_write_to_what_was_saved_is_caught_by_torch():
    call = bridge(OPS["multiply"])
    x, y = image(), torch.ones(2, 3, 9, 9, dtype=torch.float64)
    z = call(x, y)
    y.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()
