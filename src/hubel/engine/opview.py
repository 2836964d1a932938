"""One operator of a look: its numbers, its gradients, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hubel.engine import explain as written
from hubel.engine.backprop import Move
from hubel.engine.check import check_op, names_of
from hubel.engine.fields import Seen, seen
from hubel.engine.ops.base import Explanation
from hubel.engine.record import Record
from hubel.engine.table import count_of, shapes_of
from hubel.engine.verdict import Report
from hubel.errors import ModelError

if TYPE_CHECKING:
    from hubel.engine.look import Look


class OpView:
    """One operator that ran: its numbers, its gradients, and what can be asked of it."""

    def __init__(self, look: Look, record: Record) -> None:
        self._look = look
        self.record = record

    @property
    def kind(self) -> str:
        """The operator's name; for a borrowed one, torch's."""
        return self.record.options["call"].name if self.record.borrowed else self.record.op.name

    @property
    def path(self) -> str:
        """The module whose forward called it, as in `named_modules()`; "" outside of all."""
        return self.record.path

    @property
    def formula(self) -> str:
        """Forward and backward in one line."""
        return self.record.op.formula

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Tensors that went in and are no parameters, by their name in the formula."""
        return {k: v for k, v in self._arguments.items() if k not in self._parameter_of}

    @property
    def params(self) -> dict[str, Tensor]:
        """The net's parameters and buffers that went in, by their full name."""
        return {
            self._parameter_of[k]: v for k, v in self._arguments.items() if k in self._parameter_of
        }

    @property
    def output(self) -> Any:
        """What came out: a tensor, or a tuple of them."""
        outputs = tuple(self._look.value(n) for n in self.record.outputs)
        return outputs if self.record.many else outputs[0]

    @property
    def grad_output(self) -> Any:
        """d loss / d output, as it came from above."""
        return self._move.dy

    @property
    def grad_inputs(self) -> dict[str, Tensor]:
        """d loss / d input through this operator alone, by name."""
        return {k: g for k, g in self._gradients.items() if k not in self._parameter_of}

    @property
    def grad_params(self) -> dict[str, Tensor]:
        """d loss / d parameter through this operator alone, by the parameter's full name."""
        return {
            self._parameter_of[k]: g for k, g in self._gradients.items() if k in self._parameter_of
        }

    @property
    def macs(self) -> int:
        """Multiply-adds of the forward call."""
        return self.record.op.macs(self.record.shapes, **self.record.options)

    @property
    def parameters(self) -> int:
        """Numbers in the parameters that went in, buffers aside."""
        learned = self._look.learned
        shapes = zip(self.record.inputs, self.record.shapes.inputs, strict=True)
        return sum(count_of(s) for n, s in shapes if n in learned and s is not None)

    @property
    def bytes(self) -> int:
        """Bytes read and written by the forward call."""
        shapes = [*self.record.shapes.inputs, *self.record.shapes.outputs]
        return sum(count_of(s) for s in shapes if s is not None) * self._look.item_size

    @property
    def seconds(self) -> float:
        """Wall time of the forward call, once, on this machine."""
        return self.record.seconds

    @property
    def field(self) -> Seen | None:
        """Receptive field in the first input's pixels; None where it may see everything."""
        return seen(self._look.fields.get(self.record.outputs[0]))

    @property
    def grad_norm(self) -> float | None:
        """Length of d loss / d output; None where no gradient came."""
        return self._look.norms.get(self.record.index)

    def explain(
        self, channel: int | None = None, row: int | None = None, col: int | None = None, *,
        image: int = 0, place: Sequence[int] | None = None,
    ) -> Explanation:  # fmt: skip
        """One number of the output, written out.

        Args:
            channel, row, col, image: which one, for planes (N, C, H, W); the middle if not said.
            place: which one, for outputs of any shape.
        """
        output = self.output[0] if self.record.many else self.output
        if place is None:
            given = [image, channel, row, col][: output.dim()]
            middle = [n // 2 for n in output.shape]
            chosen = [*given, *[None] * (output.dim() - len(given))]
            place = [m if g is None else g for g, m in zip(chosen, middle, strict=True)]
        return written.explain(
            self.record.op, self._positionals, self.record.options, self.output, tuple(place)
        )

    def matrix(self, argument: str | None = None) -> Tensor:
        """The operator as a sparse matrix: y = W x; with argument "w", X in y = X w.

        For one image; the bias stands aside. Raises `OptionError` where there is none, or where
        it would be too large.
        """
        op = self.record.op
        argument = argument or next(iter(op.linear_in), "x").removeprefix("*")
        return written.matrix(op, self._positionals, self.record.options, argument)

    def jacobian(self, argument: str = "x") -> Tensor:
        """d output / d argument at these values, sparse (outputs, inputs)."""
        return written.jacobian(self.record.op, self._positionals, self.record.options, argument)

    def check(self) -> Report:
        """Finite differences against our backward, at these values, per argument."""
        return check_op(self.record.op, self._positionals, self.record.options)

    def __repr__(self) -> str:
        return f"{self.kind} in {self.path or 'no module'}: " + shapes_of(self.record)

    def _repr_html_(self) -> str:
        gradient = "" if self.grad_norm is None else f", |gradient| {self.grad_norm:.3g}"
        facts = f"{self.macs:,} multiply-adds, sees {self.field or 'everything'}{gradient}"
        lines = (
            f"<b>{escape(repr(self))}</b>",
            escape(facts),
            f"<code>{escape(self.formula)}</code>",
        )
        return f"<p>{'<br>'.join(lines)}</p>"

    @cached_property
    def _positionals(self) -> list[Any]:
        pairs = zip(self.record.inputs, self.record.literals, strict=True)
        return [literal if n is None else self._look.value(n) for n, literal in pairs]

    @property
    def _arguments(self) -> dict[str, Tensor]:
        names = names_of(self.record.op, self.record.inputs)
        return {
            name: value
            for name, value in zip(names, self._positionals, strict=True)
            if isinstance(value, Tensor)
        }

    @property
    def _parameter_of(self) -> dict[str, str]:
        names = names_of(self.record.op, self.record.inputs)
        known = self._look.names
        return {
            name: known[n] for name, n in zip(names, self.record.inputs, strict=True) if n in known
        }

    @property
    def _gradients(self) -> dict[str, Tensor]:
        names = names_of(self.record.op, self.record.inputs)
        needed = zip(names, self._move.gradients, self.record.needs, strict=True)
        return {name: g for name, g, need in needed if g is not None and need}

    @property
    def _move(self) -> Move:
        moves = self._look.moves
        if self.record.index not in moves:
            raise ModelError(
                f"no gradient came to {self!r}: "
                + (
                    "the loss does not depend on it"
                    if moves
                    else "look with labels or a loss, keep='all'"
                )
            )
        return moves[self.record.index]


class Several(tuple[OpView, ...]):
    """More than one operator under one name."""

    def _repr_html_(self) -> str:
        return "".join(op._repr_html_() for op in self)

    def __repr__(self) -> str:
        return "\n".join(f"{op.record.index:4d}  {op!r}" for op in self)
