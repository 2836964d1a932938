"""What each call of a classifier becomes when the net slides over a larger image: one rule a kind.

A rule changes its call where that must change, and says which map then stands for the value. Calls
that no rule is for are refused: nothing slides that was not thought about.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules import activation

from hubel.models.sliding import (
    Map,
    Pair,
    Rule,
    Turning,
    argument,
    axes_of,
    name_of,
    pair,
    scaled,
    shape_of,
)


def pointwise(t: Turning, node: fx.Node) -> None:
    """Every place by itself; several maps must have the same places, and channels that meet."""
    found = [n for n in node.all_input_nodes if n in t.maps]
    first, maps = found[0], [t.maps[n] for n in found]
    if len({(m.places, len(shape_of(n))) for m, n in zip(maps, found, strict=True)}) > 1:
        shapes = " and ".join(str(shape_of(n)) for n in found)
        t.refuse(node, f"it joins values of {shapes}; on larger images these no longer meet")
    if len({m.step for m in maps}) > 1:
        t.refuse(node, "it joins maps whose places lie differently far apart")
    if len(shape_of(first)) != 4 and len({m.shape for m in maps}) > 1:
        t.refuse(node, "it joins maps that were flattened from different shapes")
    for constant in node.all_input_nodes:
        if constant not in t.maps:
            _constant(t, node, constant, maps[0], len(shape_of(first)))
    channels = max(m.shape[1] for m in maps)
    t.stands(node, Map((maps[0].shape[0], channels, *maps[0].places), maps[0].step))


def _constant(t: Turning, node: fx.Node, constant: fx.Node, met: Map, rank: int) -> None:
    """A learned or fixed tensor beside a map: one number, or one per channel."""
    shape = shape_of(constant)
    if prod(shape) == 1 or (rank == 4 and len(shape) >= 3 and shape[-2:] == (1, 1)):
        return
    if rank != 2 or met.places != (1, 1) or prod(shape) != met.shape[1]:
        t.refuse(node, f"it joins the map with a tensor of shape {shape}, made for one size")
    with t.graph.inserting_before(node):
        column = t.graph.call_method("reshape", (constant, -1, 1, 1))
    node.replace_input_with(constant, column)


def windowed(t: Turning, node: fx.Node) -> None:
    """Convolutions, pools and borders slide as they are. A mean over the whole map moves by 1."""
    given = t.given(node, 4)
    if _is_whole_mean(t, node, given):
        divisor = argument(node, 6, "divisor_override")
        if node.op == "call_module":
            divisor = t.layer(node).divisor_override
        t.put(node, nn.AvgPool2d(given.places, 1, divisor_override=divisor))
        t.stands(node, given.pooled(given.places, (1, 1)))
        return
    if len(shape_of(node)) != 4:
        t.refuse(node, "it gives more than one map")
    t.stands(node, Map(shape_of(node), scaled(given.step, _stride(t, node))))


def _stride(t: Turning, node: fx.Node) -> Pair:
    if node.op == "call_module":
        layer = t.layer(node)
        return pair(getattr(layer, "stride", 1) or layer.kernel_size)
    match name_of(node):
        case "conv2d":
            return pair(argument(node, 3, "stride", 1))
        case "pad":
            return 1, 1
    return pair(argument(node, 2, "stride") or argument(node, 1, "kernel_size"))


def _is_whole_mean(t: Turning, node: fx.Node, given: Map) -> bool:
    if node.op == "call_module":
        layer = t.layer(node)
        if not isinstance(layer, nn.AvgPool2d):
            return False
        window, border = layer.kernel_size, layer.padding
    elif name_of(node) == "avg_pool2d":
        window = argument(node, 1, "kernel_size")
        border = argument(node, 3, "padding", 0)
    else:
        return False
    return pair(window) == given.places and pair(border) == (0, 0)


def adaptive(t: Turning, node: fx.Node) -> None:
    """A pool to a fixed number of places: the windows and strides it has at the training size."""
    given = t.given(node, 4)
    places = shape_of(node)[2:]
    if any(n % o for n, o in zip(given.places, places, strict=True)):
        t.refuse(node, _uneven(t, given, places))
    window = pair([n // o for n, o in zip(given.places, places, strict=True)])
    # a single window moves by one place: it has no stride of its own
    stride = pair([1 if o == 1 else k for k, o in zip(window, places, strict=True)])
    if window == (1, 1):
        t.unchanged(node)
        return
    name = type(t.layer(node)).__name__ if node.op == "call_module" else name_of(node)
    t.put(node, (nn.MaxPool2d if "max" in name.lower() else nn.AvgPool2d)(window, stride))
    t.stands(node, given.pooled(window, stride))


def _uneven(t: Turning, given: Map, places: tuple[int, ...]) -> str:
    """The reason, and the next image sizes for which every window is as large as the others."""
    fitting = []
    for up in (0, 1):
        sides = []
        for side, n, o, step in zip(t.size, given.places, places, given.step, strict=True):
            wanted = (n // o + up) * o if n % o else n
            sides.append(side + (wanted - n) * step if wanted else 0)
        if min(sides) > 0:
            fitting.append(f"{sides[0]}x{sides[1]}")
    (h, w), (ho, wo) = given.places, places
    return (
        f"it pools {h}x{w} places to {ho}x{wo}, in windows of uneven size; images of "
        f"{' or '.join(fitting)} would divide, given {t.size[0]}x{t.size[1]}"
    )


def reduced(t: Turning, node: fx.Node) -> None:
    """`x.mean([2, 3])`, `amax`, `sum` over places: a window of the map's size, moved by 1."""
    given, shape = t.given(node), shape_of(t.source(node))
    dims: Any = argument(node, 1, "dim")
    dims = range(len(shape)) if dims is None else dims if isinstance(dims, tuple | list) else [dims]
    axes = axes_of(given.shape, shape) or []
    held = {axis for dim in dims for axis in axes[dim]}
    if not held <= {2, 3} or any(dim % len(shape) == 0 for dim in dims):
        t.refuse(node, "it goes over more than heights and widths")
    window = pair([given.shape[axis] if axis in held else 1 for axis in (2, 3)])
    if window == (1, 1):
        t.unchanged(node)
        return
    layer: nn.Module = nn.AvgPool2d(window, 1)
    if name_of(node) == "amax":
        layer = nn.MaxPool2d(window, 1)
    elif name_of(node) == "sum":
        layer = nn.AvgPool2d(window, 1, divisor_override=1)
    t.put(node, layer)
    t.stands(node, given.pooled(window, (1, 1)))


def reshaped(t: Turning, node: fx.Node) -> None:
    """Flatten, view, squeeze: the map stays, where the images keep their own rows."""
    given, shape = t.given(node), shape_of(node)
    whole = axes_of(given.shape, shape) is not None and shape[:1] == given.shape[:1]
    if not whole or (len(shape) == 4 and shape != given.shape):
        t.refuse(node, f"it takes axes apart, from {shape_of(t.source(node))} to {shape}")
    t.unchanged(node)


def linear(t: Turning, node: fx.Node) -> None:
    """A fully connected layer: a convolution with the whole map as its kernel, same weights."""
    given, shape = t.given(node), shape_of(t.source(node))
    if len(shape) != 2:
        t.refuse(node, f"it works along the last axis of {shape}, not on whole images")
    kernel = (given.shape[1], *given.places)
    if node.op == "call_module":
        t.put(node, _as_conv(t.layer(node), kernel))
    else:
        weight = argument(node, 1, "weight")
        with t.graph.inserting_before(node):
            kernels = t.graph.call_method("reshape", (weight, -1, *kernel))
        node.args = (node.args[0], kernels, argument(node, 2, "bias"))
        node.target, node.kwargs = F.conv2d, {}
    t.stands(node, Map((*shape_of(node), 1, 1), given.step))


def _as_conv(layer: nn.Linear, kernel: tuple[int, int, int]) -> nn.Conv2d:
    maps_in, *window = kernel
    bias = layer.bias is not None
    conv = nn.Conv2d(maps_in, layer.out_features, pair(window), bias=bias, device="meta")
    conv.weight = nn.Parameter(layer.weight.detach().reshape(-1, *kernel))
    if bias:
        conv.bias = nn.Parameter(layer.bias.detach())
    return conv


def batch_norm_1d(t: Turning, node: fx.Node) -> None:
    """Behind a fully connected layer: the same numbers for every place."""
    given, layer = t.given(node), t.layer(node)
    if layer.num_features != given.shape[1]:
        t.refuse(node, "it has numbers for every place of the map")
    norm = nn.BatchNorm2d(layer.num_features, eps=layer.eps, affine=layer.affine, device="meta")
    norm.weight, norm.bias = layer.weight, layer.bias
    norm.running_mean, norm.running_var = layer.running_mean, layer.running_var
    norm.num_batches_tracked = layer.num_batches_tracked
    t.put(node, norm)
    t.stands(node, given)


def batch_norm(t: Turning, node: fx.Node) -> None:
    """`F.batch_norm` with stored statistics: channels are axis 1 before and after."""
    given = t.given(node)
    if shape_of(t.source(node))[1] != given.shape[1]:
        t.refuse(node, "it has numbers for every place of the map")
    t.stands(node, given)


def softmax(t: Turning, node: fx.Node) -> None:
    """Over the channels of every place."""
    given, shape = t.given(node, 2, 4), shape_of(t.source(node))
    module = node.op == "call_module"
    dim = t.layer(node).dim if module else argument(node, 1, "dim")
    if (1 if dim is None else dim % len(shape)) != 1 or (
        len(shape) == 2 and given.places != (1, 1)
    ):
        t.refuse(node, "it is taken over places; only dim=1, the channels, can slide")
    if module:
        t.put(node, type(t.layer(node))(dim=1))
    elif len(node.args) > 1:
        node.update_arg(1, 1)
    else:
        node.update_kwarg("dim", 1)
    t.stands(node, given)


def joined(t: Turning, node: fx.Node) -> None:
    """`torch.cat` of channels."""
    listed, dim = argument(node, 0, "tensors"), argument(node, 1, "dim", 0)
    if not all(isinstance(n, fx.Node) and n in t.maps for n in listed):
        t.refuse(node, "it joins maps with a tensor of fixed size")
    maps, ranks = [t.maps[n] for n in listed], {len(shape_of(n)) for n in listed}
    if ranks not in ({2}, {4}) or dim % min(ranks) != 1:
        t.refuse(node, "only channels can be joined, along dim=1")
    if len({(m.places, m.step) for m in maps}) > 1:
        t.refuse(node, "it joins maps whose places do not lie alike")
    node.args, node.kwargs = (listed, 1), {}
    channels = sum(m.shape[1] for m in maps)
    t.stands(node, Map((maps[0].shape[0], channels, *maps[0].places), maps[0].step))


def sliced(t: Turning, node: fx.Node) -> None:
    """`x[:, :, ::2, ::2]` and the like: cuts that are counted from the first place."""
    given, shape = t.given(node, 2, 4), shape_of(t.source(node))
    index: Any = node.args[1]
    index = index if isinstance(index, tuple) else (index,)
    if index == (slice(None), slice(None), 0, 0) and given.places == (1, 1):
        t.unchanged(node)
        return
    plain = all(isinstance(cut, slice) for cut in index)
    if not plain or (len(shape) == 2 and given.places != (1, 1)):
        t.refuse(node, "only plain slices can slide")
    cuts = [*index, *[slice(None)] * (4 - len(index))]
    if cuts[0] != slice(None) or any(
        (cut.start or 0) < 0 or (cut.stop is not None and cut.stop >= 0) for cut in cuts[2:]
    ):
        t.refuse(node, "it cuts out places that a larger image has elsewhere")
    stride = pair([cut.step or 1 for cut in cuts[2:]])
    sides = [len(range(n)[c]) for n, c in zip(given.shape, cuts, strict=True)]
    t.stands(node, Map(tuple(sides), scaled(given.step, stride)))


# Which rule for what -----------------------------------------------------------------------------

OVER_DIM = (nn.Softmax, nn.LogSoftmax, nn.Softmin)
ACTIVATIONS = tuple(
    getattr(activation, name)
    for name in activation.__all__
    if name not in ("MultiheadAttention", "GLU", "Softmax", "LogSoftmax", "Softmin")
)
DROPOUTS = (nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)
OTHERS = (nn.BatchNorm2d, nn.LocalResponseNorm, nn.Identity)
BORDERS = (nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d)

LAYERS: dict[type[nn.Module], Rule] = {
    **dict.fromkeys((*ACTIVATIONS, *DROPOUTS, *OTHERS), pointwise),
    **dict.fromkeys((nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, *BORDERS), windowed),
    **dict.fromkeys((nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d), adaptive),
    **dict.fromkeys((nn.Flatten, nn.Unflatten), reshaped),
    **dict.fromkeys(OVER_DIM, softmax),
    nn.Linear: linear,
    nn.BatchNorm1d: batch_norm_1d,
}

_POINTWISE = """
    abs add alpha_dropout celu clamp clamp_max clamp_min clip clone contiguous cos detach div double
    dropout dropout2d elu exp feature_alpha_dropout feature_dropout float gelu hardsigmoid hardswish
    hardtanh leaky_relu local_response_norm log log1p log_sigmoid maximum minimum mish mul multiply
    neg pow prelu radd reciprocal relu relu6 rmul rsqrt rsub rtruediv selu sigmoid silu sin softplus
    softsign sqrt square sub tanh tanhshrink threshold to true_divide truediv
"""
POINTWISE = _POINTWISE.split()

FUNCTIONS: dict[str, Rule] = {
    **dict.fromkeys(POINTWISE, pointwise),
    **dict.fromkeys(("conv2d", "max_pool2d", "avg_pool2d", "pad"), windowed),
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d"), adaptive),
    **dict.fromkeys(("mean", "amax", "sum"), reduced),
    **dict.fromkeys(("flatten", "view", "reshape", "squeeze", "unsqueeze", "unflatten"), reshaped),
    **dict.fromkeys(("softmax", "log_softmax", "softmin"), softmax),
    **dict.fromkeys(("cat", "concat", "concatenate"), joined),
    "linear": linear,
    "batch_norm": batch_norm,
    "getitem": sliced,
}

REASONS = {
    "MultiheadAttention": "attention weighs every place against every other",
    "GroupNorm": "it normalises with the mean of the whole map, which a larger image changes",
    "InstanceNorm2d": "it normalises with the mean of the whole map, which a larger image changes",
    "LayerNorm": "it normalises over axes of fixed length",
}


def rule_for(t: Turning, node: fx.Node) -> Rule:
    """Raises `ModelError` for a call that no rule is for."""
    if node.op == "call_module":
        kinds = type(t.layer(node)).__mro__
        found = next((LAYERS[kind] for kind in kinds if kind in LAYERS), None)
        name = kinds[0].__name__
    else:
        name = name_of(node)
        found = FUNCTIONS.get(name)
    if found is None:
        t.refuse(node, REASONS.get(name, "there is no sliding form of it here"))
    return found
