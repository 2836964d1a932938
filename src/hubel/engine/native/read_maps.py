"""Records that pool, move, resize or scale whole maps: each becomes a node, or an alias.

A reader is given the walker of `read.py` and the record; what it cannot do it says in `NotCovered`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hubel.engine.native.graph import Node, NotCovered, Shape
from hubel.engine.native.kernels.resample import spans
from hubel.engine.ops.resize import averages, cubic, linear, nearest
from hubel.engine.record import Record

if TYPE_CHECKING:
    from hubel.engine.native.read import _Reader


# ---- pooling


def _pool(r: _Reader, record: Record) -> Node:
    o = dict(record.options)
    if len(o["kernel"]) != 2:
        raise NotCovered("not two-dimensional")
    kind = "max" if record.op.name == "max_pool" else "mean"
    if kind == "mean" and o["ceil_mode"]:
        raise NotCovered("with ceil_mode")
    _places_unread(r, record)
    options = {
        "kind": kind, "kernel": o["kernel"], "stride": o["stride"], "padding": o["padding"],
        "dilation": o.get("dilation", (1, 1)), "padding_counts": o.get("count_padding", True),
        "divisor": o.get("divisor") or 0,
    }  # fmt: skip
    return Node("pool", (r.data(record),), record.outputs[0], {}, options)


def _places_unread(r: _Reader, record: Record) -> None:
    read = {n for other in r.tape.records for n in other.inputs if n is not None}
    if any(n in read for n in record.outputs[1:]):
        raise NotCovered("whose places are asked for")


def _adaptive(r: _Reader, record: Record) -> Node | None:
    value = r.data(record)
    shape, size = r.shapes[value], tuple(record.options["size"])
    most = record.op.name == "adaptive_max_pool"
    if most:
        _places_unread(r, record)
    _two_dimensional(record)
    if size == shape[1:]:
        r.alias[record.outputs[0]] = value
        return None
    if size == (1, 1) and not most:
        return Node("whole", (value,), record.outputs[0], {}, {"kind": "mean"})
    if all(n % m == 0 for n, m in zip(shape[1:], size, strict=True)):
        kernel = tuple(n // m for n, m in zip(shape[1:], size, strict=True))
        options = {
            "kind": "max" if most else "mean", "kernel": kernel, "stride": kernel,
            "padding": (0, 0), "dilation": (1, 1), "padding_counts": True, "divisor": 0,
        }  # fmt: skip
        return Node("pool", (value,), record.outputs[0], {}, options)
    if most:
        raise NotCovered(f"from {shape[1:]} to {size}")
    rows, columns = (averages(n, m) for n, m in zip(shape[1:], size, strict=True))
    return _resampled(record, value, rows, columns)


def _over_maps(kind: str) -> Callable[[_Reader, Record], Node]:
    def read(r: _Reader, record: Record) -> Node:
        shape = record.shapes.inputs[0]
        axes = record.options.get("axes")
        axes = axes if isinstance(axes, (tuple, list)) else (axes,)
        if (
            shape is None
            or len(shape) != 4
            or sorted(a % 4 for a in axes if a is not None) != [2, 3]
        ):
            raise NotCovered("over other axes than rows and columns")
        if record.options.get("sign", 1) != 1 or record.options.get("dtype") is not None:
            raise NotCovered("of another kind")
        return Node("whole", (r.data(record),), record.outputs[0], {}, {"kind": kind})

    return read


# ---- moving


def _reshape(r: _Reader, record: Record) -> None:
    """The same value; who minds its shape asks for a view (`data`). A parameter stays one."""
    number = record.inputs[0]
    if number in r.names or number in r.views:
        r.views[record.outputs[0]] = r.views.get(number, number)
        return
    value = r.data(record)
    inside, outside = record.shapes.inputs[0], record.shapes.outputs[0]
    if inside is None or outside[0] != inside[0] or len(outside) not in (2, 3, 4):
        raise NotCovered(f"from {inside} to {outside}")
    r.alias[record.outputs[0]] = value


def _copy(r: _Reader, record: Record) -> None:
    """The same numbers in another place. A parameter stays one."""
    number, o = record.inputs[0], record.options
    if o.get("dtype") not in (None, torch.float32) or str(o.get("device") or "cpu") != "cpu":
        raise NotCovered(f"to {o.get('dtype') or o.get('device')}")
    if number in r.names or number in r.views:
        r.views[record.outputs[0]] = r.views.get(number, number)
    else:
        r.alias[record.outputs[0]] = r.data(record)


def _two_dimensional(record: Record) -> None:
    if len(record.shapes.inputs[0] or ()) != 4:
        raise NotCovered(f"of shape {record.shapes.inputs[0]}")


def _concat(r: _Reader, record: Record) -> Node:
    if record.options["axis"] not in (1, -3):
        raise NotCovered("along another axis than the channels")
    inputs = tuple(r.data(record, place) for place in range(len(record.inputs)))
    return Node("concat", inputs, record.outputs[0])


def _slice(r: _Reader, record: Record) -> Node | None:
    """Some of the channels, rows or columns, or every second, as ResNet's option A takes them."""
    o, value = record.options, r.data(record)
    shape = record.shapes.inputs[0]
    axis = o["axis"] % len(shape) if shape is not None and len(shape) in (2, 4) else -1
    if axis < 1 or not o.get("keep", True):
        raise NotCovered("of the batch, or of one place alone")
    if shape is not None and o["length"] == shape[axis] and o["step"] == 1:
        r.alias[record.outputs[0]] = value
        return None
    start, step = [0, 0, 0], [1, 1, 1]
    start[axis - 1], step[axis - 1] = o["start"], o["step"]
    return _thin(record, value, tuple(start), tuple(step), (0, 0, 0))


def _thin(record: Record, value: int, start: Any, step: Any, into: Any) -> Node:
    options = {"start": start, "step": step, "into": into}
    return Node("thin", (value,), record.outputs[0], {}, options)


def _pad(r: _Reader, record: Record) -> Node | None:
    """Zeros around rows, columns and channels; negative sides take away; or the map continued."""
    sides, mode = tuple(record.options["sides"]), record.options["mode"]
    if not any(sides):
        r.alias[record.outputs[0]] = r.data(record)
        return None
    _two_dimensional(record)
    if len(sides) > 6:
        raise NotCovered("of the batch")
    if mode != "constant":
        return _continued(r, record, sides, mode)
    if record.options["value"]:
        raise NotCovered("with numbers other than 0")
    before = [*sides[::2], 0, 0, 0][2::-1]  # channels, rows, columns
    start = tuple(max(-n, 0) for n in before)
    return _thin(record, r.data(record), start, (1, 1, 1), tuple(max(n, 0) for n in before))


def _continued(r: _Reader, record: Record, sides: tuple[int, ...], mode: str) -> Node:
    """Padding by the map's own rows and columns: every entry written is one that is read."""
    value = r.data(record)

    def matrix(n: int, around: tuple[int, ...]) -> Tensor:
        places = torch.arange(n, dtype=torch.float64).view(1, 1, n)
        return torch.eye(n)[torch.nn.functional.pad(places, around, mode).long().view(-1)]

    _, height, width = r.shapes[value]
    rows, columns = matrix(height, sides[2:4]), matrix(width, sides[:2])
    return _resampled(record, value, rows, columns)


def _upsample(r: _Reader, record: Record) -> Node:
    value, o = r.data(record), record.options
    _two_dimensional(record)
    ins, outs = r.shapes[value][1:], tuple(o["size"])
    scales, kind = o["scales"] or (None, None), o["kind"]
    factor = tuple(m / n for n, m in zip(ins, outs, strict=True))
    asked = tuple(scale or own for scale, own in zip(scales, factor, strict=True))
    if kind == "nearest" and asked == factor and all(own == int(own) for own in factor):
        factor = tuple(int(own) for own in factor)
        return Node("upsample", (value,), record.outputs[0], {}, {"factor": factor})

    def matrix(axis: int) -> Tensor:
        n, m, scale = ins[axis], outs[axis], scales[axis]
        if kind in ("linear", "cubic"):
            return {"linear": linear, "cubic": cubic}[kind](n, m, scale, o["corners"])
        return nearest(n, m, scale, kind == "nearest-exact")

    return _resampled(record, value, matrix(0), matrix(1))


def _resampled(record: Record, value: int, rows: Tensor, columns: Tensor) -> Node:
    options = {
        "mixes": (spans(rows), spans(columns)), "turned": (spans(rows.mT), spans(columns.mT)),
    }  # fmt: skip
    return Node("resample", (value,), record.outputs[0], {}, options)


# ---- scaling


def _response(r: _Reader, record: Record) -> Node:
    return Node("response", (r.data(record),), record.outputs[0], {}, dict(record.options))


BROADCASTS = {"add": "add", "subtract": "sub", "multiply": "mul"}


def broadcast(r: _Reader, record: Record, verb: str) -> Node:
    """Two maps of which one is spread over the other, or a map and a parameter."""
    first, second = (r.parameter(record, place) for place in (0, 1))
    if first and second:
        raise NotCovered("of two parameters")
    if first or second:
        place = 1 if first else 0
        options = {"verb": "rsub" if verb == "sub" and first else verb}
        return _scaled(r, record, place, options)
    a, b = r.data(record, 0), r.data(record, 1)
    if len(record.shapes.inputs[0] or ()) != len(record.shapes.inputs[1] or ()):
        raise NotCovered(f"of maps of different shape, {r.shapes[a]} and {r.shapes[b]}")
    if _spreads(r.shapes[b], r.shapes[a]):
        return Node("broadcast", (a, b), record.outputs[0], {}, {"verb": verb})
    if _spreads(r.shapes[a], r.shapes[b]):
        verb = "rsub" if verb == "sub" else verb
        return Node("broadcast", (b, a), record.outputs[0], {}, {"verb": verb})
    raise NotCovered(f"of maps of different shape, {r.shapes[a]} and {r.shapes[b]}")


def _spreads(g: Shape, x: Shape) -> bool:
    return g in ((x[0], 1, 1), (1, x[1], x[2]), (1, 1, 1))


def _scaled(r: _Reader, record: Record, place: int, options: dict[str, Any]) -> Node:
    """A map and a parameter that has one number, or one a channel."""
    other = 1 - place
    x, w = record.shapes.inputs[place], record.shapes.inputs[other]
    if x is None or w is None:
        raise NotCovered("with a number where a map is wanted")
    aligned = (*[1] * (len(x) - len(w)), *w)
    channels = len(x) > 1 and aligned == (1, x[1], *[1] * (len(x) - 2))
    if len(aligned) != len(x) or not (channels or set(aligned) == {1}):
        raise NotCovered(f"with a parameter of shape {w}")
    weights = {"weight": str(r.parameter(record, other))}
    return Node("broadcast", (r.data(record, place),), record.outputs[0], weights, options)


def _prelu(r: _Reader, record: Record) -> Node:
    if not r.parameter(record, 1):
        raise NotCovered("with a slope that is itself computed")
    return _scaled(r, record, 0, {"verb": "prelu"})


MAPS: dict[str, Callable[[_Reader, Record], Node | None]] = {
    "max_pool": _pool,
    "average_pool": _pool,
    "adaptive_average_pool": _adaptive,
    "adaptive_max_pool": _adaptive,
    "mean": _over_maps("mean"),
    "sum": _over_maps("sum"),
    "extreme": _over_maps("max"),
    "reshape": _reshape,
    "copy": _copy,
    "concat": _concat,
    "slice": _slice,
    "pad": _pad,
    "upsample": _upsample,
    "local_response_norm": _response,
    "prelu": _prelu,
}
