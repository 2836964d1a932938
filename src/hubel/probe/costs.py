"""What a forward pass costs, layer by layer: parameters, multiply-adds, memory, time.

Multiply-adds are counted from the operations that really run, so a layer used three times counts
three times and a convolution called as a function counts as well. One multiply-add (MAC) is two
FLOPs; additions of biases, norms, activations and pools are not counted, as is the custom.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from hubel.engine.capture import no_fused_attention
from hubel.models.watch import is_leaf, tensors, untouched, watch
from hubel.probe.fields import Field, Fields, fields
from hubel.probe.macs import macs
from hubel.probe.outline import outline
from hubel.probe.times import times as timed

WHOLE = "(model)"  # the path of the model itself, where it computes by itself


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One layer in one forward pass of all images.

    Attributes:
        layer: path in the model; "(model)" for what the model does outside of its layers.
        kind: its class, as in "Conv2d".
        shape: of its last output, (N, ...); empty where it did not run.
        parameters: learned numbers it holds; shared ones count at the first layer that has them.
        macs: multiply-adds, over all its uses.
        bytes: of its outputs, over all its uses.
        milliseconds: median over the timed passes, all its uses together; NaN where not timed.
        share: of the milliseconds of all layers, 0..1; NaN where not timed.
        uses: how often it ran.
        field: what one number of its last output sees of the image; None where that is not known.
    """

    layer: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    macs: int
    bytes: int
    milliseconds: float
    share: float
    uses: int
    field: Field | None = None


@dataclass(frozen=True, slots=True)
class Costs:
    """All layers in the order they first ran, and the sums over the whole model.

    `milliseconds` is the median of whole passes without any watching, so it differs from the
    layers' sum: that leaves out what happens between layers and pays for the watching. `pooled` is
    the field of the map that a global pooling takes; None where there is none, or it is not known.
    """

    layers: tuple[LayerCost, ...]
    parameters: int
    macs: int
    bytes: int
    milliseconds: float
    pooled: Field | None = None


def costs(
    model: nn.Module,
    images: Tensor,
    *,
    repeats: int = 5,
    depth: int | None = None,
    sight: bool = True,
) -> Costs:
    """The costs of one forward pass in eval mode. The model is left as it was.

    Without times everything works on the meta device too: no memory, no arithmetic.

    Args:
        images: float (N, C, H, W) on the model's device; all counts are for all N.
        repeats: timed passes to take the median of; 0 for counts without times.
        depth: fold layers below paths of this many parts into one row; None: every layer's own.
        sight: find the receptive fields.
    """
    with torch.no_grad(), untouched(model, training=False):
        seen = _count(model, images)
        times, whole = timed(model, images, repeats)
    sees = fields(model, images) if sight else Fields()
    rows = _rows(model, seen, times, sees)
    if depth is not None:
        rows = _fold(rows, depth, model, seen, sees)
    return Costs(
        tuple(rows),
        parameters=sum(row.parameters for row in rows),
        macs=sum(row.macs for row in rows),
        bytes=sum(row.bytes for row in rows),
        milliseconds=whole,
        pooled=sees.pooled,
    )


@dataclass
class _Seen:
    """What one module did in one pass."""

    macs: int = 0
    bytes: int = 0
    uses: int = 0
    shape: tuple[int, ...] = ()


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds the multiply-adds of every operation to the innermost module that is running."""

    _should_skip_dynamo = classmethod(lambda cls: False)  # or torch loads its compiler: 2 s

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: dict[str, _Seen] = {}
        self.running = [""]

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        self.running.append(path)
        self.seen.setdefault(path, _Seen())

    def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        self.running.pop()
        seen = self.seen[path]
        seen.uses += 1
        made = list(tensors(output))
        seen.bytes += sum(t.numel() * t.element_size() for t in made)
        seen.shape = tuple(made[0].shape) if made else ()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = outline(func, args, kwargs)
        if output is None:
            output = func(*args, **kwargs)
        self.seen[self.running[-1]].macs += macs(func, args, kwargs, output)
        return output


def _count(model: nn.Module, images: Tensor) -> dict[str, _Seen]:
    """What every module did, by path, in the order they began."""
    counter = _Counter()
    with _open_attention(), watch(model, enter=counter.enter, leave=counter.leave), counter:
        model(images)
    return counter.seen


@contextmanager
def _open_attention() -> Iterator[None]:
    """Inside, attention runs as matrix products; its fused kernels cannot be counted."""
    with ExitStack() as outer:
        outer.callback(no_fused_attention())
        outer.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def _rows(
    model: nn.Module, seen: dict[str, _Seen], times: dict[str, float], sees: Fields
) -> list[LayerCost]:
    """One row for every module that computes or learns by itself, in the order they began."""
    modules = dict(model.named_modules())
    counted: set[int] = set()
    rows = []
    for path in [*seen, *(path for path in modules if path not in seen)]:
        module, did = modules[path], seen.get(path, _Seen())
        fresh = {id(p): p for p in module.parameters(recurse=False) if id(p) not in counted}
        counted |= fresh.keys()
        learned = sum(p.numel() for p in fresh.values())
        if learned or did.macs or (did.uses and is_leaf(module)):
            rows.append(_row(path, module, did, learned, times, sees))
    total = sum(row.milliseconds for row in rows)
    return [replace(row, share=row.milliseconds / total) for row in rows] if total else rows


def _row(
    path: str,
    module: nn.Module,
    did: _Seen,
    parameters: int,
    times: dict[str, float],
    sees: Fields,
) -> LayerCost:
    return LayerCost(
        layer=path or WHOLE,
        kind=type(module).__name__,
        shape=did.shape,
        parameters=parameters,
        macs=did.macs,
        bytes=did.bytes,
        milliseconds=times.get(path, 0.0) if times else math.nan,
        share=math.nan,
        uses=did.uses,
        field=sees.layers.get(path),
    )


def _fold(
    rows: list[LayerCost], depth: int, model: nn.Module, seen: dict[str, _Seen], sees: Fields
) -> list[LayerCost]:
    """Rows with the same first `depth` parts of their paths as one, named by the module there."""
    groups: dict[str, list[LayerCost]] = defaultdict(list)
    for row in rows:
        groups[".".join(row.layer.split(".")[:depth])].append(row)
    folded = []
    for path, group in groups.items():
        if [row.layer for row in group] == [path]:
            folded += group
            continue
        did = seen.get(path, _Seen())  # a ModuleList never runs by itself: its last layer speaks
        last = group[-1]
        folded.append(
            LayerCost(
                layer=path,
                kind=type(model.get_submodule(path)).__name__,
                shape=did.shape or last.shape,
                parameters=sum(row.parameters for row in group),
                macs=sum(row.macs for row in group),
                bytes=sum(row.bytes for row in group),
                milliseconds=sum(row.milliseconds for row in group),
                share=sum(row.share for row in group),
                uses=did.uses or last.uses,
                field=sees.layers.get(path, last.field),
            )
        )
    return folded
