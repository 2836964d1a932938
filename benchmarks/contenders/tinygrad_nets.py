"""A net of PyTorch's as tinygrad would have it: same graph, same weights, NCHW, a step in TinyJit.

Its CPU back end compiles with clang.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from contenders.graph_walk import DECAY, MOMENTUM, RATE, Kind, Weights, binary, outputs
from numpy.typing import NDArray
from tinygrad import Tensor, TinyJit
from torch import nn

from hubel.engine.native.graph import Node
from hubel.engine.native.read import read_graph


def tinygrad_step(
    net: nn.Module, images: NDArray[np.float32], labels: NDArray[np.int64]
) -> Callable[[], object]:
    """A whole training step (SGD with Nesterov momentum and weight decay), warm, ready to be timed.

    Batch norm norms by the batch; its running statistics, which no gradient needs, are left out.
    """
    graph = read_graph(net, torch.from_numpy(images[:2]))
    weights = {
        name: Tensor(p.detach().numpy()).contiguous().realize()
        for name, p in net.named_parameters()
    }
    speeds = {name: w.zeros_like().contiguous().realize() for name, w in weights.items()}
    x, y = Tensor(images).realize(), Tensor(labels.astype(np.int32)).realize()

    @TinyJit
    def step(x: Any, y: Any) -> Any:
        value = outputs(graph, _KINDS, weights, x).sparse_categorical_crossentropy(y)
        slopes = value.gradient(*weights.values())
        for (name, w), slope in zip(weights.items(), slopes, strict=True):
            g = slope + DECAY * w
            speed = MOMENTUM * speeds[name] + g
            w.assign(w - RATE * (g + MOMENTUM * speed))
            speeds[name].assign(speed)
        return value.realize(*weights.values(), *speeds.values())

    def run() -> object:
        return step(x, y).item()

    for _ in range(3):  # run, captured, replayed
        run()
    return run


def _conv(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    o, names = node.options, node.weights
    bias = weights[names["bias"]] if "bias" in names else None
    down, right = o["padding"]
    return x.conv2d(
        weights[names["weight"]], bias, o["groups"], o["stride"], o["dilation"],
        (right, right, down, down),
    )  # fmt: skip


def _conv_transposed(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    names = node.weights
    bias = weights[names["bias"]] if "bias" in names else None
    return x.conv_transpose2d(weights[names["weight"]], bias, stride=node.options["stride"])


def _linear(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    y = x.flatten(1) @ weights[node.weights["weight"]].T
    return y + weights[node.weights["bias"]] if "bias" in node.weights else y


def _norm(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    mean = x.mean((0, 2, 3), keepdim=True)
    apart = x - mean
    scale = (apart.square().mean((0, 2, 3), keepdim=True) + node.options["eps"]).rsqrt()
    w, b = (weights[node.weights[role]].reshape(1, -1, 1, 1) for role in ("weight", "bias"))
    return apart * scale * w + b


def _unary(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    return {"relu": x.relu, "tanh": x.tanh}[node.options["name"]]()


def _pool(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    o = node.options
    pool = x.max_pool2d if o["kind"] == "max" else x.avg_pool2d
    return pool(o["kernel"], o["stride"])


def _whole(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    return (x.max if node.options["kind"] == "max" else x.mean)((2, 3))


def _concat(node: Node, weights: Weights, shape: Any, *xs: Any) -> Any:
    return xs[0].cat(*xs[1:], dim=1)


def _thin(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    """ResNet's option A: every second pixel, channels of zeros behind."""
    (c0, h0, w0), (c1, h1, w1) = node.options["start"], node.options["step"]
    x = x[:, c0::c1, h0::h1, w0::w1]
    before = node.options["into"][0]
    return x.pad((None, (before, shape[0] - x.shape[1] - before), None, None))


_KINDS: dict[str, Kind] = {
    "conv": _conv, "conv_transposed": _conv_transposed, "linear": _linear, "norm": _norm,
    "unary": _unary, "binary": binary, "pool": _pool, "whole": _whole, "concat": _concat,
    "thin": _thin,
}  # fmt: skip
