"""What each kind of node asks of the planner: its kernels forward, and its kernels back.

To add a kind: read it in `read.py`, write its kernel in `kernels/` (or use those there are), and
give it a forward and a backward here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hubel.engine.native.graph import Node
from hubel.engine.native.lower.convolution import conv, conv_back
from hubel.engine.native.lower.dense import linear, linear_back
from hubel.engine.native.lower.groups import group, group_back
from hubel.engine.native.lower.moving import (
    concat,
    concat_back,
    thin,
    thin_back,
    upsample,
    upsample_back,
    view,
    view_back,
)
from hubel.engine.native.lower.pooling import pool, pool_back, whole, whole_back
from hubel.engine.native.lower.resampling import (
    resample,
    resample_back,
    response,
    response_back,
)
from hubel.engine.native.lower.scaling import broadcast, broadcast_back
from hubel.engine.native.planner import Planner

Lower = Callable[[Planner, Node], Any]

_KINDS: dict[str, tuple[Lower, Lower]] = {
    "conv": (conv, conv_back),
    "conv_transposed": (conv, conv_back),
    "linear": (linear, linear_back),
    "group": (group, group_back),
    "pool": (pool, pool_back),
    "whole": (whole, whole_back),
    "concat": (concat, concat_back),
    "thin": (thin, thin_back),
    "upsample": (upsample, upsample_back),
    "view": (view, view_back),
    "resample": (resample, resample_back),
    "response": (response, response_back),
    "broadcast": (broadcast, broadcast_back),
}


def forward(p: Planner, node: Node) -> None:
    """Ask for a node's kernels, and see to the norms that read what it writes."""
    summed = _KINDS[node.kind][0](p, node)
    p.note_value(node.output, bool(summed))


def backward(p: Planner, node: Node) -> None:
    """Ask for the kernels that bring a node's gradient to its inputs and weights."""
    _KINDS[node.kind][1](p, node)
