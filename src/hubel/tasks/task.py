"""What every task is to those who train, judge and keep: `Task`, and the sums it reads, `Tally`."""

from __future__ import annotations

from typing import Any, Protocol, Self

from torch import Tensor


class Tally(Protocol):
    """Sums over images from which scores are read; those of any cut into batches add up."""

    @property
    def count(self) -> int:
        """How many answers were judged."""

    def __add__(self, other: Self) -> Self: ...

    def to_tensor(self) -> Tensor:
        """All of it as one float64 vector, to be summed over processes."""


class Task(Protocol):
    """What a net's answers mean. The formulas stand in `classify.py` and its neighbours."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of the net's answers."""

    @property
    def kind(self) -> str:
        """ "classify" or "segment"."""

    @property
    def headline(self) -> str:
        """The score by which one net is better than another; higher is better."""

    @property
    def running(self) -> str:
        """The score that `hits` over `counted` is, told while training runs."""

    def loss(self, outputs: Any, targets: Tensor) -> dict[str, Tensor]:
        """The terms that training adds up, by name."""

    def total(self, outputs: Any, targets: Tensor) -> Tensor:
        """Their sum."""

    def decode(self, outputs: Any) -> Tensor:
        """Probabilities."""

    def hits(self, outputs: Any, targets: Tensor) -> Tensor:
        """How many answers are right: int64 scalar on the outputs' device."""

    def counted(self, targets: Tensor) -> Tensor | int:
        """How many answers there are to be right."""

    def mass(self, targets: Tensor) -> Tensor | float:
        """What the loss is a mean over: losses of pieces weighted by theirs add up to the whole's.
        0 where there is nothing to learn."""

    def empty(self) -> Any:
        """The tally of nothing."""

    def tally(self, outputs: Any, targets: Tensor) -> Any:
        """The sums of one batch."""

    def untold(self, flat: Tensor) -> Any:
        """The way back from a tally's `to_tensor`."""

    def scores(self, tally: Any) -> dict[str, float]:
        """What a tally says, by name."""
