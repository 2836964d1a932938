"""What a check found: one verdict per gradient, and all of them together."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """One gradient, judged. `error` is the worst deviation over the largest element."""

    name: str
    error: float
    fine: bool
    against: str  # "finite differences" or "autograd"
    place: tuple[int, ...] | None = None
    expected: float = math.nan
    got: float = math.nan
    cause: str = ""
    kinks: int = 0  # places without a slope: ours had to lie between left and right
    doubt: float = 0.0  # how much of the error may be the differences' own

    def __str__(self) -> str:
        kinks = f"; {self.kinks} kinks stepped round" if self.kinks else ""
        if self.fine:
            note = f" ({self.cause})" if self.cause else ""
            if self.error > 1e-6 and self.doubt:
                note += " as far as they can tell"
            return f"{self.name}: {self.error:.1e} from {self.against}, fine{note}{kinks}"
        where = f" at {self.place}" if self.place is not None else ""
        return (
            f"{self.name}: WRONG by {self.error:.1e}{where}: expected {self.expected:.6g} "
            f"({self.against}), got {self.got:.6g}; likely cause: {self.cause}{kinks}"
        )


@dataclass(frozen=True)
class Report:
    """All verdicts of one check."""

    verdicts: tuple[Verdict, ...]
    borrowed: tuple[str, ...] = ()  # operators that torch differentiated for us
    notes: tuple[str, ...] = field(default=())

    @property
    def fine(self) -> bool:
        """Whether every gradient is right."""
        return all(v.fine for v in self.verdicts)

    @property
    def worst(self) -> Verdict:
        """The verdict with the largest error; a wrong one before any that is fine."""
        return max(self.verdicts, key=lambda v: (not v.fine, v.error))

    def __bool__(self) -> bool:
        return self.fine

    def to_json(self) -> dict[str, Any]:
        """One record per verdict, numbers that are none as None."""
        verdicts = [
            {
                k: None if isinstance(v, float) and not math.isfinite(v) else v
                for k, v in asdict(one).items()
            }
            for one in self.verdicts
        ]
        return {"fine": self.fine, "verdicts": verdicts, "borrowed": list(self.borrowed)}

    def __str__(self) -> str:
        lines = [str(v) for v in self.verdicts]
        lines += [f"borrowed from autograd: {', '.join(self.borrowed)}"] if self.borrowed else []
        lines += list(self.notes)
        wrong = sum(not v.fine for v in self.verdicts)
        total = len(self.verdicts)
        lines.append(
            f"all {total} gradients are right"
            if not wrong
            else f"{wrong} of {total} gradients are WRONG"
        )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{'✓' if v.fine else '✗'}</td><td>{escape(str(v))}</td></tr>"
            for v in self.verdicts
        )
        return f"<table>{rows}</table>"
