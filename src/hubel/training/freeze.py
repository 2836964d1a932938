"""Which weights stand still: all but the head for good, or while a new head finds its feet.

A frozen layer keeps its weights, and a frozen batch norm its statistics as well: it works as it
does in eval mode, or the features would still drift (Kornblith et al. 2019 fix them likewise).
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hubel.errors import ModelError, unknown
from hubel.models.head import body_of
from hubel.training.plan import BODY, Plan


class Freezer:
    """Holds a model's frozen part still, epoch by epoch."""

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        """Raises `ModelError` where the plan asks for a head and the model has none."""
        self.model, self.plan = model, plan
        self.trainable = [p for p in model.parameters() if p.requires_grad]
        self.body = body_of(model) if plan.head_epochs else set()
        self.norms: list[tuple[nn.Module, bool]] = []  # each norm, and whether it stands still
        self.epoch: int | None = None

    def __call__(self, epoch: int) -> bool:
        """Set what moves in this epoch; whether that is anything new."""
        if self.epoch is not None and self._head_only(epoch) == self._head_only(self.epoch):
            return False
        self.epoch = epoch
        for parameter in self.trainable:
            parameter.requires_grad_(not (self._head_only(epoch) and id(parameter) in self.body))
        self.norms = _norms(self.model)
        return True

    def train(self) -> None:
        """The model in training mode, its frozen norms in eval mode, whatever was done to it."""
        if not self.model.training or any(norm.training == still for norm, still in self.norms):
            self.model.train()
            for norm, still in self.norms:
                norm.train(not still)

    def _head_only(self, epoch: int) -> bool:
        return epoch < self.plan.head_epochs


def freeze(model: nn.Module, what: str | None) -> None:
    """Freeze a part of the model for good.

    Args:
        what: "body": all but the last layer; or a layer's path: all up to and with it, in the
            order of registration; None: nothing.

    Raises `ModelError` for a path that is not there, and where nothing would be left to learn.
    """
    if what is None:
        return
    held = body_of(model) if what == BODY else _up_to(model, what)
    for parameter in model.parameters():
        if id(parameter) in held:
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise ModelError(f"freezing up to {what!r} leaves nothing to learn")


def _up_to(model: nn.Module, path: str) -> set[int]:
    names = [name for name, _ in model.named_modules() if name]
    if path not in names:
        raise ModelError(unknown("layer to freeze up to", path, [BODY, *_stages(names)]))
    held: set[int] = set()
    for name, module in model.named_modules():
        if name and not path.startswith(f"{name}."):  # not a module that only holds the path
            held |= {id(p) for p in module.parameters()}
        if name == path:
            return held
    raise AssertionError("the path is among the names")


def _stages(names: list[str]) -> list[str]:
    return [name for name in names if "." not in name]


def _norms(model: nn.Module) -> list[tuple[nn.Module, bool]]:
    """Every batch norm, and whether its weights stand still: those of the layer before it, where it
    has none of its own."""
    found: list[tuple[nn.Module, bool]] = []
    still = False
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        still = not any(p.requires_grad for p in own) if own else still
        if isinstance(module, _BatchNorm):
            found.append((module, still))
    return found
