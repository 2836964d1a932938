"""Training through the compiled step (`engine/native`): same model, same weights, same optimiser.

`NativePass` leaves gradients in the weights, as the other passes do, for any optimiser.
`NativeStep` takes the whole step at once, the optimiser's included, where that is SGD or Adam and
the batch goes through in one piece. The first step of either is held against PyTorch's on the
user's own net and batch; where they disagree, or where the net has something that cannot be
compiled, `NotCovered` says so and training goes on in PyTorch.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from hubel.data.fetch import cache_folder
from hubel.engine.native.graph import NotCovered
from hubel.engine.native.kernels.update import Update
from hubel.engine.native.machine import Machine, this_machine
from hubel.engine.native.plan import Aim
from hubel.engine.native.step import Answer, Step, compile_step
from hubel.tasks.classify import AUXILIARY, Classify
from hubel.tasks.segment import AUXILIARY as PIXELS_AUXILIARY
from hubel.tasks.segment import Segment
from hubel.tasks.task import Task
from hubel.training.distribute import Crew
from hubel.training.optimiser import MomentumSGD
from hubel.training.plan import Plan

# How far a gradient may stand from PyTorch's: a share of its own length (ReLUs at zero fall one way
# here and the other way there), a share of the whole gradient's (less than that is rounding), and
# how far the loss may. In bfloat16 PyTorch's own gradients can stand a third of their length away.
CLOSE = (0.02, 1e-5, 1e-3)
CLOSE_HALF = (0.5, 0.02, 0.02)
MOST_CHECKED = 64  # images that the first step is checked on


class Compiled:
    """The compiled steps of one model: one for each image size that comes by.

    Args:
        task: whose loss is gone down.
        update: the optimiser's step to take as well.
        half: convolutions in bfloat16.
        number: images of a full batch: the code is made for those whichever batch comes first, so
            that a training that is taken up again gives the same bits.

    Raises `NotCovered` for a task whose loss is not compiled.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        update: Update | None = None,
        half: bool = False,
        number: int | None = None,
    ) -> None:
        self.task = _compiled_loss(task)
        self.model, self.update, self.half = model, update, half
        self.number = number
        self.steps: dict[Any, Step] = {}
        self.modules = list(model.modules())  # frozen norms keep their statistics: who trains?
        norms = [m for m in self.modules if isinstance(m, _BatchNorm)]
        self.norms = [m for m in norms if m.num_batches_tracked is not None]

    def __call__(self, images: Tensor, targets: Tensor, check: bool = True) -> Step:
        """The step for batches like this one. Raises `NotCovered`."""
        key = (images.shape[1:], targets.ndim, tuple([m.training for m in self.modules]))
        if key not in self.steps:
            step = self._compile(self.model, images, targets, self.update)
            if check and not self.steps:
                self._check(step, images[:MOST_CHECKED], targets[:MOST_CHECKED])
            self.steps[key] = step
        return self.steps[key]

    def run(
        self,
        step: Step,
        images: Tensor,
        targets: Tensor,
        share: float = 1.0,
        seed: int = 0,
        clip: float | None = None,
    ) -> Answer:
        """One step, its targets as the task has them; `share`: of what the batch's loss is a mean
        over, the part that these images have."""
        if isinstance(self.task, Classify):
            scale = share / max(images.shape[0], 1)
            return step.run(images, targets, scale=scale, seed=seed, clip=clip)
        height, width = step.plan.answer[1:]
        pixels = self.task.pixels(targets, (height, width))
        scale = share / (float(pixels.mass()) or 1.0)
        answer = step.run(images, pixels.told(), scale=scale, seed=seed, clip=clip)
        if targets.shape[-2:] != (height, width):  # a small map speaks for all pixels
            return answer._replace(hits=int(self.task.hits(answer.logits, targets)))
        return answer

    def count(self) -> None:
        """Norms in training count their batches."""
        counters = [m.num_batches_tracked for m in self.norms if m.training]
        if counters:
            torch._foreach_add_(counters, 1)  # type: ignore[arg-type]

    def _compile(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        update: Update | None,
        machine: Machine | None = None,
    ) -> Step:
        pixels = isinstance(self.task, Segment)
        auxiliary = PIXELS_AUXILIARY if pixels else AUXILIARY
        shares = targets.ndim == 2
        aim = Aim(True, self.task.smoothing, auxiliary, shares, half=self.half, pixels=pixels)
        return compile_step(
            model, images, aim=aim, update=update, number=self.number, machine=machine,
            cache_folder=code_folder(),
        )  # fmt: skip

    def _check(self, whole: Step, images: Tensor, targets: Tensor) -> None:
        """A step without chance, for the same machine as `whole`, compiled and in PyTorch.

        Raises `NotCovered` where they differ.
        """
        ours, theirs = _without_chance(self.model), _without_chance(self.model)
        step = self._compile(ours, images, targets, None, whole.machine)
        answer = self.run(step, images, targets)
        loss = self.task.total(theirs(images), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        close = CLOSE_HALF if self.half else CLOSE
        wrong = disagreement(step, answer, theirs, float(loss.detach()), close)
        if wrong is not None:
            raise NotCovered(f"a first step that differs from PyTorch's ({wrong})")


def _compiled_loss(task: Task) -> Classify | Segment:
    """The task, if its loss can be compiled; else raises `NotCovered`."""
    if isinstance(task, Segment):
        if task.terms != ("cross-entropy",):
            raise NotCovered(f"a loss of {' and '.join(task.terms)}")
        if task.weights is not None and task.smoothing:
            raise NotCovered("class weights with label smoothing")
    elif not isinstance(task, Classify):
        raise NotCovered(f"the loss of the task {task.kind}")
    return task


def disagreement(
    step: Step,
    answer: Answer,
    model: nn.Module,
    loss: float,
    close: tuple[float, float, float] = CLOSE,
) -> str | None:
    """Where a step's gradients stand apart from those in `model`; None where they agree.

    What is not finite in both agrees: that is reported as training goes on.
    """
    if not math.isfinite(loss):
        return None if not math.isfinite(answer.loss) else f"loss {answer.loss:g}, there {loss:g}"
    share, tiny, near = close
    if not math.isclose(answer.loss, loss, rel_tol=near, abs_tol=1e-5):
        return f"loss {answer.loss:g}, there {loss:g}"
    true = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    whole = math.hypot(*[float(g.norm()) for g in true.values()])
    for name, gradient in true.items():
        length = float(gradient.norm())
        apart = float((step.gradients[name] - gradient).norm())
        if not apart <= share * length + tiny * whole:
            return f"gradient of {name} off by {apart / max(length, 1e-30):.1%}"
    return None


def _without_chance(model: nn.Module) -> nn.Module:
    copied = copy.deepcopy(model)
    copied.zero_grad()
    for module in copied.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
    return copied


class NativePass:
    """Forward and backward compiled; gradients are left in the weights."""

    def __init__(self, model: nn.Module, task: Task, crew: Crew, half: bool, number: int) -> None:
        self.compiled = Compiled(model, task, half=half, number=number)
        self.crew, self.model = crew, model
        self.weights = dict(model.named_parameters())

    def __call__(self, x: Tensor, t: Tensor, share: float, last: bool) -> tuple[Any, Tensor]:
        """As `passes.Pass`. Raises `NotCovered`."""
        chance = int(torch.randint(1 << 31, ()))  # another one for each piece of a batch
        self.crew.spread(list(self.model.buffers()))
        step = self.compiled(x, t)
        answer = self.compiled.run(step, x, t, share, chance)
        self.compiled.count()
        for name in step.parameters:
            weight, gradient = self.weights[name], step.gradients[name]
            weight.grad = gradient.clone() if weight.grad is None else weight.grad + gradient
        if last:
            self.crew.average([w.grad for w in self.weights.values() if w.grad is not None])
        return answer.logits, torch.tensor(answer.loss)


class NativeStep:
    """A whole step compiled, the optimiser's included."""

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        task: Task,
        update: Update,
        half: bool,
        number: int,
    ) -> None:
        self.optimiser = optimiser
        self.compiled = Compiled(model, task, update, half, number)
        self.names = {id(p): name for name, p in model.named_parameters()}
        self.steps: list[Tensor] = []
        self._bound: Step | None = None
        self._rows: list[tuple[dict[str, Any], NDArray[np.intp]]] = []
        self._told: list[tuple[float, ...] | None] = []

    def __call__(
        self, images: Tensor, targets: Tensor, seed: Callable[[], int], clip: float | None
    ) -> Answer:
        """One step, at the rates that stand in the optimiser's groups. Raises `NotCovered`."""
        step = self.compiled(images, targets)
        if step is not self._bound:
            self._bind(step)
        self._tell(step)
        chance = seed() if step.chance else 0
        answer = self.compiled.run(step, images, targets, seed=chance, clip=clip)
        self.compiled.count()
        if not answer.sound and self.steps:
            torch._foreach_sub_(self.steps, 1)
        return answer

    def _bind(self, step: Step) -> None:
        """The optimiser's own state, made where it is not yet, is what the step works on."""
        places = {name: place for place, name in enumerate(step.parameters)}
        self._bound, self._rows, self._told, self.steps = step, [], [], []
        for group in self.optimiser.param_groups:
            names = [(self.names[id(w)], w) for w in group["params"]]
            mine = [(name, w) for name, w in names if name in places]
            rows = [places[name] for name, _ in mine]
            self._rows.append((group, np.array(rows, dtype=np.intp)))
            self._told.append(None)
            for name, weight in mine:
                step.bind(name, *self._state(weight))

    def _state(self, weight: Tensor) -> tuple[Tensor, ...]:
        if isinstance(self.optimiser, MomentumSGD):
            return (self.optimiser.velocity(weight),)
        state = self.optimiser.state[weight]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(weight)
            state["exp_avg_sq"] = torch.zeros_like(weight)
        self.steps.append(state["step"])
        return state["exp_avg"], state["exp_avg_sq"]

    def _tell(self, step: Step) -> None:
        """Rate, momentum and decay of every parameter, for this step."""
        warm = self._warmth()
        for place, (group, rows) in enumerate(self._rows):
            momentum, beta2 = group.get("betas", (group.get("momentum", 0.0), 0.0))
            told = (group["lr"], momentum, group["decay"], beta2, group.get("eps", 0.0), *warm)
            if told != self._told[place]:  # numbers that stand still need not be told again
                step.figures[rows] = self._told[place] = told

    def _warmth(self) -> tuple[float, float]:
        """Adam's 1 - beta1^t and sqrt(1 - beta2^t), t this step's number."""
        if not self.steps:
            return 1.0, 1.0
        torch._foreach_add_(self.steps, 1)
        t = float(self.steps[0])
        beta1, beta2 = self.optimiser.param_groups[0]["betas"]
        return 1 - beta1**t, math.sqrt(1 - beta2**t)


_forwards: weakref.WeakKeyDictionary[nn.Module, dict[Any, Step | None]]
_forwards = weakref.WeakKeyDictionary()


def native_outputs(model: nn.Module, images: Tensor) -> Tensor | None:
    """The model's outputs, by compiled code; None where that cannot be. `model` is in eval mode."""
    steps = _forwards.setdefault(model, {})
    shape = images.shape[1:]
    step = steps.get(shape)
    if shape not in steps or (step is not None and not step.suits(len(images))):
        try:
            aim = Aim(loss=False, backward=False)
            step = compile_step(model, images, aim=aim, cache_folder=code_folder())
        except NotCovered:
            step = None
        steps[shape] = step
    if step is None:
        return None
    try:
        return step.run(images).logits
    except NotCovered:  # there is no memory for so many
        return None


NativeRunner = Callable[[nn.Module, Tensor, Tensor, bool], Callable[[], None] | None]


def check_native(
    model: nn.Module, task: Task, images: Tensor, targets: Tensor, half: bool = False
) -> None:
    """Compile a step for a copy of the model and hold it against PyTorch's. Raises `NotCovered`."""
    copied = copy.deepcopy(model).train()
    Compiled(copied, task, half=half)(images, targets)


def has_half() -> bool:
    """Whether this processor multiplies in bfloat16."""
    return this_machine().half


def native_runner(task: Task) -> NativeRunner:
    """What measures the native step: see `speed.measure`."""

    def runner(
        model: nn.Module, images: Tensor, targets: Tensor, half: bool
    ) -> Callable[[], None] | None:
        try:
            compiled = Compiled(model, task, half=half)
            step = compiled(images, targets, check=False)
            compiled.run(step, images, targets)
        except NotCovered:
            return None

        def run() -> None:
            compiled.run(step, images, targets)

        return run

    return runner


def code_folder() -> Path:
    """Where machine code is kept between processes."""
    return cache_folder() / "native"


def update_of(plan: Plan) -> Update | None:
    """The plan's optimiser as the compiled step knows it; None where it does not."""
    o = plan.optimiser
    if o.name == "sgd":
        return Update(o.momentum_form, o.decay if o.weight_decay else "none")
    if o.name in ("adam", "adamw"):
        decay = "decoupled" if o.name == "adamw" else o.decay
        return Update("adam", decay if o.weight_decay else "none")
    return None
