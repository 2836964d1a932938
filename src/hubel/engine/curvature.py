"""How sharply the loss bends along every weight: diagonal second derivatives, walked back.

LeCun, Bottou, Bengio, Haffner 1998, appendix C (Becker and LeCun 1989). With h for the second
derivative of the loss with respect to one number:

    y = sum of c x      h_x = sum of c^2 h_y        over all y that x goes into
    y = f(x)            h_x = f'(x)^2 h_y

so h goes back as gradients do, every coefficient squared; a weight that is used at many places
gets the sum over them of x^2 h_y. Two things are left out. Terms between different numbers: what
branches, or shares a weight, adds up as if its parts were independent. And f'', the Gauss-Newton
approximation, without which h could be negative.

Nothing is left out behind the net's last units. What follows the last weight (and the ReLU,
sigmoid or tanh that belongs to it) is taken for a part of the loss, and h begins there with its
exact second derivatives, negative ones as 0: p (1 - p) at the logits of a softmax, 2 under a
squared distance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hubel.engine.backprop import Default, rules, walk
from hubel.engine.ops import OPS
from hubel.engine.ops.activate import Pointwise
from hubel.engine.ops.base import Grads, Saved
from hubel.engine.record import Record, replaced, tensors_in
from hubel.engine.tape import Tape
from hubel.errors import ModelError

SQUASHES = ("relu", "sigmoid", "tanh")
MOVING = ("view", "join", "index", "copying", "memory")  # families whose coefficients are 0 and 1
ROUTING = ("max_pool", "sum")  # and single operators
BY_TENSORS = ("conv", "linear", "matmul", "batch_norm", "adaptive_average_pool")
Loss = Callable[[Any, Tensor], Tensor]


def curvature(model: nn.Module, images: Tensor, targets: Tensor, loss: Loss) -> dict[str, Tensor]:
    """Estimated second derivative of the loss along every trainable parameter, in its shape.

    Args:
        model: run once, in the mode it is in; its parameters and `.grad` stay as they are.
        images, targets: a batch (N, ...). Images must not influence each other.
        loss: (what the model returned, targets) -> scalar, a mean over the images; so is the
            result.

    Returns tensors of 0 or more by parameter name; zeros where the loss does not depend on it.
    Raises `ModelError` for an operator that no rule is known for, and for a net with several
    last layers.
    """
    with Tape(model, watch={"images": images}, keep="all") as tape:
        total = loss(model(images), targets)
    found = _from_the_last_units(tape, tape.values.number(images), tape.values.number(total))
    with torch.no_grad(), rules(**dict.fromkeys(OPS, squared)):
        for _ in walk(tape, found, free=True):
            pass
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    named = {name: found[n] for n, name in tape.watched.items() if n in found}
    return {name: named.get(name, torch.zeros_like(p)) for name, p in trained.items()}


def squared(record: Record, h: Any, default: Default) -> Grads:
    """A rule for `hubel.rules`: the operator's own backward, its coefficients squared.

    Raises `ModelError` where the operator is not known to be linear or element by element.
    """
    op, saved, name = record.op, record.saved, record.op.name
    if op.family in MOVING or name in ROUTING:
        return default(h)
    if issubclass(op, Pointwise) or name == "dropout":
        (once, *_) = op.backward(h, saved)
        return op.backward(once, saved)
    if name in BY_TENSORS and not record.options.get("training"):
        return op.backward(h, _squares(saved))
    if name in BY_NUMBERS and not (name == "divide" and record.needs[1]):
        return op.backward(h, BY_NUMBERS[name](*saved))
    raise _refusal(record)


def _refusal(record: Record) -> ModelError:
    name = record.spelling if record.borrowed else record.op.name
    mode = " in training" if name == "batch_norm" else ""
    where = f" (in {record.path})" if record.path else ""
    return ModelError(
        f"no second derivatives are known for {name}{mode}{where}: they go through convolutions, "
        "fully connected layers, poolings, sums, products with weights, functions of one number "
        "and views"
    )


def _squares(saved: Any) -> Any:
    """The same tuple with every tensor of real numbers squared."""
    reals = {id(t): t for t in tensors_in(saved) if t.is_floating_point()}
    return replaced(saved, {key: t * t for key, t in reals.items()})


# What an operator saved, its numbers squared too where they are coefficients.
BY_NUMBERS: dict[str, Callable[..., Saved]] = {
    "add": lambda *saved: (*saved[:-1], saved[-1] ** 2),
    "subtract": lambda *saved: (*saved[:-1], saved[-1] ** 2),
    "multiply": lambda x, y: (x * x, y * y),
    "divide": lambda x, y: (x * x, y * y),
    "mean": lambda *saved: (*saved[:-1], saved[-1] ** 2),
    "average_pool": lambda shape, count, geometry: (shape, count**2, geometry),
    "add_matmul": lambda x, y, shape, beta, alpha: (x * x, y * y, shape, beta**2, alpha**2),
}


# ---- where the recursion begins


def _from_the_last_units(tape: Tape, images: int, total: int) -> dict[int, Tensor]:
    """The number of the value that the last units put out, and h there, in the value's shape."""
    made, units = _last_units(tape, images)
    borrowed = next((record for record in tape.records[: made + 1] if record.borrowed), None)
    if borrowed is not None:
        raise _refusal(borrowed)
    x = tape.kept[units].detach().clone().requires_grad_()
    values = {**tape.kept, units: x}
    reached = {units}
    with torch.enable_grad():
        for record in tape.records[made + 1 :]:
            if reached.intersection(n for n in record.inputs if n is not None):
                _replay(record, values)
                reached.update(record.outputs)
        (slope,) = torch.autograd.grad(values[total], x, create_graph=True)
    return {units: _diagonal(slope, x).clamp(min=0)}


def _replay(record: Record, values: dict[int, Tensor]) -> None:
    """Run the formula again on what its inputs are now."""
    pairs = zip(record.inputs, record.literals, strict=True)
    given = [literal if n is None else values[n] for n, literal in pairs]
    out = record.op.forward(*given, **record.options)[0]
    outputs = out if isinstance(out, tuple) else (out,)
    values.update(zip(record.outputs, outputs, strict=True))


def _diagonal(slope: Tensor, x: Tensor) -> Tensor:
    """d slope[n, i] / d x[n, i], unit by unit; images do not mix, so one sum serves them all."""
    columns, h = slope.reshape(len(x), -1), torch.zeros_like(x).reshape(len(x), -1)
    if slope.requires_grad:
        for unit in range(columns.size(1)):
            (bend,) = torch.autograd.grad(columns[:, unit].sum(), x, retain_graph=True)
            h[:, unit] = bend.reshape(len(x), -1)[:, unit]
    return h.reshape(x.shape)


def _last_units(tape: Tape, images: int) -> tuple[int, int]:
    """The index of the record that puts out the last units' values, and these values' number."""
    fed, weights = {images}, set(tape.watched) - {images}
    meetings = []  # records in which weights and what came from the images meet
    for record in tape.records:
        inputs = {n for n in record.inputs if n is not None}
        if inputs & fed:
            fed.update(record.outputs)
            meetings += [record] if inputs & weights else []
        elif inputs & weights:
            weights.update(record.outputs)
    if not meetings:
        raise ModelError("no weight meets the images: there is nothing to bend the loss")
    last = _through_squashes(tape, meetings[-1])
    (units,) = last.outputs
    _must_end_in(tape, last, fed)
    return last.index, units


def _through_squashes(tape: Tape, record: Record) -> Record:
    """On through what each unit does to its own sum: a factor, a squashing function."""
    while True:
        after = tape.records[record.index + 1 :]
        readers = [r for r in after if record.outputs[0] in r.inputs]
        if len(readers) != 1 or not _unit_by_unit(readers[0]):
            return record
        record = readers[0]


def _unit_by_unit(record: Record) -> bool:
    scaled = record.op.name == "multiply" and None in record.inputs
    return scaled or record.op.name in SQUASHES


def _must_end_in(tape: Tape, last: Record, fed: set[int]) -> None:
    """Raises `ModelError` where the loss knows the images by another way than the last units."""
    reached = set(last.outputs)
    for record in tape.records[last.index + 1 :]:
        inputs = {n for n in record.inputs if n is not None} & fed
        if inputs - reached:
            raise ModelError(
                "second derivatives begin at one last layer, which all of the loss depends on; "
                f"here {record.op.name} reads what did not pass through the last one"
            )
        if inputs:
            reached.update(record.outputs)
