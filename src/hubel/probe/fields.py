"""Receptive fields of a model's layers: how much of the image one number of a layer can see.

One pass over one image runs on the engine's tape; the engine composes the windows of its operators
(`hubel.engine.fields`), and every module is asked where its output came from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as attribute

import torch
from torch import Tensor, nn

from hubel.engine.fields import Field as Windows
from hubel.engine.fields import receptive_fields, seen
from hubel.engine.ops.base import Shapes
from hubel.engine.record import Record
from hubel.engine.tape import Tape
from hubel.models.watch import tensors, untouched, watch

# families of operators that make one number of many places
POOLING = ("extreme", "pool", "power_pool", "reduce", "resize")


@dataclass(frozen=True, slots=True)
class Field:
    """What one number of a layer's output sees of the image.

    Attributes:
        size: (H, W) in pixels, those beyond the image's edge included; None: the whole image.
        step: pixels between the fields of neighbours, (H, W); None with the whole image.
    """

    size: tuple[int, ...] | None
    step: tuple[float, ...] | None

    def __str__(self) -> str:
        return "all" if self.size is None else "x".join(map(str, self.size))

    def covers(self, image: tuple[int, ...]) -> bool:
        """Whether it is as large as an image of (H, W) pixels."""
        return self.size is None or all(s >= i for s, i in zip(self.size, image, strict=True))


WHOLE = Field(None, None)


@dataclass(frozen=True, slots=True)
class Fields:
    """Fields by module path (missing: not known), and of the map that a global pooling takes."""

    layers: Mapping[str, Field] = attribute(default_factory=dict)
    pooled: Field | None = None


def fields(model: nn.Module, images: Tensor) -> Fields:
    """The field of every module's last output, for images (N, C, H, W), in eval mode.

    One image makes the pass. What has no places (N, F), and a model that the engine cannot follow,
    has no fields: the answer is empty. The model is left as it was.
    """
    if images.dim() < 3:
        return Fields()
    image = images[:1].detach().clone()
    tape = Tape(watch={"images": image}, kernels="torch")
    source = tape.values.number(image)
    made: dict[str, int] = {}

    def leave(path: str, module: nn.Module, inputs: object, output: object) -> None:
        first = next(tensors(output), None)
        if first is not None:
            made[path] = tape.values.number(first)

    try:
        with untouched(model, training=False), watch(model, leave=leave), torch.no_grad(), tape:
            getattr(model, "_orig_mod", model)(image)  # a compiled model's own layers
        found = receptive_fields(tape, source)
    except Exception:  # the model has run before this: what fails here is the engine
        return Fields()
    found.setdefault(source, ())
    layers = {path: _field(found[n], n == source, image) for path, n in made.items() if n in found}
    return Fields(layers, _pooled(tape.records, found))


def _field(windows: Windows, untouched_yet: bool, image: Tensor) -> Field:
    known = seen(windows)
    if known is not None:
        return Field(known.size, known.step)
    axes = image.dim() - 2
    return Field((1,) * axes, (1.0,) * axes) if untouched_yet else WHOLE


def _pooled(records: list[Record], found: Mapping[int, Windows]) -> Field | None:
    """The field of the last map (N, C, H, W) that is brought to one number a channel."""
    last = None
    for record in records:
        number = record.inputs[0] if record.inputs else None
        if number is None or number not in found:
            continue
        if record.op.family in POOLING and _is_global(record.shapes):
            known = seen(found[number])
            last = WHOLE if known is None else Field(known.size, known.step)
    return last


def _is_global(shapes: Shapes) -> bool:
    into, out = shapes.inputs[0], shapes.outputs[0]
    if into is None or len(into) < 3:
        return False
    return math.prod(into[2:]) > 1 and math.prod(out) == math.prod(into[:2])
