"""A classifier turned into a net that slides: score maps from images of any larger size.

Sermanet, Eigen, Zhang, Mathieu, Fergus, LeCun 2014, "OverFeat", section 3.5, and Long, Shelhamer,
Darrell 2015, "Fully convolutional networks for semantic segmentation", section 3.1: a fully
connected layer on a map of h x w places is a convolution with an h x w kernel, so one pass over a
large image gives the scores of all its windows and shares what these have in common.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

from hubel.errors import ModelError
from hubel.models.check import image_size, whole
from hubel.models.sliding import Map, Pair, Turning, shape_of
from hubel.models.sliding_rules import rule_for
from hubel.models.traced import trace

IMAGES = 2  # one alone would be lost in `x.squeeze()`


def convolutionalize(model: nn.Module, size: Pair, channels: int = 3) -> fx.GraphModule:
    """The same net, fully convolutional: float (N, C, H', W') -> scores (N, K, h, w).

    Takes any net that maps float (N, C, H, W) to logits (N, K), with layers or functions, in
    evaluation mode; `model` itself is left as it is. At `size` the result has h = w = 1 and the
    net's own scores, which is tried on random images before it is returned. For H' >= H, W' >= W
    h = floor((H' - H) / S) + 1 and likewise w, where S is the product of all strides; one more
    where the net's strides leave pixels at the lower or right edge of its images unread, and that
    much of the last window may lie outside.

    Scores [i, j] are those that `model` gives for the window of H x W pixels whose first is
    (i S, j S): exactly, where the net has no padding (and no pool in `ceil_mode`). With padding, a
    window inside of a larger image has real neighbours where the net by itself sees its border:
    the scores are alike, not the same. What is taken over all places at `size` (a global pool, a
    fully connected layer) is taken over as many here, place after place. Where branches of a net
    round their sizes differently, only sizes that fit the strides go through.

    Layers keep their paths, so parameters keep their names; weights of fully connected layers
    have the kernel's shape (O, C, h, w). The `meta` of the result holds "window" (H, W) and
    "stride" (rows, columns), in pixels.

    Args:
        size: (H, W) of the images the net was trained with.
        channels: C.

    Raises `ModelError` for a net that does not take such images or does not answer with (N, K),
    that cannot be traced, or that holds a layer which cannot slide, naming it: attention, group
    norm, squeeze and excitation, pools to sizes that do not divide.
    """
    root = copy.deepcopy(model).eval()
    images = _images(root, whole("channels", channels), image_size(size))
    expected = _scores(root, images)
    graph = trace(root, torch.zeros_like(images))
    turning = Turning(root, graph, size)
    for node in list(graph.nodes):
        _turn(turning, node)
    stride = turning.maps[turning.source(graph.output_node())].step
    net = _module(turning, type(model).__name__)
    net.meta |= {"window": tuple(size), "stride": stride}
    _prove(net, images, expected)
    return net


def _images(model: nn.Module, channels: int, size: Pair) -> Tensor:
    """Noise from 0 to 1 of the net's own kind: (2, C, H, W), the same in every call."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    chance = torch.Generator().manual_seed(0)
    noise = torch.rand(IMAGES, channels, *size, generator=chance)
    return noise.to(device=like.device, dtype=like.dtype)


def _scores(model: nn.Module, images: Tensor) -> Tensor:
    """The net's own answer (N, K). Raises `ModelError`."""
    name, shape = type(model).__name__, tuple(images.shape)
    try:
        with torch.no_grad():
            scores = model(images)
    except Exception as error:  # whatever the net's own code raises
        raise ModelError(f"{name} does not take images {shape}: {error}") from error
    if not isinstance(scores, Tensor):
        kind = type(scores).__name__
        raise ModelError(f"a net that slides answers with one tensor (N, K), {name} with a {kind}")
    if scores.ndim != 2 or len(scores) != len(images):
        raise ModelError(
            f"a net that slides answers with (N, K), {name} with {tuple(scores.shape)} for {shape}"
        )
    return scores


def _turn(turning: Turning, node: fx.Node) -> None:
    """Give one call its sliding form. Calls on constants alone stay as they are."""
    if node.op == "placeholder":
        turning.maps[node] = Map(shape_of(node), (1, 1))
    elif node.op == "output":
        answer = turning.source(node)
        if turning.maps[answer].places != (1, 1):
            turning.refuse(answer, "the net's answer still holds places of its map")
    elif any(n in turning.maps for n in node.all_input_nodes):
        rule_for(turning, node)(turning, node)


def _module(turning: Turning, name: str) -> fx.GraphModule:
    """The turned graph over its layers."""
    for node in turning.same:
        node.replace_all_uses_with(node.all_input_nodes[0])
        turning.graph.erase_node(node)
    net = fx.GraphModule(turning.root, turning.graph, name)
    net.graph.eliminate_dead_code()
    net.delete_all_unused_submodules()
    net.recompile()
    return net.eval()


def _prove(net: nn.Module, images: Tensor, expected: Tensor) -> None:
    """At the training size, the net's own scores. Raises `ModelError` where they are others."""
    name = type(net).__name__
    try:
        with torch.no_grad():
            found = net(images)
    except Exception as error:
        raise ModelError(f"{name} did not survive the turn: {error}") from error
    off = float((found.flatten(1) - expected).abs().max()) if found.numel() else 0.0
    allowed = torch.finfo(expected.dtype).eps ** 0.5 * float(expected.abs().max())
    if found.shape != (*expected.shape, 1, 1) or not off <= allowed:  # NaN is no proof either
        raise ModelError(
            f"{name} gives other scores once it is turned: {off:.3g} apart, at most {allowed:.3g} "
            f"is rounding (chance or state in its forward, or scores that are not finite)"
        )
