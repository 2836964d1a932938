"""Other ways back: rules that replace an operator's backward to show what a net responds to.

with hubel.rules(relu=guided): ...            # guided backpropagation
with hubel.rules(relu=deconvnet): ...         # the deconvnet's way through ReLU
with hubel.rules(conv=lrp(), linear=lrp(), relu=straight): ...   # relevance, layer by layer
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hubel.engine.backprop import Default, Rule
from hubel.engine.ops.base import Grads
from hubel.engine.record import Record
from hubel.errors import OptionError


def straight(record: Record, dy: Any, default: Default) -> Grads:
    """The gradient goes through unchanged, whatever the slope. For element-wise operators."""
    return (dy,)


def guided(record: Record, dy: Tensor, default: Default) -> Grads:
    """Only positive gradients (the output's shape), and only where the input was positive.

    Springenberg et al. 2014, "Striving for simplicity". For ReLU.
    """
    return default(dy.clamp(min=0))


def deconvnet(record: Record, dy: Tensor, default: Default) -> Grads:
    """Only positive gradients (the output's shape), wherever they come from.

    Zeiler and Fergus 2014. For ReLU; the poolings' remembered places are the true backward's.
    """
    return (dy.clamp(min=0),)


def lrp(eps: float = 1e-6, positive: bool = False) -> Rule:
    """Layer-wise relevance: each input gets of an output's relevance what it gave to its value.

    R_i = sum over j of  a_i w_ij / (z_j + eps sign z_j)  R_j, the epsilon rule of Bach et al. 2015;
    with `positive` only weights above zero count (the z+ rule). For conv and linear, biases left
    out of the sums. What flows back is relevance, not gradient; start it at the score of a class.
    """

    def rule(record: Record, dy: Tensor, default: Default) -> Grads:
        if record.op.name not in ("conv", "linear"):
            raise OptionError(f"lrp is a rule for conv and linear, not for {record.op.name}")
        x, w = record.saved[0], record.saved[1]
        w = w.clamp(min=0) if positive else w
        z, saved = record.op.forward(x, w, None, **record.options)
        assert isinstance(z, Tensor)
        z = z + eps * torch.where(z >= 0, torch.ones_like(z), -torch.ones_like(z))
        back = record.op.backward(dy / z, saved)[0]
        assert back is not None
        return (x * back, *[None] * (len(record.inputs) - 1))

    return rule
