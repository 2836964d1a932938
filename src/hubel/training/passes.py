"""How one piece of a batch goes forward and back, leaving gradients in the weights.

`Autograd` is PyTorch's way; `Explicit` is the engine's: every value and every gradient by a formula
that stands in `engine/ops`, no autograd anywhere; `NativePass` (`training/native.py`) is the
compiled step. All leave the same gradients, to rounding.
"""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

from torch import Tensor, nn

from hubel.engine.backprop import backpropagate
from hubel.engine.tape import Tape
from hubel.tasks.task import Task
from hubel.training.distribute import Crew
from hubel.training.native import NativePass
from hubel.training.plan import Plan
from hubel.training.speed import Choice


class Pass(Protocol):
    """Forward and backward of one piece."""

    def __call__(self, x: Tensor, t: Tensor, share: float, last: bool) -> tuple[Any, Tensor]:
        """Adds the piece's gradient to the weights' `grad`.

        Args:
            x, t: images (N, C, H, W) and targets.
            share: the piece's share of the batch, by which its loss is weighted.
            last: whether it is the batch's last piece: several processes meet then.

        Returns the net's outputs and the weighted loss, detached.
        """


def make_pass(model: nn.Module, task: Task, plan: Plan, choice: Choice, crew: Crew) -> Pass:
    """The pass that the plan's engine asks for."""
    if choice.native:
        half = choice.precision == "bf16"
        return NativePass(model, task, crew, half, plan.piece(crew.world))
    kind = Explicit if plan.engine == "explicit" else Autograd
    return kind(model, task, choice, crew)


def _total(task: Task, outputs: Any, t: Tensor, share: float) -> Tensor:
    loss = task.total(outputs, t)
    return loss if share == 1 else loss * share


class Autograd:
    """Torch's kernels and autograd, in the chosen precision and layout."""

    def __init__(self, model: nn.Module, task: Task, choice: Choice, crew: Crew) -> None:
        self.task, self.choice, self.crew = task, choice, crew
        self.forward = choice.prepare(crew.wrap(model))

    def __call__(self, x: Tensor, t: Tensor, share: float, last: bool) -> tuple[Any, Tensor]:
        with self._hold_sync(not last):
            with self.choice.autocast(x.device):
                outputs = self.forward(self.choice.layout(x))
                loss = _total(self.task, outputs, t, share)
            loss.backward()  # type: ignore[no-untyped-call]
        return outputs, loss.detach()

    def _hold_sync(self, hold: bool) -> contextlib.AbstractContextManager[None]:
        """Several processes exchange gradients at the last micro-batch only."""
        if hold and self.crew.world > 1:
            return self.forward.no_sync()  # type: ignore[operator, no-any-return]
        return contextlib.nullcontext()


class Explicit:
    """The engine's readable formulas, forward and backward."""

    def __init__(self, model: nn.Module, task: Task, choice: Choice, crew: Crew) -> None:
        self.model, self.task, self.choice, self.crew = model, task, choice, crew
        self.weights = dict(model.named_parameters())

    def __call__(self, x: Tensor, t: Tensor, share: float, last: bool) -> tuple[Any, Tensor]:
        self.crew.spread(list(self.model.buffers()))
        with Tape(self.model) as tape, self.choice.autocast(x.device):
            outputs = self.model(x)
            loss = _total(self.task, outputs, t, share)
        for name, gradient in backpropagate(tape, loss, free=True).items():
            weight = self.weights[name]
            weight.grad = gradient if weight.grad is None else weight.grad + gradient
        if last:
            self.crew.average([w.grad for w in self.weights.values() if w.grad is not None])
        return outputs, loss
