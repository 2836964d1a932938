"""The tape: any module runs, and every operator it calls is run by ours and written down.

A dispatch mode below PyTorch's autograd sees operators before they are taken apart: `conv2d`,
`batch_norm`, `linear`, `cross_entropy_loss`, whether a layer, a function or an in-place call asked
for them. For each, in this order: our rule; or, for a composite without one, its parts; or, where
nothing of interest flows in, torch, unrecorded; or it is borrowed (`borrow.py`).

    with Tape(model) as tape:
        loss = loss_of(model(images), labels)
    gradients = backpropagate(tape, loss)
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hubel.engine.aten import RESHAPING, as_it_comes, named_arguments, pure_twin, written_arguments
from hubel.engine.borrow import FLAT, Borrowed, Call, Flat
from hubel.engine.capture import (
    PythonFunctions,
    caller,
    follow_modules,
    no_fused_attention,
    watch_functions,
)
from hubel.engine.ops import SPELLINGS
from hubel.engine.ops.base import SINGLE, Op, Shapes
from hubel.engine.ops.memory import Overwritten
from hubel.engine.record import Record, Statistics, replaced, tensors_in
from hubel.engine.values import Values, overlap
from hubel.errors import ModelError

Kernels = Literal["math", "torch"]
Keep = Literal["saved", "statistics", "all"]

# Private, but it leaves ordinary tensors behind; inference_mode shows the same operators.
_BELOW_AUTOGRAD: Callable[[], contextlib.AbstractContextManager[Any]] | None = getattr(
    torch._C, "_AutoDispatchBelowAutograd", None
)
_COMPOSITE = "CompositeImplicitAutograd"


class Tape:
    """Records what runs while it is entered.

    Args:
        model: gives the records their module paths; its parameters that require gradients are
            watched under their names.
        watch: further tensors to follow, by name: {"images": images}.
        kernels: "math" runs the readable formulas, "torch" torch's kernels where the op has them.
        keep: beside what backward needs, "all" keeps every value and "statistics" five figures.
        lines: write down the source line of each call.
        clock: write down the seconds of each call.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        watch: dict[str, Tensor] | None = None,
        kernels: Kernels = "math",
        keep: Keep = "saved",
        lines: bool = False,
        clock: bool = False,
        guard: Literal["below", "inference"] = "below" if _BELOW_AUTOGRAD else "inference",
    ) -> None:
        self.fast = kernels == "torch"
        self.keep, self.lines, self.clock, self.guard = keep, lines, clock, guard
        self.records: list[Record] = []
        self.values = Values()
        self.kept: dict[int, Tensor] = {}  # with keep="all": every value by its number
        self.watched: dict[int, str] = {}  # number of the value at the start -> name
        self._modules = {} if model is None else {id(m): n for n, m in model.named_modules()}
        self._path: list[str] = []
        self._recorder = _Recorder(self)
        self._outer = contextlib.ExitStack()
        if model is not None:
            self.watch({n: p for n, p in model.named_parameters() if p.requires_grad})
        self.watch(watch or {})

    def watch(self, tensors: dict[str, Tensor]) -> None:
        """Follow these tensors: their gradients will come out under these names."""
        for name, tensor in tensors.items():
            number = self.values.number(tensor)
            self.values.live.add(number)
            self.watched.setdefault(number, name)
            if self.keep == "all":
                self._keep(number, tensor)

    def __enter__(self) -> Tape:
        enter = self._outer.enter_context
        if self.guard == "below" and _BELOW_AUTOGRAD is not None:
            enter(_BELOW_AUTOGRAD())
        else:
            enter(torch.inference_mode())
        enter(torch.enable_grad())  # so that a `no_grad` inside the model can be told
        self._outer.callback(no_fused_attention())
        self._outer.callback(follow_modules(self._path, self._modules))
        self._outer.callback(watch_functions(self))
        enter(PythonFunctions(self))
        enter(self._recorder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._outer.close()

    def plain(self) -> contextlib.AbstractContextManager[Any]:
        """A context for our own mathematics: its results are ordinary tensors."""
        if self.guard == "below":
            return contextlib.nullcontext()
        stack = contextlib.ExitStack()
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        return stack

    def _recording(self) -> contextlib.AbstractContextManager[Any]:
        """Back on the tape, from inside our own mathematics."""
        stack = contextlib.ExitStack()
        if self.guard == "inference":
            stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.enable_grad())
        stack.enter_context(self._recorder)
        return stack

    # ---- one operator

    def run(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run one operator of torch's by our rule, and write it down. For the dispatch mode."""
        live = torch.is_grad_enabled() and any(
            self.values.is_live(t) for t in tensors_in((*args, kwargs))
        )
        if func._schema.is_mutable:
            return self._write(func, args, kwargs, live)
        if live and func not in _DETACH:
            with self.plain():
                out = self._apply(func, args, kwargs)
            if out is not NotImplemented:
                return out
            with self._recorder:
                return func.decompose(*args, **kwargs)
        with self.plain():
            out = func(*args, **kwargs)
            for source in tensors_in(args):
                self.values.note_shared(source, tensors_in(out))
                break
        return out

    def call(
        self, op: type[Op], spelling: str, positionals: Sequence[Any], options: dict[str, Any]
    ) -> Any:
        """Run `op` on its own arguments and write it down; returns its output."""
        record = Record(op, spelling, self._path[-1] if self._path else "")
        number, live = self.values.number, self.values.live
        record.inputs = tuple(number(a) if isinstance(a, Tensor) else None for a in positionals)
        record.needs = tuple(i in live for i in record.inputs)
        record.dtypes = tuple(a.dtype if isinstance(a, Tensor) else None for a in positionals)
        record.literals = tuple(None if isinstance(a, Tensor) else a for a in positionals)
        record.options = options
        start = time.perf_counter() if self.clock else 0.0
        forward = op.fast_forward if self.fast else op.forward
        out, record.saved = forward(*positionals, **options)
        op.commit(positionals, options, record.saved)
        if self.clock:
            record.seconds = time.perf_counter() - start
        if self.lines:
            record.line = caller()
        return self._note(record, positionals, out)

    def _note(self, record: Record, positionals: Sequence[Any], out: Any) -> Any:
        """Number the outputs, protect what was saved, keep what was asked for."""
        record.many = not isinstance(out, Tensor)
        outputs: list[Any] = list(out) if record.many else [out]
        tensors = [a for a in positionals if isinstance(a, Tensor)]
        handed = record.op.view or record.borrowed
        for given in tensors:  # an op may hand back its own input: it needs a name of its own
            if any(t is given for t in outputs):
                outputs, handed = [t.detach() if t is given else t for t in outputs], True
        record.shapes = Shapes(
            tuple(tuple(a.shape) if isinstance(a, Tensor) else None for a in positionals),
            tuple(tuple(t.shape) for t in outputs),
        )
        if any(t.is_complex() or t.layout != torch.strided for t in outputs):
            raise ModelError(
                f"{record.spelling} gives complex or sparse numbers: the engine follows dense real "
                "ones only"
            )
        record.outputs = tuple(self.values.fresh(t) for t in outputs)
        if record.op.slopes:
            self.values.live.update(
                n for n, t in zip(record.outputs, outputs, strict=True) if t.is_floating_point()
            )
        if handed and tensors:
            self.values.note_shared(tensors[0], outputs)
        self._protect(record)
        if self.keep == "all":
            for i, t in zip(record.inputs, positionals, strict=True):
                if i is not None:
                    self._keep(i, t)
            for n, t in zip(record.outputs, outputs, strict=True):
                self._keep(n, t)
        elif self.keep == "statistics":
            record.statistics = tuple(Statistics.of(t) for t in outputs)
        record.index = len(self.records)
        self.records.append(record)
        return tuple(outputs) if record.many else outputs[0]

    def _apply(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        spelling = str(func)
        rule = SPELLINGS.get(spelling)
        if rule is not None:
            op, adapt = rule
            named = named_arguments(func, args, kwargs)
            adapted = as_it_comes(func, named) if adapt is None else adapt(**named)
            if adapted == SINGLE:
                return self._with_batch_axis(func, args, kwargs)
            if adapted is not None:
                return self.call(op, spelling, *adapted)
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE):
            return NotImplemented
        random = torch.Tag.nondeterministic_seeded in func.tags
        call = Call(func, func._schema.name.replace("::", "."), args, kwargs, random)
        if func._schema.name in FLAT:
            return self.call(Flat, spelling, call.tensors, {"call": call})
        if not any(
            isinstance(r.type, (torch.TensorType, torch.ListType)) for r in func._schema.returns
        ):
            return func(*args, **kwargs)  # a number for Python: nothing flows on from it
        return self.call(Borrowed, spelling, call.tensors, self.borrowing(call))

    def _with_batch_axis(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """One image alone (C, H, W): as a batch of one."""
        with self._recording():
            out = func(args[0].unsqueeze(0), *args[1:], **kwargs)
            return out.squeeze(0) if isinstance(out, Tensor) else tuple(o.squeeze(0) for o in out)

    # ---- in-place operators

    def _write(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], live: bool) -> Any:
        """An operator that writes into its arguments: compute apart, then write."""
        targets = list(tensors_in(written_arguments(func, args, kwargs)))
        with self.plain():
            if not live:
                for target in targets:
                    self.values.before_write(target)
                return func(*args, **kwargs)
            pure = pure_twin(func) if len(targets) == 1 and targets[0] is args[0] else None
            if pure is None:
                return self._write_aside(func, args, kwargs, targets)
            target = targets[0]
            value = self._value_written(pure, args, kwargs)
            if func._schema.name in RESHAPING:
                func(*args, **kwargs)  # the same memory, seen otherwise
            else:
                self._keep_shared(target)
                self.values.before_write(target)
                target.copy_(value)
                self._share_buffer(value, target)
            self._rebind(target, self.values.number(value))
        return target

    def _keep_shared(self, target: Tensor) -> None:
        """What stands beside a place that is written over, while it still stands there."""
        if self.keep == "all":
            for other in self.values.sharing(target):
                self._keep(self.values.number(other), other)

    def _value_written(self, pure: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        out = self._apply(pure, args, kwargs)
        if out is NotImplemented:
            with self._recording():
                out = pure.decompose(*args, **kwargs)
        return out

    def _share_buffer(self, value: Tensor, target: Tensor) -> None:
        """What the last record saved of its output stands in `target` too: keep one of them."""
        if value.dtype == target.dtype and value.shape == target.shape:
            record = self.records[-1]
            if any(t is value for t in tensors_in(record.saved)):
                record.saved = replaced(record.saved, {id(value): target})
                self._protect(record)

    def _write_aside(
        self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], targets: list[Tensor]
    ) -> Any:
        """A call that writes beside its output, as running statistics or noise: borrowed whole."""
        if any(self.values.is_live(t) for t in targets) or func._schema.name.endswith("_"):
            raise ModelError(
                f"{func} writes into a tensor that the gradient flows through and has no twin that "
                "does not: use the version without out= or the trailing underscore"
            )
        call = Call(func, func._schema.name.replace("::", "."), args, kwargs, True, writes=True)
        for target in targets:
            self.values.before_write(target)
        out = self.call(Borrowed, str(func), call.tensors, self.borrowing(call))
        for target in targets:
            self.values.fresh(target)
        return out

    def borrowing(self, call: Call) -> dict[str, Any]:
        return {"call": call, "live": tuple(self.values.is_live(t) for t in call.tensors)}

    def _rebind(self, target: Tensor, number: int) -> None:
        others = list(self.values.sharing(target))
        self.values.bind(target, number)
        for other in others:
            if self.values.is_live(other) or self.values.is_live(target):
                self._update_alias(other, target)

    def _update_alias(self, other: Tensor, target: Tensor) -> None:
        """`other` shares memory with `target`, which was written: it holds a new value too."""
        mine, theirs, places = overlap(other, target)
        record = Record(Overwritten, "memory", self._path[-1] if self._path else "")
        record.inputs = (self.values.number(other), self.values.number(target))
        record.needs = tuple(i in self.values.live for i in record.inputs)
        record.literals = (None, None)
        record.dtypes = (other.dtype, target.dtype)
        record.options = {"mine": mine, "theirs": theirs, "places": places}
        record.saved = (mine, theirs, places)
        record.shapes = Shapes((tuple(other.shape), tuple(target.shape)), (tuple(other.shape),))
        record.outputs = (self.values.fresh(other),)
        self.values.live.add(record.outputs[0])
        if self.keep == "all":
            self._keep(record.outputs[0], other)
        record.index = len(self.records)
        self.records.append(record)

    # ---- what is kept

    def _protect(self, record: Record) -> None:
        tensors = list(tensors_in(record.saved))
        if tensors:
            self.values.save(tensors, lambda swap: _swap_saved(record, swap))

    def _keep(self, number: int, tensor: Tensor) -> None:
        if number not in self.kept:
            self.kept[number] = tensor
            self.values.save([tensor], lambda swap: self._swap_kept(number, swap))

    def _swap_kept(self, number: int, swap: dict[int, Tensor]) -> None:
        self.kept[number] = replaced(self.kept[number], swap)

    def saved_bytes(self) -> int:
        """Bytes that backward's needs occupy, parameters and inputs aside."""
        outside = {id(t) for _, t in self.values._outside.values()}
        sizes: dict[int, int] = {}
        for record in self.records:
            for t in tensors_in(record.saved):
                if id(t) not in outside:
                    storage = t.untyped_storage()
                    sizes[storage._cdata] = storage.nbytes()
        return sum(sizes.values())


class _Recorder(TorchDispatchMode):
    _should_skip_dynamo = classmethod(lambda cls: False)  # or torch loads its compiler: 2 s

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.tape.run(func, args, kwargs or {})


_DETACH = {torch.ops.aten.detach.default}


def _swap_saved(record: Record, swap: dict[int, Tensor]) -> None:
    record.saved = replaced(record.saved, swap)
