"""Matrices in registers, Intel's AMX: eight, of 16 rows of 64 bytes, and what multiplies two.

    sums (m x 16 float32)  +=  left (m x 2 k bfloat16)  times  right (k x 16 pairs of bfloat16)

With an image to a lane, a vector of pairs of channels is a row on the right as it stands, and the
sums of 16 channels at one pixel are 16 vectors: of 16 images, or of 8 in half rows. A processor
that has these multiplies ten times as much a second with them as with vectors of float32; its
`vdpbf16ps` is no faster than float32.
"""

from __future__ import annotations

from collections.abc import Sequence

from hubel.engine.native.emit import I32, Function, Number, Value, lanes_of, vector

SIDE = 16  # rows of a matrix, and float32 numbers or pairs in a row, at most
ROW = 64  # bytes of a row
ALL = 8  # matrices


class Matrices:
    """Writes the instructions, for sums of `tall` rows and factors that are `deep` pairs deep; rows
    of the sums and on the right have `row` bytes.

    The first registers hold sums, the next one the left factor; right ones take turns in the rest.
    """

    def __init__(self, f: Function, tall: int, deep: int, sums: int, row: int = ROW) -> None:
        self.f, self.sums, self.row, self._right = f, sums, row, sums
        shapes = [(tall, row)] * sums + [(tall, 4 * deep)] + [(deep, row)] * (ALL - 1 - sums)
        name = f"@matrices_{tall}_{deep}_{sums}_{row}"
        f.needs.add(f'{name} = private constant [64 x i8] c"{_palette(shapes)}", align 64')
        self._do("ldtilecfg", f"ptr {name}", "ptr")

    def clear(self, number: int) -> None:
        """Zeros in sums."""
        self._do("tilezero", f"i8 {number}", "i8 immarg")

    def fetch(self, number: int, place: Value) -> None:
        """Sums from where they stand row after row."""
        self._load(number, place, self.row)

    def put(self, number: int, place: Value) -> None:
        """Sums to where they will stand row after row."""
        given = f"i8 {number}, ptr {place.name}, i64 {self.row}"
        self._do("tilestored64", given, "i8 immarg, ptr, i64")

    def left(self, place: Value, apart: int) -> None:
        """The left factor, its rows so many bytes from each other."""
        self._load(self.sums, place, apart)

    def add(self, number: int, place: Value) -> None:
        """Sums += the left factor times the one on the right that stands there, row after row."""
        self._right = self._right + 1 if self._right < ALL - 1 else self.sums + 1
        self._load(self._right, place, self.row)
        given = f"i8 {number}, i8 {self.sums}, i8 {self._right}"
        self._do("tdpbf16ps", given, "i8 immarg, i8 immarg, i8 immarg")

    def leave(self) -> None:
        """At the end: what stands in them need not be kept when threads change."""
        self._do("tilerelease", "", "")

    def _load(self, number: int, place: Value, apart: int) -> None:
        given = f"i8 {number}, ptr {place.name}, i64 {apart}"
        self._do("tileloadd64", given, "i8 immarg, ptr, i64")

    def _do(self, word: str, given: str, kinds: str) -> None:
        self.f.needs.add(f"declare void @llvm.x86.{word}({kinds})")
        self.f.do(f"call void @llvm.x86.{word}({given})")


def _palette(shapes: Sequence[tuple[int, int]]) -> str:
    """The 64 bytes that say how many rows, of how many bytes, each matrix has."""
    told = bytearray(64)
    told[0] = 1
    for number, (rows, size) in enumerate(shapes):
        told[16 + 2 * number : 18 + 2 * number] = size.to_bytes(2, "little")
        told[48 + number] = rows
    return "".join(f"\\{byte:02X}" for byte in told)


def evenly(total: int, most: int = SIDE) -> tuple[int, int]:
    """(how many parts, how large each): as few as there can be, as equal as there can be."""
    parts = -(-total // most)
    return parts, -(-total // parts)


def zeros(f: Function, place: Value, count: Number) -> None:
    """So many vectors of zeros."""
    with f.loop(0, count) as k:
        f.store(f.constant(0.0), place.at(k * (4 * f.lanes)))


def narrow(f: Function, value: Value) -> Value:
    """A vector of floats as bfloat16, two to a word."""
    half = f.convert("fptrunc", value, vector("bfloat", f.lanes))
    return f.convert("bitcast", half, vector(I32, f.lanes // 2))


def turned(f: Function, columns: Sequence[Value]) -> list[Value]:
    """16 vectors of n words, 8 or 4, as n vectors of 16: out[t][k] = columns[k][t]."""
    n = lanes_of(columns[0].kind)
    rows = [_joined(f, columns[k::n]) for k in range(n)]
    for reach in (r for r in (1, 2, 4) if r < n):  # words change places with those so far away
        for k in (k for k in range(n) if not k & reach):
            low, high = rows[k], rows[k + reach]
            first = [SIDE + w - reach if w & reach else w for w in range(SIDE)]
            second = [SIDE + w if w & reach else w + reach for w in range(SIDE)]
            rows[k], rows[k + reach] = f.shuffle(low, high, first), f.shuffle(low, high, second)
    return rows


def _joined(f: Function, vectors: Sequence[Value]) -> Value:
    """Vectors one after the other, in one."""
    while len(vectors) > 1:
        size = 2 * lanes_of(vectors[0].kind)
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [f.shuffle(a, b, range(size)) for a, b in pairs]
    return vectors[0]
