"""Operators without a rule of ours: torch differentiates that one call, and it is said.

Nothing hides: a borrowed record is marked in every table, and `Look.borrowed` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hubel.engine.ops.base import Grads, Op, Output, Saved


class Call:
    """A function with its arguments, the tensors among them taken out.

    Args:
        function: what ran; `name` what it is called.
        args, kwargs: as given; nested lists and tuples are kept.
        random: whether it draws random numbers; these are the same when it runs again.
        writes: whether it writes into its arguments; when it runs again it gets copies.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        random: bool = False,
        *,
        writes: bool = False,
    ) -> None:
        self.function, self.name, self.random, self.writes = function, name, random, writes
        self.tensors: list[Tensor] = []
        self._args = self._take([*args])
        self._kwargs = {key: self._take(value) for key, value in kwargs.items()}

    def __call__(self, tensors: Sequence[Tensor]) -> Any:
        """Run it on these tensors in the place of the first ones."""
        kwargs = {key: _give(value, tensors) for key, value in self._kwargs.items()}
        return self.function(*_give(self._args, tensors), **kwargs)

    def _take(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            self.tensors.append(value)
            return _Hole(len(self.tensors) - 1)
        if isinstance(value, (list, tuple)):
            return type(value)(self._take(v) for v in value) if _plain(value) else value
        return value


class _Hole(int):
    """The place of tensor number so and so."""


def _plain(value: Any) -> bool:
    return type(value) in (list, tuple)


def _give(value: Any, tensors: Sequence[Tensor]) -> Any:
    if isinstance(value, _Hole):
        return tensors[value]
    if _plain(value):
        return type(value)(_give(v, tensors) for v in value)
    return value


class Borrowed(Op):
    """One call of torch's, run again under autograd when its gradient is asked for."""

    name = "borrowed"
    family = "borrow"
    tensors = ("*xs",)
    formula = "torch.autograd on this one call"

    @staticmethod
    def forward(*tensors: Tensor, call: Call, live: tuple[bool, ...]) -> tuple[Output, Saved]:
        """Output of the call; saves the inputs and where the random numbers stood."""
        chance = torch.get_rng_state() if call.random else None
        kept = tuple(t.clone() for t in tensors) if call.writes else tensors
        y = call(tensors)
        return tuple(y) if isinstance(y, list) else y, (kept, call, live, chance)

    @staticmethod
    def backward(dy: Any, saved: Saved) -> Grads:
        """Gradients of the tensors by autograd; None for those that have none."""
        tensors, call, live, chance = saved
        with torch.inference_mode(False), torch.enable_grad(), _chance(chance):
            leaves = [
                _leaf(t, wanted, call.writes) for t, wanted in zip(tensors, live, strict=True)
            ]
            y = call(leaves)
        pairs = [(y, dy)] if isinstance(y, Tensor) else list(zip(y, dy, strict=True))
        pairs = [(a, b) for a, b in pairs if b is not None and a.requires_grad]
        wanted = [t for t in leaves if t.requires_grad]
        if not pairs or not wanted:
            return (None,) * len(leaves)
        outputs, gradients = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(outputs, wanted, gradients, allow_unused=True))
        return tuple(next(found) if t.requires_grad else None for t in leaves)

    @classmethod
    def windows(cls, shapes: Any, **options: Any) -> None:
        """Nothing is known of it, so it may read everything."""
        return


def _leaf(t: Tensor, wanted: bool, copied: bool) -> Tensor:
    plain = t.clone() if copied or t.is_inference() else t.detach()
    return plain.requires_grad_(wanted and t.is_floating_point())


class _chance:
    """Random numbers as they stood then, for a while."""

    def __init__(self, state: Tensor | None) -> None:
        self.state = state

    def __enter__(self) -> None:
        if self.state is not None:
            self.now = torch.get_rng_state()
            torch.set_rng_state(self.state)

    def __exit__(self, *error: object) -> None:
        if self.state is not None:
            torch.set_rng_state(self.now)


class Flat(Op):
    """Comparisons, roundings, counts: no slope anywhere, so nothing flows back."""

    name = "flat"
    family = "flat"
    tensors = ("*xs",)
    slopes = False
    formula = "dy/dx = 0"

    @staticmethod
    def forward(*tensors: Tensor, call: Call) -> tuple[Output, Saved]:
        """Output of the call; nothing to save."""
        y = call(tensors)
        return tuple(y) if isinstance(y, list) else y, ()

    @staticmethod
    def backward(dy: Any, saved: Saved) -> Grads:
        """Never asked: the outputs are not followed."""
        return ()


_FLAT = """
zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_full new_empty
new_empty_strided gt lt ge le eq ne sign sgn floor ceil round trunc argmax argmin argsort isnan
isfinite isinf logical_not logical_and logical_or nonzero bernoulli floor_divide equal signbit
heaviside searchsorted bucketize count_nonzero multinomial any all histc bincount
"""
FLAT = {f"aten::{name}" for name in _FLAT.split()}
