"""What stands out in a model's costs, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hubel.probe.costs import Costs, LayerCost

MUCH = 0.2  # a layer with this share of a sum is named
NAMED = 3  # of the layers that run again or never, so many are named


def remarks(
    found: Costs, image: Sequence[int], tied: Sequence[tuple[str, str]] = ()
) -> Iterator[str]:
    """The heaviest layers, fields too small, parameters shared, layers that never ran.

    Args:
        image: (H, W) in pixels; () for what has no places.
        tied: pairs of names that stand for one parameter.
    """
    rows = found.layers
    yield from _heaviest(rows)
    yield from _sight(found, tuple(image))
    for row in [row for row in rows if row.uses > 1 and row.parameters][:NAMED]:
        times = f"{row.uses} times"
        yield f"{row.layer} ran {times}: its parameters count once, its multiply-adds {times}"
    for path, first in tied[:NAMED]:
        yield f"{path} is {first}: it counts once"
    idle = [row.layer for row in rows if not row.uses]
    if idle:
        more = f" and {len(idle) - NAMED} more" if len(idle) > NAMED else ""
        yield f"{', '.join(idle[:NAMED])}{more} never ran; the sums hold their parameters"


def _heaviest(rows: Sequence[LayerCost]) -> Iterator[str]:
    """ "fc1 holds 94 % of the parameters; conv2 does 61 % of the multiply-adds"."""
    holder, holds = _first({row.layer: row.parameters for row in rows}, "holds", "parameters")
    worker, does = _first({row.layer: row.macs for row in rows}, "does", "multiply-adds")
    if holder and holder == worker:
        yield f"{holder} {holds} and {does}"
    elif holder or worker:
        yield "; ".join(f"{who} {what}" for who, what in ((holder, holds), (worker, does)) if who)


def _first(amounts: dict[str, int], verb: str, what: str) -> tuple[str, str]:
    """The layer and its share in words; "" where no layer stands out, or one has all."""
    layer = max(amounts, key=amounts.__getitem__, default="")
    total = sum(amounts.values())
    if not layer or amounts[layer] == total or amounts[layer] < MUCH * total:
        return "", ""
    return layer, f"{verb} {100 * amounts[layer] / total:.0f} % of the {what}"


def _sight(found: Costs, image: tuple[int, ...]) -> Iterator[str]:
    if found.pooled is not None and not found.pooled.covers(image):
        yield (
            f"a place of the last map sees {found.pooled} of the {by(image)} pixels: only the "
            "global pooling brings the parts of an image together"
        )
    if image and found.layers and not any(row.field for row in found.layers):
        yield "the receptive fields are not known: the engine cannot follow this model"


def by(sides: Sequence[int]) -> str:
    """(3, 32, 32) -> "3x32x32"."""
    return "x".join(map(str, sides))
