"""A pen for LLVM's language: loops, vectors and arithmetic written as Python.

    f = Function("double", [("x", PTR), ("rows", I64)], lanes=16)
    with f.loop(0, f.arg("rows")) as row:
        place = f.arg("x").at(row * 64)
        f.store(f.load(place) * 2.0, place)
    text = f.text()

A `Value` knows its type and its name; `+`, `*` and their kin write one instruction each, on whole
numbers, floats and vectors alike. Whole numbers that Python knows stay Python's: they are written
into addresses as they are. Registers that live through loops stand in a `Registers` list.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from hubel.engine.native.value import (
    F32,
    F64,
    FLOATS,
    I1,
    I8,
    I16,
    I32,
    I64,
    PTR,
    Number,
    Registers,
    Value,
    lanes_of,
    literal,
    scalar_of,
    vector,
)

__all__ = [
    "EVERY", "F32", "F64", "FLOATS", "I1", "I8", "I16", "I32", "I64", "PTR", "Function", "Number",
    "Registers", "Some", "Value", "first_of", "lanes_of", "literal", "scalar_of", "vector",
]  # fmt: skip

Some = tuple[bool, ...]  # which parts of a vector are there
EVERY: Some = (True,)


def first_of(lanes: int, count: int) -> Some:
    """The first `count` lanes."""
    return tuple(lane < count for lane in range(lanes))


class Function:
    """One function of the machine's, being written.

    Args:
        name: its symbol.
        arguments: (name, type) of each. What is read element by element may be written over.
        lanes: floats in a vector.
        gives: the type returned.
        internal: whether only its own module calls it.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[tuple[str, str]],
        lanes: int,
        gives: str = "void",
        internal: bool = True,
    ) -> None:
        self.name, self.arguments, self.lanes, self.gives = name, arguments, lanes, gives
        self.internal = internal
        self.vec = vector(F32, lanes)
        self.needs: set[str] = set()  # declarations of LLVM's own functions
        self._lines: list[str] = []
        self._count = 0
        self._block = "entry"

    # ---- values

    def arg(self, name: str) -> Value:
        return Value(self, dict(self.arguments)[name], f"%{name}")

    def make(self, kind: str, words: str) -> Value:
        """Write one instruction that gives a value."""
        self._count += 1
        name = f"%v{self._count}"
        self._lines.append(f"  {name} = {words}")
        return Value(self, kind, name)

    def do(self, words: str) -> None:
        """Write one instruction that gives none."""
        self._lines.append(f"  {words}")

    def constant(self, number: float, kind: str | None = None) -> Value:
        """A constant; a vector of floats unless another type is named."""
        kind = kind or self.vec
        return Value(self, kind, literal(kind, number))

    def as_value(self, number: Number, kind: str) -> Value:
        return number if isinstance(number, Value) else self.constant(number, kind)

    def binary(self, verb: str, a: Value, b: Number) -> Value:
        b = self.as_value(b, a.kind)
        if lanes_of(a.kind) != lanes_of(b.kind):
            a, b = self._alike(a, b)
        if a.floats:
            return self.make(a.kind, f"f{verb} {a.kind} {a.name}, {b.name}")
        word = verb if verb not in ("add", "sub", "mul") else f"{verb} nsw"
        return self.make(a.kind, f"{word} {a.kind} {a.name}, {b.name}")

    def _alike(self, a: Value, b: Value) -> tuple[Value, Value]:
        if lanes_of(a.kind) == 1:
            return self.spread(a, lanes_of(b.kind)), b
        return a, self.spread(b, lanes_of(a.kind))

    def compare(self, how: str, a: Value, b: Number) -> Value:
        """lt, gt, le, ge, eq: false where a float is NaN; uno: true there; signed whole numbers."""
        b = self.as_value(b, a.kind)
        kind = vector(I1, lanes_of(a.kind)) if a.kind.startswith("<") else I1
        if a.floats:
            word = how if how == "uno" else f"o{how}"
            return self.make(kind, f"fcmp {word} {a.kind} {a.name}, {b.name}")
        word = how if how == "eq" else f"s{how}"
        return self.make(kind, f"icmp {word} {a.kind} {a.name}, {b.name}")

    def select(self, mask: Value, yes: Number, no: Number) -> Value:
        kind = next(v.kind for v in (yes, no) if isinstance(v, Value))
        y, n = self.as_value(yes, kind), self.as_value(no, kind)
        return self.make(kind, f"select {mask.kind} {mask.name}, {kind} {y.name}, {kind} {n.name}")

    def smaller(self, a: Number, b: Number) -> Number:
        """Of two whole numbers."""
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        a, b = self.as_value(a, I64), self.as_value(b, I64)
        return self.select(a < b, a, b)

    def larger(self, a: Number, b: Number) -> Number:
        """Of two whole numbers."""
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        a, b = self.as_value(a, I64), self.as_value(b, I64)
        return self.select(a > b, a, b)

    def convert(self, verb: str, a: Value, kind: str) -> Value:
        """LLVM's casts: trunc, zext, sext, fptrunc, fpext, sitofp, fptosi, bitcast."""
        return self.make(kind, f"{verb} {a.kind} {a.name} to {kind}")

    def call(self, gives: str, name: str, *given: Value) -> Value:
        """A function of LLVM's or of C's, declared on the way."""
        self.needs.add(f"declare {gives} @{name}({', '.join(v.kind for v in given)})")
        words = ", ".join(f"{v.kind} {v.name}" for v in given)
        return self.make(gives, f"call {gives} @{name}({words})")

    def run(self, name: str, *given: Value) -> None:
        """Call a function of this module that gives nothing."""
        self.do(f"call void @{name}({', '.join(f'{v.kind} {v.name}' for v in given)})")

    def _own(self, verb: str, *given: Value) -> Value:
        kind = given[0].kind
        bits = {F32: "f32", F64: "f64"}[scalar_of(kind)]
        tag = f"v{lanes_of(kind)}{bits}" if kind.startswith("<") else bits
        return self.call(kind, f"llvm.{verb}.{tag}", *given)

    def fma(self, a: Value, b: Number, c: Value) -> Value:
        """a b + c, rounded once."""
        b = self.as_value(b, c.kind)
        a = self.spread(a, lanes_of(c.kind)) if lanes_of(a.kind) < lanes_of(c.kind) else a
        b = self.spread(b, lanes_of(c.kind)) if lanes_of(b.kind) < lanes_of(c.kind) else b
        return self._own("fma", a, b, c)

    def dot2(self, a: Value, b: Value, c: Value) -> Value:
        """a0 b0 + a1 b1 + c of pairs of bfloat16, each pair in an i32 lane: `vdpbf16ps`."""
        pairs, bits = vector("bfloat", 2 * self.lanes), 32 * self.lanes
        a, b = (self.convert("bitcast", v, pairs) for v in (a, b))
        return self.call(c.kind, f"llvm.x86.avx512bf16.dpbf16ps.{bits}", c, a, b)

    def root(self, a: Value) -> Value:
        return self._own("sqrt", a)

    def nearest(self, a: Value) -> Value:
        return self._own("rint", a)

    def size_of(self, a: Value) -> Value:
        return self._own("fabs", a)

    # ---- vectors

    def spread(self, a: Value, lanes: int | None = None) -> Value:
        """A scalar in every lane."""
        lanes = lanes or self.lanes
        kind = vector(a.kind, lanes)
        one = self.make(kind, f"insertelement {kind} poison, {a.kind} {a.name}, i64 0")
        where = vector(I32, lanes)
        return self.make(
            kind, f"shufflevector {kind} {one.name}, {kind} poison, {where} zeroinitializer"
        )

    def shuffle(self, a: Value, b: Value, picks: Sequence[int]) -> Value:
        """Lanes of a and, counted on, of b."""
        kind = vector(scalar_of(a.kind), len(picks))
        where = ", ".join(f"i32 {p}" for p in picks)
        return self.make(
            kind,
            f"shufflevector {a.kind} {a.name}, {b.kind} {b.name}, <{len(picks)} x i32> <{where}>",
        )

    def lane(self, a: Value, place: int) -> Value:
        return self.make(scalar_of(a.kind), f"extractelement {a.kind} {a.name}, i64 {place}")

    def lane_sum(self, a: Value) -> Value:
        """The sum over the lanes, pairwise: the same order on every machine."""
        lanes = lanes_of(a.kind)
        while lanes > 1:
            lanes //= 2
            low = self.shuffle(a, a, range(lanes))
            a = low + self.shuffle(a, a, range(lanes, 2 * lanes))
        return self.lane(a, 0)

    def lane_sums(self, rows: list[Value]) -> Value:
        """`lane_sum` of as many vectors as they have lanes, each in its own lane."""
        lanes = half = lanes_of(rows[0].kind)
        while half > 1:
            half //= 2
            low = [lane for lane in range(2 * lanes) if lane % (2 * half) < half]
            high = [lane + half for lane in low]
            rows = [
                self.shuffle(a, b, low) + self.shuffle(a, b, high)
                for a, b in zip(rows[::2], rows[1::2], strict=True)
            ]
        return rows[0]

    def iota(self) -> Value:
        """0, 1, 2, ... as i32."""
        numbers = ", ".join(f"i32 {i}" for i in range(self.lanes))
        return Value(self, vector(I32, self.lanes), f"<{numbers}>")

    def first(self, count: Value) -> Value:
        """The mask of the first `count` lanes (an i64 of any size)."""
        top = self.smaller(self.larger(count, 0), self.lanes)
        narrow = self.convert("trunc", self.as_value(top, I64), I32)
        return self.iota() < self.spread(narrow)

    def mask(self, there: Some, lanes: int) -> Value:
        """A mask that is known now. Each of `there` stands for as many lanes side by side."""
        bits = [one for one in there for _ in range(lanes // len(there))]
        words = ", ".join(f"i1 {'true' if one else 'false'}" for one in bits)
        return Value(self, vector(I1, lanes), f"<{words}>")

    def repeated(self, a: Value, times: int) -> Value:
        """A vector's lanes, so many times over."""
        return self.shuffle(a, a, [*range(lanes_of(a.kind))] * times) if times > 1 else a

    def pieces(self, a: Value, count: int) -> list[Value]:
        """A vector cut into so many shorter ones."""
        lanes = lanes_of(a.kind) // count
        if count == 1:
            return [a]
        return [self.shuffle(a, a, range(i * lanes, (i + 1) * lanes)) for i in range(count)]

    def interleaved(self, a: Value, b: Value) -> Value:
        """a0, b0, a1, b1, ..."""
        lanes = lanes_of(a.kind)
        return self.shuffle(a, b, [lane + side for lane in range(lanes) for side in (0, lanes)])

    # ---- memory

    def load(self, place: Value, kind: str | None = None, align: int = 4) -> Value:
        kind = kind or self.vec
        return self.make(kind, f"load {kind}, ptr {place.name}, align {align}")

    def store(self, value: Value, place: Value, align: int = 4) -> None:
        self.do(f"store {value.kind} {value.name}, ptr {place.name}, align {align}")

    def load_some(self, place: Value, mask: Value, rest: float = 0.0) -> Value:
        """A vector of which only the masked lanes are read."""
        lanes = lanes_of(mask.kind)
        kind, name = vector(F32, lanes), f"llvm.masked.load.v{lanes}f32.p0"
        self.needs.add(f"declare {kind} @{name}(ptr, {mask.kind}, {kind})")
        others = literal(kind, rest)
        words = f"ptr align 4 {place.name}, {mask.kind} {mask.name}, {kind} {others}"
        return self.make(kind, f"call {kind} @{name}({words})")

    def store_some(self, value: Value, place: Value, mask: Value) -> None:
        name = f"llvm.masked.store.v{lanes_of(mask.kind)}f32.p0"
        self.needs.add(f"declare void @{name}({value.kind}, ptr, {mask.kind})")
        self.do(
            f"call void @{name}({value.kind} {value.name}, ptr align 4 {place.name}, "
            f"{mask.kind} {mask.name})"
        )

    def load_there(self, place: Value, there: Some, kind: str | None = None) -> Value:
        """A vector, zeros where nothing is there: see `mask`."""
        kind = kind or self.vec
        if all(there):
            return self.load(place, kind)
        return self.load_some(place, self.mask(there, lanes_of(kind)))

    def store_there(self, value: Value, place: Value, there: Some) -> None:
        """What is there of a vector; the rest of the place stays as it is."""
        if all(there):
            self.store(value, place)
        else:
            self.store_some(value, place, self.mask(there, lanes_of(value.kind)))

    # ---- the way

    @contextlib.contextmanager
    def loop(
        self, start: Number, end: Number, step: int = 1, carry: Registers | None = None
    ) -> Iterator[Value]:
        """`for i in range(start, end, step)`; `carry` goes through it and stands after it."""
        if step < 1:
            raise ValueError(f"a loop by {step} would never end")
        self._count += 1
        head, body, done = (f"{word}{self._count}" for word in ("head", "body", "done"))
        begin, stop = self.as_value(start, I64), self.as_value(end, I64)
        before = self._block
        self.do(f"br label %{head}")
        self._open(head)
        place = len(self._lines)
        self._lines.append("")  # the phis, known at the end
        i = Value(self, I64, f"%turn{self._count}")
        entering = list(carry or ())
        if carry is not None:
            for slot, value in enumerate(entering):
                self._count += 1
                carry[slot] = Value(self, value.kind, f"%v{self._count}")
        turning = list(carry or ())
        more = i < stop
        self.do(f"br i1 {more.name}, label %{body}, label %{done}")
        self._open(body)
        yield i
        following = i + step
        came, goes = f"%{before}", f"%{self._block}"
        pairs = [(i, begin, following), *zip(turning, entering, carry or (), strict=True)]
        phis = [
            f"  {phi.name} = phi {phi.kind} [ {old.name}, {came} ], [ {new.name}, {goes} ]"
            for phi, old, new in pairs
        ]
        self._lines[place] = "\n".join(phis)
        self.do(f"br label %{head}")
        self._open(done)
        if carry is not None:
            carry[:] = turning

    @contextlib.contextmanager
    def when(self, true: Value) -> Iterator[None]:
        """`if true:`, for work that leaves no value."""
        self._count += 1
        then, after = f"then{self._count}", f"after{self._count}"
        self.do(f"br i1 {true.name}, label %{then}, label %{after}")
        self._open(then)
        yield
        self.do(f"br label %{after}")
        self._open(after)

    def _open(self, label: str) -> None:
        self._lines.append(f"{label}:")
        self._block = label

    def text(self, returns: Value | None = None) -> str:
        """The whole function."""
        given = ", ".join(f"{kind} %{name}" for name, kind in self.arguments)
        last = "ret void" if returns is None else f"ret {returns.kind} {returns.name}"
        scope = "internal " if self.internal else ""
        head = f"define {scope}{self.gives} @{self.name}({given}) #0 {{\nentry:"
        return "\n".join([head, *self._lines, f"  {last}", "}"])
