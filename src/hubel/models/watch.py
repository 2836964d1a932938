"""Looking at a model while it runs, without leaving a trace.

`untouched` puts back whatever a pass through the net may change; `watch` tells of every module that
starts and ends its work. Both tidy up after errors too.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Enter = Callable[[str, nn.Module, Any], None]
Leave = Callable[[str, nn.Module, Any, Any], None]


@contextlib.contextmanager
def untouched(model: nn.Module, *, training: bool | None = None) -> Iterator[None]:
    """Inside, `model` may run; afterwards its modes, its buffers and all chance are as before.

    Random generators put back: torch's on every device the model uses, NumPy's and Python's.

    Args:
        training: the mode the whole model is put in meanwhile; None leaves every module's own.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module._buffers, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    cuda = {p.device for p in model.parameters() if p.is_cuda}
    legacy, plain = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=list(cuda)):
            if training is not None:
                model.train(training)
            yield
    finally:
        np.random.set_state(legacy)  # noqa: NPY002
        random.setstate(plain)
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for owner, name, buffer, value in buffers:
                owner[name] = buffer.copy_(value)


@contextlib.contextmanager
def watch(
    model: nn.Module, *, enter: Enter | None = None, leave: Leave | None = None
) -> Iterator[None]:
    """Inside, every module's forward calls `enter(path, module, inputs)` before its work and
    `leave(path, module, inputs, output)` after it.

    `path` is the module's dotted name, "" for the model itself; a module that stands in several
    places goes by the first. `inputs` is (positional, by name).
    """
    handles = []
    try:
        for path, module in model.named_modules():
            if enter is not None:
                hook = _entering(path, enter)
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            if leave is not None:
                handles.append(
                    module.register_forward_hook(_leaving(path, leave), with_kwargs=True)
                )
        yield
    finally:
        for handle in handles:
            handle.remove()


def is_leaf(module: nn.Module) -> bool:
    """Whether a module holds no others."""
    return next(module.children(), None) is None


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and dicts, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors(item)


def _entering(path: str, enter: Enter) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        enter(path, module, (args, kwargs))

    return hook


def _leaving(path: str, leave: Leave) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        leave(path, module, (args, kwargs), output)

    return hook
