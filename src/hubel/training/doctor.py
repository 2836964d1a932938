"""Why is there a NaN? One batch is run again, and what goes bad first is named in plain words.

Looked at in the order in which trouble spreads: the batch, the parameters, the output of every
layer, every term of the loss, the gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from hubel.models.watch import is_leaf, tensors, untouched, watch

Kind = Literal["input", "target", "parameter", "layer", "loss", "gradient", "nothing"]
LossOf = Callable[[Any, Tensor], dict[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What went bad first.

    Attributes:
        layer: its name: a layer's path, a parameter, a term of the loss; None for the rest.
        kind: what sort of thing it is.
        what: "NaN", "infinity" or "NaN and infinity"; "" where nothing is bad.
        text: the finding, in a sentence or two.
    """

    layer: str | None
    kind: Kind
    what: str
    text: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class _Found(Exception):
    """Carries the first bad layer out of the forward pass."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(diagnosis.text)
        self.diagnosis = diagnosis


def diagnose(model: nn.Module, images: Tensor, targets: Tensor, loss_of: LossOf) -> Diagnosis:
    """What goes bad first when `model` learns from this batch, in the mode the model is in.

    The model, its gradients and all chance are left as they were. A fault that comes from chance
    (dropout) or from low precision shows again only if the caller seeds and casts as before.

    Args:
        images: float (N, C, H, W), normalised.
        targets: what `loss_of` takes.
        loss_of: (what the model returned, targets) -> the loss's terms by name.
    """
    found = _bad_batch(images, targets) or _bad_parameter(model)
    if found is not None:
        return found
    with untouched(model):
        try:
            with watch(model, leave=_inspect):
                outputs = model(images)
        except _Found as stop:
            return stop.diagnosis
        terms = loss_of(outputs, targets)
        return _bad_term(terms, outputs) or _bad_gradient(model, terms) or _NOTHING


def first_bad_layer(model: nn.Module, images: Tensor) -> Diagnosis | None:
    """The first layer to give NaN or infinity though it was given neither; None if there is none.

    The model is left as it was.

    Args:
        images: float (N, C, H, W), all finite.
    """
    with torch.no_grad(), untouched(model):
        try:
            with watch(model, leave=_inspect):
                model(images)
        except _Found as stop:
            return stop.diagnosis
    return None


def bad_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters that hold NaN or infinity, and of such buffers as are read.

    In training mode a batch norm's running statistics are only written, so a bad batch leaves its
    mark on them without their being the cause.
    """
    return list(_bad_held(model))


_NOTHING = Diagnosis(
    None,
    "nothing",
    "",
    "On a second pass over the same batch everything is finite, so chance (dropout) or low "
    "precision decided: try fp32 or a lower learning rate.",
)


def _bad_batch(images: Tensor, targets: Tensor) -> Diagnosis | None:
    batch: tuple[tuple[Kind, Tensor], ...] = (("input", images), ("target", targets))
    for kind, tensor in batch:
        if not _finite(tensor):
            rows = (~torch.isfinite(tensor)).flatten(1).any(dim=1).nonzero().flatten().tolist()
            text = (
                f"The batch itself is bad: {_what(tensor)} in the {kind}s of "
                f"{len(rows)} of {len(tensor)} images, first at place {rows[0]} of the batch."
            )
            return Diagnosis(None, kind, _what(tensor), text)
    return None


def _bad_held(model: nn.Module) -> dict[str, Tensor]:
    held = dict(model.named_parameters())
    for path, module in model.named_modules():
        if not (module.training and isinstance(module, _NormBase)):
            buffers = module.named_buffers(path, recurse=False)
            held.update(buffers)
    return {name: tensor for name, tensor in held.items() if not _finite(tensor)}


def _bad_parameter(model: nn.Module) -> Diagnosis | None:
    bad = _bad_held(model)
    if not bad:
        return None
    name, tensor = next(iter(bad.items()))
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    text = (
        f"The model was bad before this step: {name}{more} holds {_what(tensor)}; "
        "the step before this one was too large, or the weights were loaded so."
    )
    return Diagnosis(name, "parameter", _what(tensor), text)


def _inspect(path: str, module: nn.Module, inputs: Any, output: Any) -> None:
    """Stop at the first bad output. Modules end before those that hold them, so when one that holds
    others is the first, or one is given bad numbers, the code around its layers made them."""
    bad = next((t for t in tensors(output) if not _finite(t)), None)
    if bad is None:
        return
    given = [t for t in tensors(inputs) if t.is_floating_point()]
    name, kind = path or "the model", type(module).__name__
    largest = max((t.abs().max().item() for t in given if t.numel()), default=0.0)
    if not all(_finite(t) for t in given):
        where = (
            f"Before layer {name} ({kind}), in the code between the layers: it is given {{what}}"
        )
        bad = next(t for t in given if not _finite(t))
    elif is_leaf(module):
        where = (
            f"Layer {name} ({kind}) is the first to give {{what}}, in {_count(bad)}, though all it "
            f"was given is finite (largest magnitude {largest:.3g})"
        )
    else:
        where = f"The code of {name} ({kind}), around its layers, is the first to give {{what}}"
    what = _what(bad)
    raise _Found(Diagnosis(path, "layer", what, where.format(what=what) + "."))


def _bad_term(terms: dict[str, Tensor], outputs: Any) -> Diagnosis | None:
    for name, term in terms.items():
        if not _finite(term):
            largest = max((t.abs().max().item() for t in tensors(outputs)), default=0.0)
            text = (
                f"The loss's term {name} is {_what(term)}, though the model's outputs are finite "
                f"(largest magnitude {largest:.3g})."
            )
            return Diagnosis(name, "loss", _what(term), text)
    return None


def _bad_gradient(model: nn.Module, terms: dict[str, Tensor]) -> Diagnosis | None:
    """The bad gradient nearest to the loss, where the fault came up on its way back."""
    weights = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    total = torch.stack(list(terms.values())).sum()
    if not weights or not total.requires_grad:
        return None
    gradients = torch.autograd.grad(total, [p for _, p in weights], allow_unused=True)
    named = [(n, g) for (n, _), g in zip(weights, gradients, strict=True) if g is not None]
    bad = [(name, g) for name, g in named if not _finite(g)]
    if not bad:
        return _bad_norm(dict(named))
    name, gradient = bad[-1]
    what = _what(gradient)
    text = (
        f"The outputs and the loss are finite, but the gradient of {name} holds {what} "
        f"({len(bad)} of {len(named)} parameters have such gradients)."
    )
    return Diagnosis(name, "gradient", what, text)


def _bad_norm(gradients: dict[str, Tensor]) -> Diagnosis | None:
    """Finite gradients whose squares add up to more than a float holds."""
    if not gradients or _finite(torch.nn.utils.get_total_norm(gradients.values())):
        return None
    largest = {name: g.abs().max().item() for name, g in gradients.items() if g.numel()}
    name = max(largest, key=largest.__getitem__)
    text = (
        "Every gradient is finite, but together they are too large for their norm to be computed; "
        f"the largest is {largest[name]:.3g}, in {name}."
    )
    return Diagnosis(name, "gradient", "infinity", text)


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _what(tensor: Tensor) -> str:
    kinds = {"NaN": tensor.isnan(), "infinity": tensor.isinf()}
    return " and ".join(name for name, found in kinds.items() if found.any())


def _count(tensor: Tensor) -> str:
    bad = tensor.numel() - int(torch.isfinite(tensor).sum())
    return f"{bad:,} of {tensor.numel():,} values"
