"""What an operator is: the contract that every file in this folder keeps.

An operator is a class that is never instantiated; its functions are static, plain mathematics on
tensors. `forward` hands back what `backward` needs, so nothing hides in between:

    forward(x, w, b, *, stride, ...) -> (y, saved)
    backward(dy, saved)              -> (dx, dw, db)      in the order of forward's tensors

Letters: N batch, C channels in, O channels out, H W size in, K kernel, S stride, P padding,
D dilation, G groups; Ho, Wo size out; L positions of a window; T time; `dx` is d(loss)/dx.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from html import escape
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

Shape = tuple[int, ...]
Output = Tensor | tuple[Tensor, ...]
Saved = tuple[Any, ...]
Grads = tuple[Tensor | None, ...]
Adapted = tuple[Sequence[Any], dict[str, Any]]  # forward's positional arguments, its options
SINGLE: Literal["single"] = "single"  # of an adapter: one image came, give it its batch axis first
Adapt = Callable[..., Adapted | Literal["single"] | None]


class Window(NamedTuple):
    """Along one axis: output o reads the inputs o * step + low .. o * step + high."""

    step: Fraction
    low: Fraction
    high: Fraction


SHOWN = 30  # products of an explanation that are printed
SAME = Window(Fraction(1), Fraction(0), Fraction(0))  # element by element


class Shapes(NamedTuple):
    """Shapes of one call: per tensor argument (None where there is none), per output."""

    inputs: tuple[Shape | None, ...]
    outputs: tuple[Shape, ...]


@dataclass(frozen=True)
class Term:
    """One product of a sum: `value * weight`, where `value` stood at `place` of the input."""

    place: tuple[int, ...]
    value: float
    weight: float


@dataclass(frozen=True)
class Explanation:
    """One number of an output, written out: `terms` add up (with `rest`) to `result`."""

    sentence: str
    terms: tuple[Term, ...] = ()
    rest: tuple[tuple[str, float], ...] = ()  # ("bias", 0.3)
    result: float = 0.0

    @property
    def total(self) -> float:
        """The terms and the rest, added up."""
        return sum(t.value * t.weight for t in self.terms) + sum(v for _, v in self.rest)

    def __str__(self) -> str:
        """The sentence, the products (the largest first where they are many), and their sum."""
        terms = sorted(self.terms, key=lambda t: -abs(t.value * t.weight))
        shown = self.terms if len(terms) <= SHOWN else terms[: SHOWN - 1]
        lines = [self.sentence]
        lines += [
            f"  {t.value:>12.6g} * {t.weight:>12.6g} = {t.value * t.weight:>12.6g}   at {t.place}"
            for t in shown
        ]
        if len(shown) < len(terms):
            others = sum(t.value * t.weight for t in terms[len(shown) :])
            lines.append(f"  {len(terms) - len(shown)} smaller products: {others:>18.6g}")
        lines += [f"  {name}: {value:.6g}" for name, value in self.rest]
        return "\n".join([*lines, f"  together: {self.result:.6g}"])

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


@dataclass(frozen=True)
class Case:
    """One call worth checking: forward's positional arguments and options, made from a seed.

    `make(rand)` gets a function (shape...) -> float64 tensor of standard normal numbers.
    A bad case names in `error` what the refusal says.
    """

    name: str
    make: Callable[[Callable[..., Tensor]], Sequence[Any]]
    options: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


class Op:
    """One operator. Subclasses set the class attributes and the static functions."""

    name: ClassVar[str] = ""
    family: ClassVar[str] = ""  # the file's name: set by `register`
    tensors: ClassVar[tuple[str, ...]] = ("x",)  # "*xs" as the last: any number of them
    spellings: ClassVar[dict[str, Adapt | None]] = {}  # ATen overload -> adapt; None: as it comes
    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""
    view: ClassVar[bool] = False  # the output may share memory with the first input
    linear_in: ClassVar[tuple[str, ...]] = ()  # y is a linear map of each of these (bias aside)
    fixed: ClassVar[tuple[str, ...]] = ()  # tensors that are never differentiated (masks, boxes)
    slopes: ClassVar[bool] = True  # False: outputs are not differentiable (comparisons)

    @staticmethod
    def forward(*tensors: Any, **options: Any) -> tuple[Output, Saved]:
        """The readable mathematics: output and what `backward` needs."""
        raise NotImplementedError

    @staticmethod
    def backward(dy: Any, saved: Saved) -> Grads:
        """Gradients, one per positional argument of `forward` (None where there is none).

        `dy` has the form of the output: a tuple (None where nothing came in) if that is one.
        """
        raise NotImplementedError

    @classmethod
    def fast_forward(cls, *tensors: Any, **options: Any) -> tuple[Output, Saved]:
        """The same by torch's own kernel; pairs with `fast_backward` alone."""
        return cls.forward(*tensors, **options)

    @classmethod
    def fast_backward(cls, dy: Any, saved: Saved, needs: tuple[bool, ...]) -> Grads:
        """`backward` by torch's kernel. What `needs` does not ask for may come as None."""
        return cls.backward(dy, saved)

    @classmethod
    def commit(cls, tensors: Sequence[Any], options: dict[str, Any], saved: Saved) -> None:
        """What the call changes beside its output: batch norm's running statistics."""

    @classmethod
    def macs(cls, shapes: Shapes, **options: Any) -> int:
        """Multiply-adds of one forward call."""
        return 0

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> tuple[Window, ...] | None:
        """One window per spatial axis; one for all axes: `(SAME,)`; None: it reads everything."""
        return (SAME,)

    @classmethod
    def matrix(cls, tensors: Sequence[Any], options: dict[str, Any], argument: str) -> Tensor:
        """The map from one image's `argument` to one image's output as a sparse matrix.

        Returns a sparse COO tensor (outputs, inputs) where the map is linear in `argument`.
        The default asks `backward` once per output; operators that know better override it.
        """
        raise NotImplementedError

    @classmethod
    def explain(
        cls, tensors: Sequence[Any], options: dict[str, Any], output: Tensor, place: tuple[int, ...]
    ) -> Explanation | None:
        """Output element `place` written out; None where the general account must do."""
        return None

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Good and bad calls; every suite runs over them."""
        yield from ()


OPS: dict[str, type[Op]] = {}  # by name
SPELLINGS: dict[str, tuple[type[Op], Adapt | None]] = {}  # "aten.conv2d.default" -> rule


def register(op: type[Op]) -> type[Op]:
    """Class decorator: the operator is known by its name and serves its spellings."""
    if op.name in OPS:
        raise ValueError(f"two operators are called {op.name!r}: {OPS[op.name]} and {op}")
    op.family = op.__module__.rsplit(".", 1)[-1]
    OPS[op.name] = op
    for spelling, adapt in op.spellings.items():
        full = spelling if spelling.startswith("functional.") else f"aten.{spelling}"
        if full in SPELLINGS:
            raise ValueError(f"{full} is served by {SPELLINGS[full][0].name} and by {op.name}")
        SPELLINGS[full] = (op, adapt)
    return op


def unbroadcast(gradient: Tensor, shape: Shape) -> Tensor:
    """Adjoint of broadcasting: `gradient` summed over repeated axes, to (shape)."""
    return gradient if gradient.shape == shape else gradient.sum_to_size(shape)


def tuple_of(value: Any, n: int) -> tuple[int, ...]:
    """`value` as n numbers, the way torch's layers take them: 3, (3,) and (3, 3) are the same."""
    if isinstance(value, int):
        return (value,) * n
    numbers = tuple(int(v) for v in value)
    return numbers * n if len(numbers) == 1 else numbers


def one_hot(index: Tensor, n: int, like: Tensor) -> Tensor:
    """Rows with a single 1: (..., n) in the dtype of `like`."""
    return torch.nn.functional.one_hot(index, n).to(like.dtype)
