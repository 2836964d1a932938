"""`State`: all that a training is at one moment, and how it goes into and out of plain tensors.

Order and randomness need no place here: both are functions of the step's address (`data/order.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from hubel.errors import RunError
from hubel.training.optimiser import build_optimiser
from hubel.training.plan import Plan

Record = dict[str, Any]
COUNTERS = ("step", "epoch", "position", "micro", "drops", "still", "still_drop", "images")


@dataclass
class Best:
    """The weights that did best on the validation part so far."""

    score: float = -math.inf
    epoch: int = -1
    weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Sums:
    """What the running epoch has added up over its training batches."""

    loss: float = 0.0
    hits: int = 0
    seen: int = 0
    counted: int = 0  # answers that hits are of: images, or labelled pixels


@dataclass
class State:
    """A training between two steps.

    Attributes:
        model: the net, its weights as the last step left them.
        optimiser: with its moments.
        ema: the moving average of the weights, where the plan asks for one.
        step: optimiser steps done.
        epoch: the epoch that is running (0-based).
        position: batches done in that epoch.
        micro: images that go through the net at once; falls when memory runs out.
        sums: training loss and hits of the running epoch.
        history: one record per finished epoch.
        best: the best weights so far, by validation score.
        drops: how often the plateau schedule has lowered the rate.
        still: epochs since the last gain; `still_drop` counts from the last drop as well.
        images: training images taken in, by this process.
        seconds: time spent on steps and their upkeep, over all sittings; `judging` that spent on
            the validation part.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    ema: AveragedModel | None
    micro: int
    step: int = 0
    epoch: int = 0
    position: int = 0
    sums: Sums = field(default_factory=Sums)
    history: list[Record] = field(default_factory=list)
    best: Best = field(default_factory=Best)
    drops: int = 0
    still: int = 0
    still_drop: int = 0
    images: int = 0
    seconds: float = 0.0
    judging: float = 0.0

    @classmethod
    def start(cls, model: nn.Module, plan: Plan, world: int = 1) -> State:
        """The state before the first step."""
        ema = AveragedModel(model, multi_avg_fn=_WarmAverage(plan.ema)) if plan.ema else None
        optimiser = build_optimiser(model, plan.optimiser, plan.body_rate)
        return cls(model, optimiser, ema, plan.piece(world))

    @property
    def judged(self) -> nn.Module:
        """The net that is evaluated and kept: the averaged one where there is one."""
        return self.ema.module if self.ema is not None else self.model

    def export(self) -> tuple[dict[str, Tensor], Record]:
        """The whole state as named tensors and one JSON record."""
        tensors = {f"model/{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"best/{name}": t for name, t in self.best.weights.items()}
        if self.ema is not None:
            tensors |= {f"ema/{name}": t for name, t in self.ema.state_dict().items()}
        slots = self.optimiser.state_dict()["state"]
        scalars: dict[str, Any] = {}
        for number, slot in slots.items():
            for name, value in slot.items():
                if isinstance(value, Tensor):
                    tensors[f"optimiser/{number}/{name}"] = value
                else:
                    scalars[f"{number}/{name}"] = value
        return tensors, self._record() | {"optimiser": scalars}

    def restore(self, tensors: dict[str, Tensor], record: Record) -> None:
        """Take up the exported state, bit for bit. Raises `RunError` where it does not fit."""
        try:
            self.model.load_state_dict(_below("model/", tensors))
            if self.ema is not None:
                self.ema.load_state_dict(_below("ema/", tensors))
        except RuntimeError as error:
            raise RunError(f"the checkpoint is of another model: {_first_line(error)}") from None
        self._restore_optimiser(_below("optimiser/", tensors), record["optimiser"])
        for name in COUNTERS:
            setattr(self, name, int(record[name]))
        self.seconds, self.judging = float(record["seconds"]), float(record["judging"])
        self.history = list(record["history"])
        self.sums = Sums(**record["sums"])
        best = record["best"]
        score = -math.inf if best["score"] is None else best["score"]
        self.best = Best(score, best["epoch"], _below("best/", tensors))

    def _record(self) -> Record:
        score = self.best.score if math.isfinite(self.best.score) else None
        return {
            **{name: getattr(self, name) for name in COUNTERS},
            "seconds": self.seconds,
            "judging": self.judging,
            "history": self.history,
            "sums": vars(self.sums),
            "best": {"score": score, "epoch": self.best.epoch},
        }

    def _restore_optimiser(self, tensors: dict[str, Tensor], scalars: Record) -> None:
        slots: dict[int, Record] = {}
        for name, value in {**tensors, **scalars}.items():
            number, key = name.split("/", 1)
            slots.setdefault(int(number), {})[key] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": slots, "param_groups": groups})


class _WarmAverage:
    """average <- d average + (1 - d) weights, with d rising from 0.1 to `decay` as steps pass,
    so that the first steps' weights are soon forgotten: d = min(decay, (1 + t) / (10 + t))."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    @torch.no_grad()
    def __call__(self, averages: Any, weights: Any, updates: Tensor | int) -> None:
        t = int(updates)
        decay = min(self.decay, (1 + t) / (10 + t))
        torch._foreach_lerp_(averages, weights, 1 - decay)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[-1].strip()
