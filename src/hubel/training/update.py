"""One optimiser step: forward, loss, backward, clip, decay, step; whole or not at all.

A step that meets NaN or infinity, or runs out of memory, leaves the weights as they were.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from hubel.data.feed import Feed
from hubel.data.order import derive_seed
from hubel.data.record import Batch
from hubel.engine.native.graph import NotCovered
from hubel.errors import TrainingError
from hubel.tasks.task import Task
from hubel.training.distribute import Crew
from hubel.training.freeze import Freezer
from hubel.training.head_alone import HeadAlone, is_head_alone
from hubel.training.native import NativeStep, update_of
from hubel.training.optimiser import DiagonalLM, apply_decay, decay_form, set_rate
from hubel.training.passes import make_pass
from hubel.training.plan import Plan
from hubel.training.speed import Choice
from hubel.training.state import State
from hubel.training.survey import survey


class NotFinite(Exception):
    """Loss or gradient is NaN or infinite; the weights are untouched."""

    def __init__(self, loss: float, norm: float) -> None:
        super().__init__(f"loss {loss}, gradient norm {norm}")
        self.loss = loss
        self.norm = norm


class Outcome(NamedTuple):
    """What a step saw: mean loss, training hits of so many counted, images, and the gradient norm
    before clipping."""

    loss: float
    hits: int
    counted: int
    seen: int
    norm: float
    note: str | None = None


class Update:
    """Takes one batch after another through the net and moves the weights."""

    def __init__(self, state: State, task: Task, plan: Plan, choice: Choice, crew: Crew) -> None:
        self.state, self.task, self.plan, self.choice, self.crew = state, task, plan, choice, crew
        self.freezer = Freezer(state.model, plan)
        self.freezer(state.epoch)
        self._ready()
        self.alone: HeadAlone | Literal[False] | None = None  # None: not tried yet
        self.weights = [p for group in state.optimiser.param_groups for p in group["params"]]
        self.decay = decay_form(plan.optimiser)
        self.buffers = list(state.model.buffers())  # batch norm's running statistics
        self.buffers_before = [buffer.clone() for buffer in self.buffers]

    def open_epoch(self, feed: Feed) -> None:
        """What comes before an epoch's first step: who moves, and for sdlm the curvature."""
        if self.freezer(self.state.epoch):
            self._ready()
        if is_head_alone(self.plan) and self.alone is None:
            alone = HeadAlone(self.state.model, self.task, self.choice, self.crew)
            self.alone = alone if alone.fill(feed) else False
        optimiser = self.state.optimiser
        if isinstance(optimiser, DiagonalLM) and self.state.position == 0:
            self.seed()
            self.freezer.train()
            optimiser.measured(survey(self.state, self.task, feed, self.plan.seed, self.crew))

    def __call__(self, batch: Batch, rate: float) -> Outcome:
        """One step at learning rate `rate`. Raises `NotFinite`; halves `state.micro` and tries
        again where memory runs out; raises `TrainingError` where one image is too much."""
        note = None
        self._keep_buffers()
        mass = self._mass(batch.targets)
        while True:
            try:
                if self.whole is not None and len(batch) <= self.state.micro and not self.alone:
                    return self._at_once(self.whole, batch, rate)
                loss, hits = self._gradient(batch, mass)
                break
            except NotCovered as hurdle:
                note = self._in_torch(hurdle)
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                note = self._halve()
        gradients = [w.grad for w in self.weights if w.grad is not None]
        loss_value, norm = _read(loss, gradients)
        if not (math.isfinite(loss_value) and math.isfinite(norm)):
            self._restore_buffers()
            raise NotFinite(loss_value, norm)
        if self.plan.clip is not None and norm > self.plan.clip:
            torch._foreach_mul_(gradients, self.plan.clip / norm)
        set_rate(self.state.optimiser, rate)
        apply_decay(self.state.optimiser, self.decay)
        self.state.optimiser.step()
        if self.state.ema is not None:
            self.state.ema.update_parameters(self.state.model)
        counted = int(self.task.counted(batch.targets))
        return Outcome(loss_value, int(hits), counted, len(batch), norm, note)

    def pieces(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """The batch's images and targets in micro-batches."""
        images = torch.split(batch.images, self.state.micro)
        targets = torch.split(batch.targets, self.state.micro)
        return list(zip(images, targets, strict=True))

    def seed(self) -> None:
        """Chance inside the net (dropout) is a function of the step.

        `torch.manual_seed` would queue a call and a stack trace for every idle CUDA device, each
        step: 0.3 ms, and memory that is never freed.
        """
        seed = self._chance()
        torch.default_generator.manual_seed(seed)
        if self.crew.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _chance(self) -> int:
        return derive_seed(self.plan.seed, "step", self.state.step, self.crew.rank)

    def _ready(self) -> None:
        """Make ready for those who learn now: the pass, and the whole step where there is one."""
        state, plan = self.state, self.plan
        self.take = make_pass(state.model, self.task, plan, self.choice, self.crew)
        update = update_of(plan)
        self.whole: NativeStep | None = None
        if self.choice.native and update is not None and self.crew.world == 1:
            half = self.choice.precision == "bf16"
            self.whole = NativeStep(
                state.model, state.optimiser, self.task, update, half, plan.piece(1)
            )

    def _at_once(self, whole: NativeStep, batch: Batch, rate: float) -> Outcome:
        """The compiled step: forward, backward and update in one."""
        set_rate(self.state.optimiser, rate)
        self.freezer.train()
        answer = whole(batch.images, batch.targets, self._chance, self.plan.clip)
        if not answer.sound:
            self._restore_buffers()
            raise NotFinite(answer.loss, answer.norm)
        if self.state.ema is not None:
            self.state.ema.update_parameters(self.state.model)
        count = len(batch)
        maps = batch.targets.ndim > 2
        counted = int(self.task.counted(batch.targets)) if maps else count
        return Outcome(answer.loss, answer.hits, counted, count, answer.norm)

    def _in_torch(self, hurdle: NotCovered) -> str:
        """From here on without the native step."""
        self._restore_buffers()
        self.choice = replace(self.choice, native=False)
        self._ready()
        return f"the native step cannot do {hurdle}: training goes on in PyTorch"

    def _mass(self, targets: Tensor) -> float | None:
        """What the loss of this batch is a mean over, as a mean over the crew; None alone, where
        only pieces ask. Asked for once: memory that runs out in one process stays its own affair.
        """
        if self.crew.world == 1:
            return None
        own = torch.tensor(float(self.task.mass(targets)), dtype=torch.float64)
        return float(self.crew.total(own)) / self.crew.world

    def _gradient(self, batch: Batch, mass: float | None) -> tuple[Tensor, Tensor]:
        """Leaves the batch's mean gradient in the weights; returns mean loss and hits.

        The losses of micro-batches and of processes, whose gradients are averaged, are weighted by
        their share of what the loss is a mean over (`Task.mass`: images, labelled pixels), so that
        the sum is the whole batch's loss whatever the cut (batch norm, which sees the parts,
        excepted).
        """
        self.seed()
        self._forget_gradients()
        self.freezer.train()
        loss = torch.zeros((), device=batch.images.device)
        hits = torch.zeros((), dtype=torch.int64, device=batch.images.device)
        pieces = self.pieces(batch)
        rows = torch.split(batch.rows, self.state.micro)
        shares = self._shares([t for _, t in pieces], mass)
        for number, ((x, t), r, share) in enumerate(zip(pieces, rows, shares, strict=True), 1):
            last = number == len(pieces)
            if self.alone:
                outputs, part = self.alone(r, t, share, last)
            else:
                outputs, part = self.take(x, t, share, last)
            loss += part
            hits += self.task.hits(outputs, t)
        return loss, hits

    def _shares(self, targets: list[Tensor], mass: float | None) -> list[float]:
        if len(targets) == 1 and mass is None:
            return [1.0]
        masses = [float(self.task.mass(t)) for t in targets]
        whole = (sum(masses) if mass is None else mass) or 1.0
        return [part / whole for part in masses]

    def _keep_buffers(self) -> None:
        if self.buffers:
            with torch.no_grad():
                torch._foreach_copy_(self.buffers_before, self.buffers)

    def _restore_buffers(self) -> None:
        if self.buffers:
            with torch.no_grad():
                torch._foreach_copy_(self.buffers, self.buffers_before)

    def _forget_gradients(self) -> None:
        """As the optimiser's zero_grad does, without its profiler's 0.1 ms."""
        for weight in self.weights:
            weight.grad = None

    def _halve(self) -> str:
        self._restore_buffers()
        self._forget_gradients()
        if self.state.micro == 1:
            raise TrainingError(
                "out of memory with a single image: use a smaller --size or a smaller model"
            )
        self.state.micro = math.ceil(self.state.micro / 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return (
            f"out of memory: {self.state.micro} images at a time from now on; "
            f"a step still takes {self.plan.batch}, so the result stays comparable"
            + (" (batch norm sees the smaller groups)" if _has_batch_norm(self.state.model) else "")
        )


@torch.no_grad()
def _read(loss: Tensor, gradients: list[Tensor]) -> tuple[float, float]:
    """The loss and the gradients' global norm, in one trip from the device."""
    value, *norms = torch.stack([loss, *torch._foreach_norm(gradients)]).tolist()
    return value, math.hypot(*norms)


def _has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


def _out_of_memory(error: RuntimeError) -> bool:
    """CUDA has a class for it; the CPU's allocator only says so."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
