"""Types of LLVM's, and values of the functions that `emit.py` writes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from hubel.engine.native.emit import Function

I1, I8, I16, I32, I64, F32, F64, PTR = "i1", "i8", "i16", "i32", "i64", "float", "double", "ptr"
FLOATS = ("float", "double")

Number = Union["Value", int, float]


def vector(kind: str, lanes: int) -> str:
    """The type of `lanes` numbers side by side."""
    return f"<{lanes} x {kind}>"


def scalar_of(kind: str) -> str:
    """A vector's element type; a scalar's own."""
    return kind.split(" x ")[1][:-1] if kind.startswith("<") else kind


def lanes_of(kind: str) -> int:
    """How many numbers a value of this type holds."""
    return int(kind[1:].split(" x ", maxsplit=1)[0]) if kind.startswith("<") else 1


def literal(kind: str, number: float) -> str:
    """A constant as LLVM writes it; floats by their bits, as double (its rule for `float` too)."""
    element = scalar_of(kind)
    if element in FLOATS:
        rounded = number if element == F64 else struct.unpack("f", struct.pack("f", number))[0]
        word = f"0x{struct.unpack('Q', struct.pack('d', rounded))[0]:016X}"
    elif element == I1:
        word = "true" if number else "false"
    else:
        word = str(int(number))
    if not kind.startswith("<"):
        return word
    return "<" + ", ".join([f"{element} {word}"] * lanes_of(kind)) + ">"


class Value:
    """One value of the function being written."""

    __slots__ = ("f", "kind", "name")

    def __init__(self, f: Function, kind: str, name: str) -> None:
        self.f, self.kind, self.name = f, kind, name

    def __add__(self, other: Number) -> Value:
        return self if _is(other, 0) and not self.floats else self.f.binary("add", self, other)

    def __radd__(self, other: Number) -> Value:
        return self + other

    def __sub__(self, other: Number) -> Value:
        return self if _is(other, 0) and not self.floats else self.f.binary("sub", self, other)

    def __rsub__(self, other: Number) -> Value:
        return self.f.binary("sub", self.f.as_value(other, self.kind), self)

    def __mul__(self, other: Number) -> Value:
        return self if _is(other, 1) else self.f.binary("mul", self, other)

    def __rmul__(self, other: Number) -> Value:
        return self * other

    def __truediv__(self, other: Number) -> Value:
        return self.f.binary("div", self, other)

    def __rtruediv__(self, other: Number) -> Value:
        return self.f.binary("div", self.f.as_value(other, self.kind), self)

    def __floordiv__(self, other: Number) -> Value:
        """Of whole numbers at least 0."""
        return self if _is(other, 1) else self.f.binary("udiv", self, other)

    def __mod__(self, other: Number) -> Value:
        """Of whole numbers at least 0."""
        return self.f.binary("urem", self, other)

    def __and__(self, other: Number) -> Value:
        return self.f.binary("and", self, other)

    def __or__(self, other: Number) -> Value:
        return self.f.binary("or", self, other)

    def __xor__(self, other: Number) -> Value:
        return self.f.binary("xor", self, other)

    def __lt__(self, other: Number) -> Value:
        return self.f.compare("lt", self, other)

    def __gt__(self, other: Number) -> Value:
        return self.f.compare("gt", self, other)

    def __le__(self, other: Number) -> Value:
        return self.f.compare("le", self, other)

    def __ge__(self, other: Number) -> Value:
        return self.f.compare("ge", self, other)

    def equals(self, other: Number) -> Value:
        return self.f.compare("eq", self, other)

    @property
    def floats(self) -> bool:
        return scalar_of(self.kind) in FLOATS

    def at(self, offset: Value | int) -> Value:
        """The address `offset` bytes on."""
        if _is(offset, 0):
            return self
        word = offset.name if isinstance(offset, Value) else str(offset)
        return self.f.make(PTR, f"getelementptr i8, ptr {self.name}, i64 {word}")


def _is(number: Number, wanted: int) -> bool:
    return isinstance(number, int) and number == wanted


class Registers(list[Value]):
    """Values that a loop carries from one turn to the next."""
