"""A net's forward as a graph of calls whose sizes are known: torch.fx, run along on real images.

Sizes are plain numbers while the net is traced, so `x.view(x.size(0), -1)`, paddings computed from
`x.shape` and branches on a size work as they do in an ordinary call. What depends on the values of
pixels does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from hubel.errors import ModelError

KNOWN = ("shape", "ndim", "dtype", "device", "is_cuda", "requires_grad", "itemsize", "layout")


def trace(model: nn.Module, images: Tensor) -> fx.Graph:
    """The calls of `model(images)`, images float (N, C, H, W), in the mode the model is in.

    Every node's `meta` holds "shape", the value's shape as a tuple (None where it is no tensor),
    and "inside", the path of the module whose forward made the call ("" for the model itself).
    Layers of `torch.nn` are single calls, all other modules are looked into.

    Raises `ModelError` where the net cannot be traced, naming the module.
    """
    tracer = _Tracer(images)
    try:
        with torch.no_grad():
            graph = tracer.trace(model)
    except Exception as error:  # the net's own code runs on stand-ins: anything may come of it
        where = f"in {tracer.inside!r}, " if tracer.inside else ""
        raise ModelError(
            f"{type(model).__name__} cannot be traced: {where}{_in_words(error)}"
        ) from error
    for node in graph.nodes:
        value = node.meta.pop("value", None)
        node.meta["shape"] = tuple(value.shape) if isinstance(value, Tensor) else None
    return graph


class _Sized(fx.Proxy):
    """A stand-in that answers for its size with the numbers of the images it is traced with."""

    @property
    def _value(self) -> Any:
        return self.node.meta["value"]

    def __getattr__(self, name: str) -> Any:
        if name in KNOWN and isinstance(self._value, Tensor):
            return getattr(self._value, name)
        return super().__getattr__(name)

    def size(self, dim: int | None = None) -> Any:
        return self._value.size() if dim is None else self._value.size(dim)

    def dim(self) -> int:
        return int(self._value.dim())

    def numel(self) -> int:
        return int(self._value.numel())

    def __len__(self) -> int:
        return len(self._value)

    def __iter__(self) -> Iterator[Any]:
        value: Any = self
        return (value[place] for place in range(len(self)))


class _Tracer(fx.Tracer):
    """Records every call, and makes it at once, on the images."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images
        self.inside = ""
        self.running = False  # while a call is made on values, nothing is recorded

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        """The images alone; other arguments of the forward keep their defaults."""
        return root_fn, [self.root, self.create_proxy("placeholder", "images", (), {})]

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Sized(node, self)

    def create_node(self, kind: str, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(kind, *args, **kwargs)
        node.meta["inside"] = self.inside
        if kind != "output":
            self.running = True
            node.meta["value"] = self._called(node)
            self.running = False
        return node

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """What a module's attribute gives while the net runs: a stand-in for a parameter."""
        if self.running:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A single call for a layer; for any other module, the calls that it makes."""
        if self.running:
            return forward(*args, **kwargs)
        before = self.inside
        try:
            self.inside = self.path_of_module(m)
        except NameError:  # made on the spot, as a Sequential of layers that have their paths
            return forward(*args, **kwargs)
        if self.is_leaf_module(m, self.inside):
            path, self.inside = self.inside, before
            return self.create_proxy("call_module", path, args, kwargs)
        result = forward(*args, **kwargs)
        self.inside = before
        return result

    def _called(self, node: fx.Node) -> Any:
        """What the call gives, on the values of its inputs."""
        args = fx.node.map_arg(node.args, lambda n: n.meta["value"])
        kwargs = fx.node.map_arg(node.kwargs, lambda n: n.meta["value"])
        match node.op:
            case "placeholder":
                return self.images
            case "get_attr":
                return _attribute(self.root, str(node.target))
            case "call_module":
                return self.root.get_submodule(str(node.target))(*args, **kwargs)
            case "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)


def _attribute(root: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(root.get_submodule(owner), name)


def _in_words(error: Exception) -> str:
    if isinstance(error, fx.proxy.TraceError):
        return "its forward branches on values that only an image can give"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else f"{text[:200]}..."
