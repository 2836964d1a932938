"""A net of PyTorch's as JAX would have it: the same graph and weights, NHWC, one jitted step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from contenders.graph_walk import DECAY, MOMENTUM, RATE, Kind, Weights, binary, outputs
from jax import lax
from numpy.typing import NDArray
from torch import nn

from hubel.engine.native.graph import Node
from hubel.engine.native.read import read_graph


def jax_step(
    net: nn.Module, images: NDArray[np.float32], labels: NDArray[np.int64]
) -> Callable[[], object]:
    """A whole training step (SGD with Nesterov momentum and weight decay), warm, ready to be timed.

    Batch norm norms by the batch; its running statistics, which no gradient needs, are left out.
    """
    graph = read_graph(net, torch.from_numpy(images[:2]))
    weights = {name: jnp.asarray(p.detach().numpy()) for name, p in net.named_parameters()}
    x, y = jnp.asarray(images.transpose(0, 2, 3, 1)), jnp.asarray(labels)

    def loss(weights: Weights, x: Any, y: Any) -> Any:
        scores = jax.nn.log_softmax(outputs(graph, _KINDS, weights, x))
        return -jnp.take_along_axis(scores, y[:, None], 1).mean()

    @jax.jit
    def step(weights: Weights, speeds: Weights, x: Any, y: Any) -> tuple[Weights, Weights, Any]:
        value, slopes = jax.value_and_grad(loss)(weights, x, y)
        moved, faster = {}, {}
        for name, w in weights.items():
            g = slopes[name] + DECAY * w
            faster[name] = MOMENTUM * speeds[name] + g
            moved[name] = w - RATE * (g + MOMENTUM * faster[name])
        return moved, faster, value

    state = [weights, {name: jnp.zeros_like(w) for name, w in weights.items()}]

    def run() -> object:
        state[0], state[1], value = step(state[0], state[1], x, y)
        return value.block_until_ready()

    return run


def _conv(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    o = node.options
    y = lax.conv_general_dilated(
        x, weights[node.weights["weight"]], o["stride"], [(p, p) for p in o["padding"]],
        rhs_dilation=o["dilation"], dimension_numbers=("NHWC", "OIHW", "NHWC"),
        feature_group_count=o["groups"],
    )  # fmt: skip
    return y + weights[node.weights["bias"]] if "bias" in node.weights else y


def _conv_transposed(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    """As the gradient of a convolution: the input spread out by the stride, the kernel turned."""
    o, w = node.options, weights[node.weights["weight"]]
    sides = [(k - 1 - p, k - 1 - p) for k, p in zip(w.shape[2:], o["padding"], strict=True)]
    y = lax.conv_general_dilated(
        x, jnp.flip(w, (2, 3)), (1, 1), sides, lhs_dilation=o["stride"],
        dimension_numbers=("NHWC", "IOHW", "NHWC"),
    )  # fmt: skip
    return y + weights[node.weights["bias"]] if "bias" in node.weights else y


def _linear(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    if x.ndim == 4:
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
    y = x @ weights[node.weights["weight"]].T
    return y + weights[node.weights["bias"]] if "bias" in node.weights else y


def _norm(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    scale = weights[node.weights["weight"]] * lax.rsqrt(variance + node.options["eps"])
    return (x - mean) * scale + weights[node.weights["bias"]]


def _unary(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    return {"relu": jax.nn.relu, "tanh": jnp.tanh}[node.options["name"]](x)


def _pool(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    o = node.options
    size, stride = (1, *o["kernel"], 1), (1, *o["stride"], 1)
    if o["kind"] == "max":
        return lax.reduce_window(x, -jnp.inf, lax.max, size, stride, "VALID")
    total = lax.reduce_window(x, 0.0, lax.add, size, stride, "VALID")
    return total / (o["kernel"][0] * o["kernel"][1])


def _whole(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    return x.max((1, 2)) if node.options["kind"] == "max" else x.mean((1, 2))


def _concat(node: Node, weights: Weights, shape: Any, *xs: Any) -> Any:
    return jnp.concatenate(xs, -1)


def _thin(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    """ResNet's option A: every second pixel, channels of zeros behind."""
    (c0, h0, w0), (c1, h1, w1) = node.options["start"], node.options["step"]
    x = x[:, h0::h1, w0::w1, c0::c1]
    before = node.options["into"][0]
    return jnp.pad(x, ((0, 0),) * 3 + ((before, shape[0] - x.shape[-1] - before),))


_KINDS: dict[str, Kind] = {
    "conv": _conv, "conv_transposed": _conv_transposed, "linear": _linear, "norm": _norm,
    "unary": _unary, "binary": binary, "pool": _pool, "whole": _whole, "concat": _concat,
    "thin": _thin,
}  # fmt: skip
