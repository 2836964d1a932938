"""What the tape writes down for each operator that ran."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hubel.engine.ops.base import Op, Saved, Shapes


class Statistics(NamedTuple):
    """An output in five numbers, for those who cannot keep it."""

    mean: float
    std: float
    low: float
    high: float
    zeros: float  # share of the elements that are exactly zero

    @classmethod
    def of(cls, tensor: Tensor) -> Statistics:
        """Statistics of a tensor of any shape; NaN throughout where it is empty."""
        if not tensor.numel():
            return cls(*[float("nan")] * 5)
        x = tensor.detach().double() if not tensor.is_complex() else tensor.abs().double()
        low, high = x.aminmax()
        figures = torch.stack([x.mean(), x.std(correction=0), low, high, (x == 0).double().mean()])
        return cls(*figures.tolist())


class Record:
    """One call of one operator. `inputs` and `outputs` are numbers of values on the tape.

    Every value has its own number: an in-place write gives the tensor a new one.
    """

    __slots__ = (
        "dtypes", "index", "inputs", "line", "literals", "many", "needs", "op", "options",
        "outputs", "path", "saved", "seconds", "shapes", "spelling", "statistics",
    )  # fmt: skip

    def __init__(self, op: type[Op], spelling: str, path: str) -> None:
        self.index = -1
        self.op = op
        self.spelling = spelling  # "aten.conv2d.default"
        self.path = path  # "features.3", the module whose forward was running
        self.line: str | None = None  # "net.py:31"
        self.inputs: tuple[int | None, ...] = ()  # None: that argument is no tensor
        self.dtypes: tuple[torch.dtype | None, ...] = ()  # gradients come in these
        self.literals: tuple[Any, ...] = ()  # the arguments that are none; None at tensors
        self.outputs: tuple[int, ...] = ()
        self.many = False  # whether the output is a tuple
        self.options: dict[str, Any] = {}
        self.saved: Saved = ()
        self.shapes = Shapes((), ())
        self.needs: tuple[bool, ...] = ()  # which arguments lead to a watched tensor
        self.seconds = 0.0
        self.statistics: tuple[Statistics, ...] = ()

    @property
    def borrowed(self) -> bool:
        """Whether torch's autograd stands in for a rule of ours."""
        return self.op.family == "borrow"

    def __repr__(self) -> str:
        where = f" in {self.path}" if self.path else ""
        return (
            f"<{self.index} {self.op.name}{where}: {self.shapes.inputs} -> {self.shapes.outputs}>"
        )


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and dicts."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for branch in tree:
            yield from tensors_in(branch)
    elif isinstance(tree, dict):
        for branch in tree.values():
            yield from tensors_in(branch)


def replaced(tree: Any, swap: dict[int, Any]) -> Any:
    """The tree with tensors exchanged whose id is in `swap`."""
    if isinstance(tree, Tensor):
        return swap.get(id(tree), tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*[replaced(branch, swap) for branch in tree])
    if isinstance(tree, tuple):
        return tuple(replaced(branch, swap) for branch in tree)
    if isinstance(tree, list):
        return [replaced(branch, swap) for branch in tree]
    if isinstance(tree, dict):
        return {key: replaced(branch, swap) for key, branch in tree.items()}
    return tree
