"""A net of PyTorch's as TensorFlow would have it: same graph, same weights, NHWC, one step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import torch
from contenders.graph_walk import DECAY, MOMENTUM, RATE, Kind, Weights, binary, outputs
from numpy.typing import NDArray
from torch import nn

from hubel.engine.native.graph import Node
from hubel.engine.native.read import read_graph


def tf_step(
    net: nn.Module, images: NDArray[np.float32], labels: NDArray[np.int64]
) -> Callable[[], object]:
    """A whole training step (SGD with Nesterov momentum and weight decay), warm, ready to be timed.

    Batch norm norms by the batch; its running statistics, which no gradient needs, are left out.
    """
    with contextlib.suppress(RuntimeError):  # it has begun already, with as many
        tf.config.threading.set_intra_op_parallelism_threads(torch.get_num_threads())
    graph = read_graph(net, torch.from_numpy(images[:2]))
    weights = {name: tf.Variable(_turned(p.detach().numpy())) for name, p in net.named_parameters()}
    speeds = {name: tf.Variable(tf.zeros_like(w)) for name, w in weights.items()}
    x, y = tf.constant(images.transpose(0, 2, 3, 1)), tf.constant(labels)

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            z = outputs(graph, _KINDS, weights, x)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=z)
            value = tf.reduce_mean(losses)
        names = list(weights)
        for name, slope in zip(names, tape.gradient(value, [weights[n] for n in names])):  # noqa: B905
            w, v = weights[name], speeds[name]
            g = slope + DECAY * w
            v.assign(MOMENTUM * v + g)
            w.assign_sub(RATE * (g + MOMENTUM * v))
        return value

    def run() -> object:
        return step().numpy()

    return run


def _turned(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """A kernel (out, in, KH, KW) as (KH, KW, in, out)."""
    return weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight


def _biased(node: Node, weights: Weights, y: Any) -> Any:
    return tf.nn.bias_add(y, weights[node.weights["bias"]]) if "bias" in node.weights else y


def _conv(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    o = node.options
    sides = [[0, 0], *([p, p] for p in o["padding"]), [0, 0]]
    padding = sides if any(o["padding"]) else "VALID"
    y = tf.nn.conv2d(
        x, weights[node.weights["weight"]], o["stride"], padding, dilations=o["dilation"]
    )
    return _biased(node, weights, y)


def _conv_transposed(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    maps, height, width = shape
    w = weights[node.weights["weight"]]
    size = (len(x), height, width, maps)
    return _biased(
        node, weights, tf.nn.conv2d_transpose(x, w, size, node.options["stride"], "VALID")
    )


def _linear(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    if len(x.shape) == 4:
        x = tf.reshape(tf.transpose(x, (0, 3, 1, 2)), (len(x), -1))
    y = tf.matmul(x, weights[node.weights["weight"]], transpose_b=True)
    return _biased(node, weights, y)


def _norm(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    y, *_ = tf.compat.v1.nn.fused_batch_norm(
        x, weights[node.weights["weight"]], weights[node.weights["bias"]],
        epsilon=node.options["eps"], is_training=True,
    )  # fmt: skip
    return y


def _unary(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    return {"relu": tf.nn.relu, "tanh": tf.tanh}[node.options["name"]](x)


def _pool(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    o = node.options
    pool = tf.nn.max_pool2d if o["kind"] == "max" else tf.nn.avg_pool2d
    return pool(x, o["kernel"], o["stride"], "VALID")


def _whole(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    return (tf.reduce_max if node.options["kind"] == "max" else tf.reduce_mean)(x, (1, 2))


def _concat(node: Node, weights: Weights, shape: Any, *xs: Any) -> Any:
    return tf.concat(xs, -1)


def _thin(node: Node, weights: Weights, shape: Any, x: Any) -> Any:
    """ResNet's option A: every second pixel, channels of zeros behind."""
    (c0, h0, w0), (c1, h1, w1) = node.options["start"], node.options["step"]
    x = x[:, h0::h1, w0::w1, c0::c1]
    before = node.options["into"][0]
    behind = shape[0] - x.shape[-1] - before
    return tf.pad(x, ((0, 0), (0, 0), (0, 0), (before, behind)))


_KINDS: dict[str, Kind] = {
    "conv": _conv, "conv_transposed": _conv_transposed, "linear": _linear, "norm": _norm,
    "unary": _unary, "binary": binary, "pool": _pool, "whole": _whole, "concat": _concat,
    "thin": _thin,
}  # fmt: skip
