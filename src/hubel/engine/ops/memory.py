"""Shared memory: a tensor whose elements another tensor's write has changed."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hubel.engine.ops.base import Grads, Op, Saved, register


@register
class Overwritten(Op):
    """The old value, with the places that both tensors hold replaced by the written one.

    `mine` and `theirs` (int64, the tensors' shapes) are places in the shared memory of `places`
    elements. The tape writes this record itself; nobody calls it.
    """

    name = "overwritten"
    tensors = ("x", "written")
    formula = "y[i] = written[j] where i and j are one place in memory, else x[i]"

    @staticmethod
    def forward(
        x: Tensor, written: Tensor, *, mine: Tensor, theirs: Tensor, places: int
    ) -> tuple[Tensor, Saved]:
        """Shape of `x`."""
        flat = x.new_zeros(places)
        flat[mine.reshape(-1)] = x.reshape(-1)
        flat[theirs.reshape(-1)] = written.reshape(-1)
        return flat[mine], (mine, theirs, places)

    @staticmethod
    def backward(dy: Any, saved: Saved) -> Grads:
        """What was overwritten gets nothing; the writer gets what stands in its places."""
        mine, theirs, places = saved
        flat = dy.new_zeros(places)
        flat[mine.reshape(-1)] = dy.reshape(-1)
        dwritten = flat[theirs].clone()  # a single place would be a view
        flat[theirs.reshape(-1)] = 0
        return flat[mine], dwritten
