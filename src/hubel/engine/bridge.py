"""From an operator to a function that torch can differentiate: for those that torch lacks.

    roi_pool = bridge(RoiMaxPool)
    y = roi_pool(features, boxes, size=(7, 7), scale=1 / 16)

Under autograd the operator's own backward runs; on a tape it is recorded as itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hubel.engine.ops.base import Adapted, Op
from hubel.engine.record import replaced, tensors_in


def bridge(op: type[Op]) -> Callable[..., Any]:
    """A differentiable function of the operator's positional arguments and options."""

    class Function(torch.autograd.Function):
        hubel_op = op

        @staticmethod
        def hubel_adapt(options: dict[str, Any], *tensors: Any) -> Adapted:
            return tensors, options

        @staticmethod
        def forward(ctx: Any, options: dict[str, Any], *tensors: Any) -> Any:
            y, saved = op.forward(*tensors, **options)
            kept = list({id(t): t for t in tensors_in(saved)}.values())
            ctx.save_for_backward(*kept)  # autograd frees them, and guards them against writes
            ctx.saved_form = replaced(saved, {id(t): _Slot(i) for i, t in enumerate(kept)})
            ctx.shapes = [t.shape if isinstance(t, Tensor) else None for t in tensors]
            return y

        @staticmethod
        def backward(ctx: Any, *dys: Any) -> Any:
            saved = _filled(ctx.saved_form, ctx.saved_tensors)
            gradients = op.backward(dys if len(dys) > 1 else dys[0], saved)
            for gradient, shape in zip(gradients, ctx.shapes, strict=True):
                if gradient is not None and gradient.shape != shape:
                    raise ValueError(
                        f"the backward of {op.name} gave a gradient of shape "
                        f"{tuple(gradient.shape)} for a value of shape {tuple(shape)}"
                    )
            return (None, *gradients)

    def call(*tensors: Any, **options: Any) -> Any:
        return Function.apply(options, *tensors)

    Function.__name__ = Function.__qualname__ = op.name
    call.__name__ = op.name
    call.__doc__ = f"{op.__doc__}\n\n{op.formula}"
    return call


class _Slot:
    """The place of a saved tensor."""

    def __init__(self, i: int) -> None:
        self.i = i


def _filled(tree: Any, tensors: tuple[Tensor, ...]) -> Any:
    if isinstance(tree, _Slot):
        return tensors[tree.i]
    if isinstance(tree, dict):
        return {key: _filled(branch, tensors) for key, branch in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*[_filled(branch, tensors) for branch in tree])
    if isinstance(tree, (tuple, list)):
        return type(tree)(_filled(branch, tensors) for branch in tree)
    return tree
