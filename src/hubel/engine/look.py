"""`look`: one pass of a net, forward and backward, laid open operator by operator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from html import escape
from typing import Any

import torch
from torch import Tensor, nn

from hubel.engine.backprop import Move, walk
from hubel.engine.check import Still, check, names_of, scalar
from hubel.engine.fields import receptive_fields
from hubel.engine.opview import OpView, Several
from hubel.engine.record import Record, Statistics
from hubel.engine.table import HEADINGS, Row, cells, shapes_of, text_table
from hubel.engine.tape import Keep, Kernels, Tape
from hubel.engine.verdict import Report
from hubel.errors import ModelError, OptionError, unknown


class Look:
    """Every operator of one forward and backward pass. Made by `look`.

    `look["features.3"]` by module path, `look[4]` by index, `look["conv"]` by kind.
    """

    def __init__(
        self, model: nn.Module, tape: Tape, inputs: dict[str, Tensor], output: Any
    ) -> None:
        self.model, self.output = model, output
        self.inputs = inputs
        self.loss: Tensor | None = None
        self.grads: dict[str, Tensor] = {}
        self.input_grads: dict[str, Tensor] = {}
        self.moves: dict[int, Move] = {}
        self.norms: dict[int, float] = {}
        self._tape = tape
        self._call: tuple[Any, ...] = ()
        self._loss_of: Callable[..., Tensor] | None = None
        number = tape.values.number
        named = [*model.named_parameters(), *model.named_buffers()]
        self.names = {n: name for name, t in reversed(named) for n in tape.values.held_at_first(t)}
        self.learned = {number(p) for p in model.parameters()}
        first = next(iter(inputs.values()), None)
        self.item_size = 4 if first is None else first.element_size()
        self.fields = receptive_fields(tape, number(first)) if first is not None else {}

    @property
    def records(self) -> list[Record]:
        """What the tape wrote down, in order."""
        return self._tape.records

    @property
    def ops(self) -> list[OpView]:
        """All operators, in the order in which they ran."""
        return [OpView(self, record) for record in self.records]

    @property
    def borrowed(self) -> list[OpView]:
        """Those that torch's autograd differentiated, for want of a rule of ours."""
        return [op for op in self.ops if op.record.borrowed]

    @property
    def saved_bytes(self) -> int:
        """Bytes that the backward pass needs, parameters and inputs aside."""
        return self._tape.saved_bytes()

    def statistics(self, index: int) -> tuple[Statistics, ...]:
        """Five figures of each output of operator `index`."""
        record = self.records[index]
        return record.statistics or tuple(Statistics.of(self.value(n)) for n in record.outputs)

    def value(self, number: int) -> Tensor:
        """The tensor that value `number` was. Raises `ModelError` where it was not kept."""
        if number not in self._tape.kept:
            raise ModelError("this value was not kept: look again with keep='all'")
        return self._tape.kept[number]

    def __getitem__(self, key: int | str) -> OpView | Several:
        if isinstance(key, int):
            return OpView(self, self.records[key])
        found = [op for op in self.ops if op.path == key]
        found = found or [op for op in self.ops if op.kind == key]
        found = found or [op for op in self.ops if op.path.startswith(f"{key}.")]
        if not found:
            raise OptionError(
                unknown(
                    "module path or operator",
                    key,
                    {op.path for op in self.ops if op.path} | {op.kind for op in self.ops},
                )
            )
        return found[0] if len(found) == 1 else Several(found)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[OpView]:
        return iter(self.ops)

    def walk(self) -> Iterator[tuple[OpView, Any, dict[str, Tensor]]]:
        """Backpropagate again, step by step from the loss.

        Yields the operator, d loss / d its output, and the gradients it sends on, by argument.
        """
        for move in self._walk():
            names = names_of(move.record.op, move.record.inputs)
            gradients = {n: g for n, g in zip(names, move.gradients, strict=True) if g is not None}
            yield OpView(self, move.record), move.dy, gradients

    def check(self, *, differences: bool = True) -> Report:
        """The whole net at these inputs: our gradients, autograd's, finite differences."""
        return check(self.model, *self._call, loss=self._loss_of, differences=differences)

    def rows(self) -> list[Row]:
        """The table's lines."""
        return [
            Row(
                op.record.index, op.kind + (" (borrowed)" if op.record.borrowed else ""), op.path,
                shapes_of(op.record), op.parameters, op.macs, op.bytes, op.seconds, op.grad_norm,
                str(op.field or "all"),
            )
            for op in self.ops
        ]  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """The table as records, with the loss."""
        loss = None if self.loss is None else float(self.loss)
        return {"loss": loss, "operators": [asdict(row) for row in self.rows()]}

    def __repr__(self) -> str:
        return text_table(HEADINGS, [cells(row) for row in self.rows()]) + "\n" + self._summary()

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(h)}</th>" for h in HEADINGS)
        lines = ["".join(f"<td>{escape(c)}</td>" for c in cells(row)) for row in self.rows()]
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        return f"<table><tr>{head}</tr>{body}</table><p>{escape(self._summary())}</p>"

    def _summary(self) -> str:
        total = sum(op.macs for op in self.ops)
        loss = "" if self.loss is None else f", loss {float(self.loss):.6g}"
        borrowed = f", {len(self.borrowed)} borrowed from autograd" if self.borrowed else ""
        return (
            f"{len(self)} operators{borrowed}, {total:,} multiply-adds, "
            f"{self.saved_bytes / 2**20:.1f} MiB kept for the way back{loss}"
        )

    def _walk(self) -> Iterator[Move]:
        if self.loss is None:
            raise ModelError("there is no loss to walk back from: look with labels or loss=...")
        gradients = {self._tape.values.number(self.loss): torch.ones_like(self.loss)}
        with torch.no_grad():
            yield from walk(self._tape, gradients)
        self._final = gradients

    def _backpropagate(self) -> None:
        """Once, when it is made: gradients and their lengths are kept."""
        for move in self._walk():
            outs = move.dy if isinstance(move.dy, tuple) else (move.dy,)
            self.norms[move.record.index] = float(
                torch.stack([d.double().norm() for d in outs if d is not None]).norm()
            )
            if self._tape.keep == "all":
                self.moves[move.record.index] = move
        for number, name in self._tape.watched.items():
            if number in self._final:
                home = self.input_grads if name in self.inputs else self.grads
                home[name] = self._final[number]


def look(
    model: nn.Module,
    images: Any,
    labels: Tensor | None = None,
    *,
    loss: Callable[..., Tensor] | None = None,
    kernels: Kernels = "math",
    keep: Keep = "all",
) -> Look:
    """Run `model` once, forward and (where there is a loss) backward, by hubel's own operators.

    Args:
        model: any module; in the mode it is in. It is left bit-identical: buffers that the pass
            moves (running statistics) are put back.
        images: a tensor (N, C, H, W), a tuple of positional arguments, or a dict of keywords.
        labels: class numbers (N), or whatever `loss` takes.
        loss: (output, labels) or (output,) -> scalar; cross-entropy where only labels are given.
            An output that is a scalar is its own loss.
        kernels: "math" for the readable formulas, "torch" for torch's kernels where there are any.
        keep: "all" values and gradients, "statistics" (five figures each) or "saved" (only what
            the way back needs), so that large nets fit in memory.

    Raises `ModelError` where the model cannot take the inputs.
    """
    args, kwargs = _arguments(model, images)
    named = _named_inputs(model, args, kwargs)
    floats = {name: t for name, t in named.items() if t.is_floating_point()}
    tape = Tape(model, watch=floats, kernels=kernels, keep=keep, lines=True, clock=True)
    with Still(model, None):
        with tape:
            output = _run(model, args, kwargs)
            found = _loss(output, labels, loss)
        made = Look(model, tape, named, output)
        made.loss, made._loss_of = found, loss
        made._call = (*args, *kwargs.values(), *([] if labels is None else [labels]))
        if found is not None:
            made._backpropagate()
    return made


def _loss(output: Any, labels: Tensor | None, loss: Callable[..., Tensor] | None) -> Tensor | None:
    if labels is None and loss is None:
        alone = isinstance(output, Tensor) and output.dim() == 0
        return output if alone and output.is_floating_point() else None
    return scalar(output, labels, loss)


def _arguments(model: nn.Module, images: Any) -> tuple[list[Any], dict[str, Any]]:
    """Copies, so that a model that writes into its input harms nobody."""
    if isinstance(images, dict):
        return [], {key: _copied(v) for key, v in images.items()}
    given = images if isinstance(images, (tuple, list)) else (images,)
    return [_copied(v) for v in given], {}


def _copied(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    if value.is_complex():
        raise ModelError("complex inputs cannot be looked at: give real and imaginary parts apart")
    return value.detach().clone()


def _named_inputs(
    model: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]
) -> dict[str, Tensor]:
    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError as error:
        wanted = inspect.signature(model.forward)
        raise ModelError(
            f"{type(model).__name__}.forward{wanted} cannot take "
            f"{len(args)} positional and {len(kwargs)} named inputs: {error}"
        ) from None
    flat: dict[str, Tensor] = {}
    for name, value in bound.arguments.items():
        many = value if isinstance(value, (tuple, list)) else [value]
        for i, t in enumerate(many):
            if isinstance(t, Tensor):
                flat[name if len(many) == 1 else f"{name}[{i}]"] = t
    _check_devices(model, flat)
    return flat


def _check_devices(model: nn.Module, inputs: dict[str, Tensor]) -> None:
    homes = {p.device for p in model.parameters()}
    if torch.device("meta") in homes:
        raise ModelError("the model has parameters without data (device meta): load weights first")
    given = {t.device for t in inputs.values()}
    if len(homes) == 1 and given and not given & homes:
        raise ModelError(f"the model is on {homes.pop()}, the inputs are on {given.pop()}")


def _run(model: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    try:
        return model(*args, **kwargs)
    except RuntimeError as error:
        text = str(error).split("\n")[0]
        if "does not require grad" in text:
            raise ModelError(
                "the model differentiates inside its own forward (double backward), which the "
                "engine does not follow"
            ) from error
        shapes = [tuple(a.shape) if isinstance(a, Tensor) else a for a in (*args, *kwargs.values())]
        dtypes = [str(a.dtype)[6:] for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        raise ModelError(
            f"{type(model).__name__} cannot take inputs of shape {', '.join(map(str, shapes))} and "
            f"type {', '.join(dtypes)}: {text}"
        ) from error


# ---- the table
