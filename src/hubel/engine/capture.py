"""What a tape hooks into beside the dispatcher: Python functions, autograd.Function, attention."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType, FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from hubel.engine.borrow import Borrowed, Call
from hubel.engine.ops import SPELLINGS
from hubel.engine.ops.base import Adapted, Op
from hubel.engine.record import tensors_in

if TYPE_CHECKING:
    from hubel.engine.tape import Tape


_HERE = str(Path(__file__).parent)


_TORCH = str(Path(torch.__file__).parent)


class PythonFunctions(TorchFunctionMode):
    """Functions of torch's that are written in Python and have no operator of their own."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        spelling = _FUNCTIONS.get(func)
        if spelling is not None and any(self.tape.values.is_live(t) for t in tensors_in(args)):
            op, adapt = SPELLINGS[spelling]
            adapted = adapt(*args, **(kwargs or {})) if adapt else None
            if isinstance(adapted, tuple):
                with self.tape.plain():
                    return self._off_record(op, spelling, adapted)
        return func(*args, **(kwargs or {}))

    def _off_record(self, op: type[Op], spelling: str, adapted: Adapted) -> Any:
        with torch.utils._python_dispatch._disable_current_modes():
            return self.tape.call(op, spelling, *adapted)


_FUNCTIONS: dict[Any, str] = {
    getattr(nn.functional, name.split(".")[1]): name
    for name in SPELLINGS
    if name.startswith("functional.")
}


def caller() -> str | None:
    """File and line of the first frame that is neither torch's nor the engine's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_TORCH, _HERE, "<")):
            return f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def follow_modules(path: list[str], names: Mapping[int, str]) -> Callable[[], None]:
    """Keep at the end of `path` the name of the module that runs, its class where it has none.

    torch's hooks are everyone's: modules that other threads run pass by.
    """
    mine = threading.get_ident()

    def enter(module: nn.Module, args: Any) -> None:
        if threading.get_ident() == mine:
            path.append(names.get(id(module), type(module).__name__))

    def leave(module: nn.Module, args: Any, out: Any) -> None:
        if threading.get_ident() == mine:
            path.pop()

    handles = [
        hooks.register_module_forward_pre_hook(enter),
        hooks.register_module_forward_hook(leave, always_call=True),
    ]

    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove


class _FusedAttention:
    """A switch of the whole process: off while anyone wants it off, then as it was before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._off, self._before = 0, True

    def off(self) -> None:
        with self._lock:
            if not self._off:
                self._before = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)
            self._off += 1

    def back(self) -> None:
        with self._lock:
            self._off -= 1
            if not self._off:
                torch.backends.mha.set_fastpath_enabled(self._before)


_FUSED = _FusedAttention()


def no_fused_attention() -> Callable[[], None]:
    """Keep nn.MultiheadAttention from its one-kernel path, which shows no operators; what is given
    back undoes it."""
    _FUSED.off()
    return _FUSED.back


_TAPES: list[tuple[int, Tape]] = []  # those that watch functions, each with its thread
_APPLY: FunctionType = torch.autograd.Function.__dict__["apply"].__func__
# a second function with the first one's code: it stays itself when that code is exchanged
_ORIGINAL = FunctionType(
    _APPLY.__code__, _APPLY.__globals__, "apply", _APPLY.__defaults__, _APPLY.__closure__
)
_ORIGINAL.__kwdefaults__ = _APPLY.__kwdefaults__


class _Diversion:
    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        __class__  # type: ignore[name-defined] # noqa: B018 a free variable of the other code too
        from hubel.engine.capture import diverted  # noqa: PLC0415 runs among torch's globals

        return diverted(cls, args, kwargs)


def watch_functions(tape: Tape) -> Callable[[], None]:
    """Record a `torch.autograd.Function` whole: its own backward is its rule.

    Without this the tape would see the parts of its forward and lose the backward. The code of
    `Function.apply` itself is exchanged, since many keep `f = MyFunction.apply` for later.
    """
    _TAPES.append((threading.get_ident(), tape))
    _APPLY.__code__ = _Diversion.__dict__["apply"].__func__.__code__

    def restore() -> None:
        _TAPES.remove((threading.get_ident(), tape))
        if not _TAPES:
            _APPLY.__code__ = _ORIGINAL.__code__

    return restore


def diverted(cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What `Function.apply` does while a tape is running."""
    original = _ORIGINAL.__get__(cls)
    mine = [tape for thread, tape in _TAPES if thread == threading.get_ident()]
    if not mine or not any(mine[-1].values.is_live(t) for t in tensors_in(args)):
        return original(*args, **kwargs)
    if cls.__name__ == "CheckpointFunction":
        return args[0](*args[2:])  # (function, whether to keep random numbers, arguments)
    tape = mine[-1]
    with tape.plain(), torch.utils._python_dispatch._disable_current_modes():
        if hasattr(cls, "hubel_adapt"):
            return tape.call(cls.hubel_op, f"hubel.{cls.hubel_op.name}", *cls.hubel_adapt(*args))
        call = Call(original, cls.__name__, args, kwargs, random=True)
        return tape.call(Borrowed, f"python.{cls.__name__}", call.tensors, tape.borrowing(call))
