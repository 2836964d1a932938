"""Is this gradient right? Our backward, torch's autograd and finite differences, held together.

Everything is checked in float64: the readable formulas have to agree with autograd to rounding,
and with finite differences as far as these can tell. A wrong gradient is named by its worst
element and, where one can be found, its cause.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hubel.engine.backprop import backpropagate
from hubel.engine.causes import likely_cause
from hubel.engine.judge import TOLERANCE, judge, place_of
from hubel.engine.ops.base import Op, Output
from hubel.engine.record import tensors_in
from hubel.engine.tape import Kernels, Tape
from hubel.engine.verdict import Report, Verdict
from hubel.errors import ModelError

# A gradient this much smaller than the net's largest counts as zero when errors are related to it:
# the true gradient of a bias before batch norm is zero, and only rounding is there to compare.
FLAT = 1e-3
FEW = 8  # up to so many tensors, finite differences go through most elements one by one
EXACT = 1e-10  # against autograd, of the largest element, in float64


# ---- one operator


def check_op(
    op: type[Op],
    tensors: Sequence[Any],
    options: dict[str, Any],
    *,
    seed: int = 0,
    kernels: Kernels = "math",
    tolerance: float = TOLERANCE,
) -> Report:
    """An operator's backward against finite differences of its forward, per tensor argument.

    Args:
        tensors: forward's positional arguments; floating ones are checked, in float64.
        kernels: "torch" checks the fast pair instead of the formulas.
    """
    args = [_double(t) for t in tensors]
    forward = op.forward if kernels == "math" else op.fast_forward
    with torch.no_grad():
        y, saved = forward(*args, **options)
        dy = _random_like(y, seed)
        given = dy if isinstance(y, tuple) else dy[0]
        needs = tuple(is_float(a) for a in args)
        gradients = (
            op.backward(given, saved)
            if kernels == "math"
            else op.fast_backward(given, saved, needs)
        )

        def loss() -> Tensor:
            return _dot(forward(*args, **options)[0], dy)

        batch = args[0].size(0) if isinstance(args[0], Tensor) and args[0].dim() else None
        verdicts = [
            judge(name, _known(gradient, argument), argument, loss, seed, tolerance, batch=batch)
            for name, argument, gradient in zip(names_of(op, args), args, gradients, strict=True)
            if is_float(argument) and name not in op.fixed
        ]
    return Report(tuple(verdicts))


def names_of(op: type[Op], args: Sequence[Any]) -> list[str]:
    """Names for positional arguments; the last of an operator may stand for any number."""
    fixed = [name for name in op.tensors if not name.startswith("*")]
    rest = [name[1:] for name in op.tensors if name.startswith("*")]
    more = [f"{rest[0] if rest else 'argument'}[{i}]" for i in range(len(args) - len(fixed))]
    return [*fixed, *more][: len(args)]


# ---- a whole net, a layer, a function


def check(
    model: nn.Module | Callable[..., Any],
    *inputs: Any,
    loss: Callable[..., Tensor] | None = None,
    differences: bool = True,
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> Report:
    """Check every gradient of a net, a layer or a function: ours, autograd's, finite differences.

        hubel.check(net, images, labels)      # with cross-entropy
        hubel.check(MyLayer(), x)             # any nn.Module
        hubel.check(MyFunction.apply, x, w)   # an autograd.Function of yours

    Args:
        model: copied and checked in float64; left as it is. A plain function is checked too:
            its own backward against finite differences.
        inputs: its arguments; floating tensors are checked. An int64 tensor at the end of a
            module's inputs, one entry per image, that `forward` does not take is the labels.
        loss: (output, labels) or (output,) -> scalar; by default cross-entropy where there are
            labels, else a fixed random weighting of all outputs.
        differences: False leaves the finite differences out, which take most of the time.
        tell: called with how many tensors are done, of how many.
    """
    module = copy.deepcopy(model).double() if isinstance(model, nn.Module) else None
    call: Callable[..., Any] = module if module is not None else model
    args, labels = _arguments(module, [_double(i) for i in inputs])
    watched = {f"input{i}" if i else "input": a for i, a in enumerate(args) if is_float(a)}
    still = Still(module, seed)

    def value() -> Tensor:
        with still:
            return scalar(call(*args), labels, loss, seed)

    with still:
        theirs = _autograd(module, watched, lambda: scalar(call(*args), labels, loss, seed))
    parameters = dict(module.named_parameters()) if module is not None else {}
    tensors = {**{n: p.data for n, p in parameters.items() if p.requires_grad}, **watched}
    with still, Tape(module, watch=watched) as tape:
        total = scalar(call(*args), labels, loss, seed)
    ours = backpropagate(tape, total)
    borrowed = tuple(dict.fromkeys(r.options["call"].name for r in tape.records if r.borrowed))
    batch = args[0].size(0) if args and isinstance(args[0], Tensor) and args[0].dim() else None
    largest = max((float(g.abs().max()) for g in ours.values() if g.numel()), default=0.0)
    verdicts: list[Verdict] = []
    told: list[Verdict] = []
    few = len(tensors) <= FEW
    for done, (name, x) in enumerate(tensors.items()):
        tell(done, len(tensors))
        mine, other = _known(ours.get(name), x), _known(theirs[name], x)
        proof = None
        if differences:
            with torch.no_grad():
                proof = judge(
                    name, mine, x, value, seed, TOLERANCE, floor=FLAT * largest, batch=batch,
                    thorough=few,
                )  # fmt: skip
            told.append(proof)
        verdicts.append(_equal(name, mine, other, x, batch, FLAT * largest, proof))
    tell(len(tensors), len(tensors))
    return Report((*verdicts, *told), borrowed)


def _known(gradient: Tensor | None, x: Tensor) -> Tensor:
    """No gradient is a gradient of zero."""
    return torch.zeros_like(x) if gradient is None else gradient


def scalar(
    output: Any, labels: Tensor | None, loss: Callable[..., Tensor] | None, seed: int = 0
) -> Tensor:
    """The number that is differentiated: see `check`."""
    if loss is not None:
        return loss(output) if labels is None else loss(output, labels)
    if labels is not None:
        if not isinstance(output, Tensor):
            raise ModelError(
                f"the model gives {type(output).__name__}, not one tensor of scores: "
                "say how to turn it into a number with loss=..."
            )
        return nn.functional.cross_entropy(output, labels)
    tensors = _floats(output)
    if not tensors:
        raise ModelError(
            f"the output ({type(output).__name__}) holds no floating tensor to differentiate"
        )
    return _dot(tuple(tensors), _random_like(tuple(tensors), seed))


def _floats(output: Any) -> list[Tensor]:
    if not isinstance(output, (Tensor, tuple, list, dict)) and hasattr(output, "__dict__"):
        output = vars(output)
    return [t for t in tensors_in(output) if t.is_floating_point()]


def _arguments(module: nn.Module | None, inputs: list[Any]) -> tuple[list[Any], Tensor | None]:
    """The inputs, and the labels if the last one is no argument of the model's."""
    if module is None or len(inputs) < 2:
        return inputs, None
    last = inputs[-1]
    try:
        inspect.signature(module.forward).bind(*inputs)
        takes_all = not _has_varargs(inspect.signature(module.forward))
    except TypeError:
        takes_all = False
    is_labels = isinstance(last, Tensor) and last.dtype == torch.int64
    return (inputs, None) if takes_all or not is_labels else (inputs[:-1], last)


def _has_varargs(signature: Any) -> bool:
    return any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values())


def _autograd(
    module: nn.Module | None, watched: dict[str, Tensor], value: Callable[[], Tensor]
) -> dict[str, Tensor | None]:
    leaves = dict(watched)
    if module is not None:
        leaves.update({n: p for n, p in module.named_parameters() if p.requires_grad})
    for tensor in watched.values():
        tensor.requires_grad_()
    try:
        with torch.enable_grad():
            found = torch.autograd.grad(value(), list(leaves.values()), allow_unused=True)
    finally:
        for tensor in watched.values():
            tensor.requires_grad_(False)
    return dict(zip(leaves, found, strict=True))


def _equal(
    name: str, ours: Tensor, theirs: Tensor, x: Tensor, batch: int | None, floor: float,
    proof: Verdict | None,
) -> Verdict:  # fmt: skip
    """Ours against autograd's; where they part, finite differences (`proof`) say who is right."""
    scale = max(float(theirs.abs().max()), float(ours.abs().max()), floor) if ours.numel() else 0.0
    if not scale:
        return Verdict(name, 0.0, True, "autograd")
    off = (ours - theirs).abs()
    off = torch.where(torch.isnan(off), torch.full_like(off, math.inf), off)
    place = place_of(int(off.argmax()), off)
    error = float(off.max()) / scale
    near = error <= EXACT
    vouched = not near and error <= TOLERANCE and proof is not None and proof.fine
    cause = "" if near or vouched else likely_cause(ours, theirs, x, batch)
    return Verdict(
        name, error, near or vouched, "autograd", place, float(theirs[place]), float(ours[place]),
        "autograd itself is off: finite differences side with ours" if vouched else cause,
    )  # fmt: skip


class Still(contextlib.AbstractContextManager[None]):
    """Buffers come back as they were; so do random numbers, which start from `seed` if given."""

    def __init__(self, module: nn.Module | None, seed: int | None) -> None:
        self.buffers = list(module.buffers()) if module is not None else []
        self.seed = seed

    def __enter__(self) -> None:
        self.kept = [b.clone() for b in self.buffers]
        self.chance = torch.get_rng_state()
        if self.seed is not None:
            torch.default_generator.manual_seed(self.seed)

    def __exit__(self, *error: object) -> None:
        torch.set_rng_state(self.chance)
        with torch.no_grad():
            for buffer, kept in zip(self.buffers, self.kept, strict=True):
                buffer.copy_(kept)


def is_float(value: Any) -> bool:
    """Whether it is a floating tensor."""
    return isinstance(value, Tensor) and value.is_floating_point()


def _double(value: Any) -> Any:
    """A float64 copy of a floating tensor, away from whoever gave it; else the thing itself."""
    if not isinstance(value, Tensor):
        return value
    if value.is_complex():
        raise ModelError("complex tensors have no gradient here: give real and imaginary parts")
    copied = value.detach().contiguous().clone()
    return copied.double() if copied.is_floating_point() else copied


def _random_like(y: Output, seed: int) -> tuple[Tensor | None, ...]:
    chance = torch.Generator().manual_seed(seed + 17)
    outputs = y if isinstance(y, tuple) else (y,)
    return tuple(
        torch.randn(t.shape, generator=chance, dtype=torch.float64).to(t) if is_float(t) else None
        for t in outputs
    )


def _dot(y: Output, dy: Sequence[Tensor | None]) -> Tensor:
    outputs = y if isinstance(y, tuple) else (y,)
    return sum(  # type: ignore[return-value]
        (t * d).sum() for t, d in zip(outputs, dy, strict=True) if d is not None
    )
