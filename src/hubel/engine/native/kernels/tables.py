"""Tables of constants beside the machine code: what differs from place to place, looked up."""

from __future__ import annotations

from collections.abc import Sequence

from hubel.engine.native.emit import Function, Value, literal


def table(f: Function, kind: str, numbers: Sequence[float]) -> Value:
    """The address of an array of constants of this type (i64, float) that the function reads."""
    name = f"@{f.name}_table{len(f.needs)}"
    words = ", ".join(f"{kind} {literal(kind, number)}" for number in numbers)
    f.needs.add(f"{name} = internal constant [{len(numbers)} x {kind}] [{words}], align 64")
    return Value(f, "ptr", name)
